"""How values become a check's data: bounded, whatever the claims or the contract hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.model.contracts.policy import Value
    from strongroom.model.verdict import Data

ANY, HARDWARE, SOFTWARE = "any", "hardware", "software"  # what a check expected, or got
MAX_TEXT = 400
MAX_LISTED = 16
_FIRST = 4


def same(got: Value | None, wanted: Value) -> bool:
    """Whether both are one value of one type: 1 is not true."""
    return type(got) is type(wanted) and got == wanted


def bounded(value: Value | None) -> Data:
    """The value; a long text by its beginning."""
    return value[:MAX_TEXT] if isinstance(value, str) else value


def listed(values: Iterable[str]) -> Data:
    """The values themselves, the first `MAX_LISTED` of them."""
    return [bounded(value) for value in list(values)[:MAX_LISTED]]


def one_of(values: Iterable[Value]) -> Data:
    """The one value, or {"one_of": how many, "first": the first few}; an empty list, of which nothing is one."""
    alternatives = list(values)
    if not alternatives:
        return []
    if len(alternatives) == 1:
        return bounded(alternatives[0])
    return {"one_of": len(alternatives), "first": [bounded(value) for value in alternatives[:_FIRST]]}
