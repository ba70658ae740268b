"""What was typed and cannot be read: one sentence and a hint, as for every other failure."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import typer

from strongroom.errors import Misuse

if TYPE_CHECKING:
    from typing import Any, NoReturn

_NUMBERS = frozenset({"int", "int range"})
_TYPED = re.compile(r"('.*'|-?\d+) is (?:not|larger|smaller)", re.DOTALL)


def run(app: typer.Typer) -> NoReturn:
    """Read the command line, do what it says, and leave. Raises `Misuse` where it cannot be read."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        print("aborted: nobody answered the question", file=sys.stderr)
        sys.exit(1)
    except typer.TyperException as failure:
        context: Any = getattr(failure, "ctx", None)
        if context is None or type(failure).__name__ == "NoArgsIsHelpError":
            _shown(failure)
        raise Misuse(
            f"{context.command_path}: {_message(failure)}",
            hint=f"`{context.command_path} --help` shows "
            + ("its verbs" if hasattr(context.command, "commands") else "what it takes, with an example"),
        ) from None
    sys.exit(code if isinstance(code, int) else 0)


def _shown(failure: Any) -> None:
    """A group of verbs without a verb: its help says which there are."""
    failure.show()
    sys.exit(failure.exit_code)


def _message(failure: Any) -> str:
    parameter = getattr(failure, "param", None)
    typed = _TYPED.match(str(failure.message))
    if parameter is None or typed is None or parameter.type.name not in _NUMBERS:
        text: str = failure.format_message().rstrip(".")
        return text[:1].lower() + text[1:].replace("such command", "such verb")
    name = max(parameter.opts, key=len)
    return f"{name}: expected a whole number{_range(parameter.type)}, got {typed[1]}"


def _range(kind: Any) -> str:
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    if low is None:
        return "" if high is None else f" of at most {high}"
    return f" of at least {low}" if high is None else f" from {low} to {high}"
