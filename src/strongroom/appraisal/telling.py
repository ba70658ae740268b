"""How checks are told: values as texts of bounded length, whether they are the same, and the check itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.model.policy import Value

MISSING = "no such claim"
MAX_TEXT = 400


def same(got: Value | None, wanted: Value) -> bool:
    """Whether both are one value of one type: 1 is not true."""
    return type(got) is type(wanted) and got == wanted


def shown(value: Value | None) -> str:
    """A value for people."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:MAX_TEXT] or '""'


def one_of(values: Iterable[str]) -> str:
    """The one value, or how many and the first of them."""
    listed = list(values)
    if len(listed) == 1:
        return listed[0]
    return f"one of {len(listed)}: {', '.join(listed[:4])}" if listed else "nothing"


def made(name: str, expected: str, got: str, ok: bool, *, hint: str = "", source: str = "policy") -> Check:  # noqa: FBT001 - read at the call as the check itself
    """The check; its hint is told where it failed. source: what asks for it, the platform's policy otherwise."""
    return Check(name=name, expected=expected, got=got, ok=ok, hint="" if ok else hint, source=source)
