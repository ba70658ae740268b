"""The manual page, man(7), from the texts of `--help`: the same bytes at any time, on any terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from strongroom.cli.grammar.tree import Argument, Option, Verb

NAME = "strongroom"


def page(
    verbs: Sequence[Verb], *, version: str, statuses: Mapping[int, str], environment: Mapping[str, str]
) -> str:
    """strongroom(1). verbs: as `tree.verbs` gives them, the program itself first. statuses: exit status to meaning. environment: variable to meaning."""
    program, *rest = verbs
    parts = [
        # Where man(7) has a date stands nothing, so that the page is the same on every day.
        f'.TH STRONGROOM 1 "" "{NAME} {_text(version)}" "User Commands"',
        ".SH NAME",
        f"{NAME} \\- {_text(program.brief[:1].lower() + program.brief[1:])}",
        ".SH SYNOPSIS",
        f".B {NAME}",
        "VERB [OPTIONS] [ARGUMENTS]",
        ".SH DESCRIPTION",
        *_paragraphs(program.help),
        ".SH OPTIONS",
        *(line for option in program.options for line in _option(option)),
        ".SH VERBS",
    ]
    for verb in rest:
        if verb.verbs:
            parts += [f'.SS "{NAME} {_text(" ".join(verb.path))} VERB"', *_paragraphs(verb.help)]
        else:
            parts += _verb(verb)
    parts += [".SH EXIT STATUS"]
    for status, meaning in statuses.items():
        parts += [".TP", f".B {status}", _text(meaning)]
    parts += [".SH ENVIRONMENT"]
    for name, meaning in environment.items():
        parts += [".TP", f".B {_text(name)}", _text(meaning)]
    return "\n".join(parts) + "\n"


def _verb(verb: Verb) -> Iterator[str]:
    yield f'.SS "{NAME} {_text(" ".join((*verb.path, "[OPTIONS]", *map(_shown, verb.arguments))))}"'
    yield from _paragraphs(verb.help)
    for argument in verb.arguments:
        if argument.help:
            yield from (".TP", f".I {_text(argument.value.shown)}", _text(argument.help))
    for option in verb.options:
        if option.names != ("--help",):
            yield from _option(option)
    if verb.examples:
        yield from (".PP", "Example:" if len(verb.examples) == 1 else "Examples:", ".PP", ".nf", ".RS 4")
        yield from map(_text, verb.examples)
        yield from (".RE", ".fi")


def _shown(argument: Argument) -> str:
    shown = argument.value.shown + ("…" if argument.many and "…" not in argument.value.shown else "")
    return shown if argument.required else f"[{shown}]"


def _option(option: Option) -> Iterator[str]:
    names = ", ".join(rf"\fB{_text(name)}\fR" for name in sorted(option.names, key=len))
    value = "" if option.value is None else rf" \fI{_text(option.value.shown)}\fR"
    ends = [
        *([f"default: {option.default}"] if option.default else []),
        *(["required"] if option.required else []),
    ]
    description = " ".join(option.help.split()) + (f" [{'; '.join(ends)}]" if ends else "")
    yield from (".TP", f"{names}{value}", _text(description))


def _paragraphs(text: str) -> Iterator[str]:
    """The lines of a help text. A backspace in it is for click, which then keeps the lines of that paragraph."""
    for number, paragraph in enumerate(part for part in re.split(r"\n\s*\n", text) if part.strip("\b\n ")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.replace("\b", "").split()))


def _text(text: str) -> str:
    """A line that roff prints as it is: nothing of it is a request or an escape, and all of it is ASCII."""
    out = text.replace("\\", "\\e").replace("-", "\\-")
    out = "".join(character if character.isascii() else f"\\[u{ord(character):04X}]" for character in out)
    out = out.replace('"', "\\(dq")
    return "\\&" + out if out.startswith((".", "'")) else out
