"""Commands of ours in shell lines, held to the parser that reads what users type."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

import typer
from typer._click.exceptions import ClickException  # typer brings its parser, under this name
from typer.main import get_command

from strongroom.cli.main import application

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "strongroom"
_ENDS = {";", "&&", "||", "|", "&", "(", ")", "\n"}
_REDIRECTION = re.compile(r"[0-9]*(?:<<?|>>?)&?")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


@cache
def root() -> Any:
    return get_command(application())


def verbs() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each verb that does something, by its words, with its command."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from below(inner, (*words, name))
        else:
            yield words, command

    yield from below(root(), (NAME,))


def commands(line: str) -> list[list[str]]:
    """The simple commands of a shell line, without comments, redirections and settings before them."""
    line = line.replace("\\\n", " ")
    within = re.findall(r"\$\(([^()]*)\)", line)
    line = re.sub(r"\$\([^()]*\)", "WORD", line)
    lexer = shlex.shlex(line.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.wordchars += "…:@%[]{}+,=~$"
    out: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if word in _ENDS:
            out.append([])
        elif _REDIRECTION.fullmatch(word) and not word.isdigit():
            skip = True
        elif skip:
            skip = False
        elif out[-1] or not _SETTING.match(word):
            out[-1].append(word)
    return [one for one in out if one] + [one for inner in within for one in commands(inner)]


def ours(line: str) -> list[list[str]]:
    """What is given to our own program in a shell line."""
    return [one[1:] for one in commands(line) if one[0] == NAME]


def fault(words: list[str]) -> str:
    """Why the real parser does not take this; empty when it does."""
    command, name, left, parent = root(), NAME, list(words), None
    try:
        while True:
            context = command.make_context(name, list(left), parent=parent)
            if not hasattr(command, "commands"):
                return ""
            name, command, left = command.resolve_command(context, [*context._protected_args, *context.args])
            parent = context
    except typer.Exit:
        return ""  # --help
    except ClickException as failure:
        return failure.format_message()


@cache
def help_of(words: tuple[str, ...], *, columns: int) -> str:
    """What `--help` prints of a verb on a terminal that wide."""
    command, context = root(), None
    for name in (NAME, *words):
        command = command if context is None else command.commands[name]
        context = command.context_class(command, info_name=name, parent=context, terminal_width=columns)
    return str(command.get_help(context))


def named(words: list[str]) -> tuple[Any, str]:
    """(The verb's command, what is wrong with its name or options), for text that leaves things out."""
    command = root()
    rest = list(words)
    while hasattr(command, "commands"):
        if rest and rest[0] in command.commands:
            command = command.commands[rest.pop(0)]
        elif "predict" in command.commands:  # `measure FOLDER`
            command = command.commands["predict"]
        elif not rest or rest[0] == "…" or "|" in rest[0] or rest[0].startswith("-"):
            return None, ""
        else:
            return None, f"no verb {rest[0]!r}"
    known = {"--help"} | {
        name for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")
    }
    strange = [
        option
        for one in rest
        if one.startswith("-") and one.strip("-…")
        for option in [one.partition("=")[0]]
        if option not in known
    ]
    return command, f"no option {strange[0]}" if strange else ""
