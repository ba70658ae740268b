"""The form of a check's sentences, and how data is written plainly; see `sentences`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strongroom.model.verdict import Check, Data

Phrases: TypeAlias = "Mapping[str | bool | None, str | Callable[[Data], str]]"


@dataclass(frozen=True, kw_only=True)
class Wording:
    """One check's sentences.

    expected, got: phrases by the data: a code, true or false, None for nothing (also an empty list), "" for all else;
    in them `{it}` is the data, `{key}` a part of an object, `{name}` what follows in the check's name. Data may be
    anything, as a stranger may have made them up: a function takes them all.
    hint: what to do where the check failed. source: a public specification's section, or a page and its heading.
    """

    expected: Phrases = field(default_factory=dict)
    got: Phrases = field(default_factory=dict)
    hint: str | Callable[[Check], str]
    source: str | Callable[[Check], str]


MAX_TEXT = 4096
NOTHING = "nothing"


def plain(value: Data) -> str:
    """Data for people, whatever they are of."""
    return _plain(value)[:MAX_TEXT]


def _plain(value: Data) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value) or '""'
    if not isinstance(value, dict):
        return ", ".join(_plain(item) for item in value) or NOTHING
    if value.keys() == {"one_of", "first"}:
        return f"one of {_plain(value['one_of'])}: {_plain(value['first'])}"
    return (
        ", ".join(key if item is None else f"{key} {_plain(item)}" for key, item in value.items()) or NOTHING
    )
