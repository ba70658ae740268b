"""Every command on a page is run from the page, or held to the real parser and named as not run, with why."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys

import pytest

from tests.arch import sources
from tests.pages import command_lines, reading

BLOCKS = [block for page in reading.pages() for block in reading.blocks(page)]
SHELL = [block for block in BLOCKS if block.kind in ("console", "sh")]
PAGES = reading.pages()
# What this says in prose is history, or a name that is not a command.
OF_ITS_TIME = {"CHANGELOG.md", "docs/decisions"}


def of_today(page):
    name = str(page.relative_to(reading.ROOT))
    return not any(name.startswith(one) for one in OF_ITS_TIME)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.where for block in BLOCKS])
def test_a_block_says_what_it_is(block):
    assert block.kind in reading.KINDS, (
        f"{block.where}: fence of kind {block.kind!r}: see tests/pages/reading.py"
    )
    if block.kind == "sh":
        assert block.why_not_run, f"{block.where}: `<!-- not run: WHY -->` belongs on the line above"
    else:
        assert not block.why_not_run, f"{block.where}: a block that is not run is of kind sh"
        assert block.kind == "console" or not command_lines.ours(prose(block.text)), block.where


def prose(text):
    """Lines that might be commands, of a block that should have none."""
    return "\n".join(
        line for line in text.splitlines() if line.lstrip("$ ").startswith("strongroom ") and "'" not in line
    )


@pytest.mark.parametrize("block", SHELL, ids=[block.where for block in SHELL])
def test_commands_are_what_the_parser_takes(block):
    text = "\n".join(one.command for one in reading.typed(block)) if block.kind == "console" else block.text
    found = command_lines.commands(text)
    assert found, block.where
    wrong = {
        " ".join(words): why for words in command_lines.ours(text) if (why := command_lines.fault(words))
    }
    assert wrong == {}, block.where
    made = re.findall(r"^([a-z]+):", (reading.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {words[1] for words in found if words[0] == "make"} <= set(made), block.where
    for words in found:
        if words[0] == "python" and words[1] == "-m":
            assert importlib.util.find_spec(words[2]), f"{block.where}: {words}"


def test_commands_stand_in_fences():
    """An indented command would be neither run nor parsed."""
    loose = [
        f"{page.relative_to(reading.ROOT)}:{number}"
        for page in PAGES
        if of_today(page)
        for number, line in reading.outside(page)
        if line.startswith(("    strongroom ", "    $ "))
    ]
    assert loose == []


def test_commands_in_prose_have_verbs_and_options_that_there_are():
    wrong = {
        f"{where}: {text}": why
        for page in PAGES
        if of_today(page)
        for where, text in reading.inline(page)
        for words in [text.split()]
        for given in [words[1:] if words[0] == command_lines.NAME else words if verb(words) else None]
        if given is not None and (why := command_lines.named(given)[1])
    }
    assert wrong == {}


def verb(words):
    """Is this `contract new …` with its own name left out?"""
    return any(
        path[1:] == tuple(words[: len(path) - 1]) for path, _ in command_lines.verbs() if len(path) > 2
    )


def test_commands_in_messages_have_verbs_and_options_that_there_are():
    """Hints tell what to type: `strongroom …` within backticks, in any text of the product."""
    found = {
        (source.name, text)
        for source in sources.product()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for text in re.findall(r"`strongroom ([a-z][^`]*)`", node.value)
    }
    assert len(found) > 20, "the messages were not found"
    wrong = {f"{name}: {text}": why for name, text in found if (why := command_lines.named(text.split())[1])}
    assert wrong == {}


PYTHON = [block for block in BLOCKS if block.kind == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=[block.where for block in PYTHON])
def test_what_a_python_block_imports_is_there(block):
    tree = ast.parse(block.text)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports, block.where
    text = "\n".join(ast.unparse(node) for node in imports)
    subprocess.run([sys.executable, "-c", text], check=True, cwd=reading.ROOT)


def test_a_wrong_command_is_found():
    """What the tests above stand on."""
    assert command_lines.fault(["open", "x.age"])  # without --identity
    assert command_lines.fault(["seal", "x", "-i", "a", "--name", "b", "--nmae", "c"])
    assert command_lines.fault(["contract", "nwe", "x"])
    assert command_lines.fault(["contract", "new", "x", "--days", "tomorrow"])
    assert not command_lines.fault(["seal", "x", "-i", "a", "--name", "b"])
    assert command_lines.named(["contract", "sgin", "…"])[1]
    assert command_lines.named(["contract", "sign", "FILE", "--identty", "…"])[1]
    assert not command_lines.named(["contract", "sign", "FILE", "--identity", "…"])[1]
    line = (
        "A=1 strongroom seal x >y; strongroom a $(strongroom b --c) d | less && strongroom e # strongroom f"
    )
    assert command_lines.ours(line) == [["seal", "x"], ["a", "WORD", "d"], ["e"], ["b", "--c"]]
