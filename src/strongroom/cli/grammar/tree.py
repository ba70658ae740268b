"""The command line as data: every verb with its words, options and texts, read from the parser that reads what users type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typer.main import get_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer

_CLOSED = re.compile(r"[a-z0-9-]+(?:\|[a-z0-9-]+)+")
_NUMBERS = frozenset({"int", "int range", "float", "float range"})


@dataclass(frozen=True, kw_only=True)
class Value:
    """What an argument is, or what an option takes. shown: its form, as `--help` has it. words: a closed set.

    files: whether it is a file's name, or may be one.
    """

    shown: str
    words: tuple[str, ...] = ()
    files: bool = False


@dataclass(frozen=True, kw_only=True)
class Option:
    """value: None for a switch. default: as `--help` shows it, empty where there is none."""

    names: tuple[str, ...]
    help: str
    value: Value | None = None
    required: bool = False
    default: str = ""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """A word that stands for itself. many: it may come more than once."""

    value: Value
    help: str
    required: bool = False
    many: bool = False


@dataclass(frozen=True, kw_only=True)
class Verb:
    """path: its words after the program's name, none for the program itself. verbs: the words that can follow."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...] = ()
    verbs: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def brief(self) -> str:
        """The first sentence of its help, on one line."""
        return first_sentence(self.help)


def first_sentence(text: str) -> str:
    """A text's first sentence, on one line, without its full stop."""
    line = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<=[^.]{2})[.:;](?= |$)", line)[0]


def verbs(app: typer.Typer) -> tuple[Verb, ...]:
    """The program and every verb below it, in the order of `--help`."""
    return tuple(_below(get_command(app), ()))


def _below(command: Any, path: tuple[str, ...]) -> Iterator[Verb]:
    children: dict[str, Any] = {
        name: child for name, child in getattr(command, "commands", {}).items() if not child.hidden
    }
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    yield Verb(
        path=path,
        help=command.help or "",
        options=(
            *(_option(parameter) for parameter in shown if parameter.param_type_name == "option"),
            Option(names=("--help",), help="Show this message and exit."),
        ),
        arguments=tuple(
            _argument(parameter) for parameter in shown if parameter.param_type_name == "argument"
        ),
        verbs=tuple(children),
        examples=tuple(line[2:] for line in (command.epilog or "").splitlines() if line.startswith("  ")),
    )
    for name, child in children.items():
        yield from _below(child, (*path, name))


def _option(given: Any) -> Option:
    plain = given.default if not callable(given.default) else None
    show = isinstance(plain, int | str) and not isinstance(plain, bool) and plain != ""
    return Option(
        names=(*given.opts, *given.secondary_opts),
        help=given.help or "",
        value=None if given.is_flag else _value(given),
        required=given.required,
        default=str(plain) if show else "",
    )


def _argument(given: Any) -> Argument:
    value = _value(given)
    if not given.metavar:
        value = Value(shown=given.name.upper(), words=value.words, files=value.files)
    return Argument(value=value, help=given.help or "", required=given.required, many=given.nargs != 1)


def _value(given: Any) -> Value:
    kind = given.type.name
    shown = given.metavar or {"path": "FILE"}.get(kind, "N" if kind in _NUMBERS else kind.upper())
    if _CLOSED.fullmatch(shown):
        return Value(shown=shown, words=tuple(shown.split("|")))
    named = "FILE" in shown or kind == "path"
    # An argument that is a text may be a file, a name in a registry, a digest.
    return Value(shown=shown, files=named or (given.param_type_name == "argument" and kind not in _NUMBERS))
