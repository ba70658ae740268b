"""Names say what a thing is: no file, variable, parameter, function or method is called by a word that fits everything."""

from __future__ import annotations

import ast
import re
import tokenize
from functools import cache
from typing import TYPE_CHECKING

from tests.arch import sources

if TYPE_CHECKING:
    from collections.abc import Iterator

VAGUE = frozenset(
    ["one", "ones", "found", "told", "made", "look", "again", "live", "vouch", "thing", "things", "stuff"]
)
# Folders and files whose names are still to be mended: take each out with the last of its vague names.
NOT_YET: frozenset[str] = frozenset()
# `found` is the word of the object that `doctor --json` prints.
KEPT = {("strongroom/node/doctor.py", "found")}


def bound(source: sources.Source) -> Iterator[tuple[str, int]]:
    """A file's own name, and every name that it binds, with its line: by assignment or import, as a parameter or function."""
    yield source.path.stem, 1
    for node in source.nodes:
        match node:
            case ast.alias(asname=str(name)):
                yield name, node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno


@cache
def vague() -> list[tuple[str, str]]:
    """Of each vague name the folder or file of NOT_YET that it lies in, if any, and where it stands."""
    out = []
    for source in sources.product():
        place = next((place for place in NOT_YET if f"{source.name}/".startswith(f"{place}/")), "")
        for name, line in bound(source):
            if name.strip("_") in VAGUE and (source.name, name) not in KEPT:
                out.append((place, f"{source.name}:{line} {name}"))
    return out


def test_no_name_fits_everything():
    assert [where for place, where in vague() if not place] == [], (
        "say what it is: a layer, a certificate, an entry, a report"
    )


def test_places_that_are_still_to_be_mended():
    """A place stands in the list for as long as it has such a name, and no longer."""
    assert {place for place, _ in vague()} - {""} == NOT_YET


@cache
def prose() -> list[tuple[str, str]]:
    """Every docstring and comment, with its place."""
    out = []
    for source in sources.product():
        for node in source.nodes:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    out.append((f"{source.name}:{getattr(node, 'lineno', 1)}", text))
        with source.path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT:
                    out.append((f"{source.name}:{token.start[0]}", token.string))
    return out


def test_no_docstring_begins_with_an_it_that_nothing_before_names():
    begins = re.compile(r"(?:Whether|How|When|What) it\b|[A-Z][a-z]+ it\b(?! is\b| was\b| now\b)")
    starting = [where for where, text in prose() if begins.match(text) and not text.startswith("Where it")]
    assert starting == []


def test_nobody_is_told_in_prose_without_a_teller():
    """Say who writes, prints, calls or says what: a reader cannot know who tells."""
    assert [where for where, text in prose() if re.search(r"\btold\b", text)] == []
