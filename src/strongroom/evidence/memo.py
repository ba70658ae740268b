"""Outcomes that depend on bytes alone, kept by those exact bytes, in bounded number and unseen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")


class Memo(Generic[_Value]):
    """Outcomes by their inputs' exact bytes, at most `most` of them; the least lately used one goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[object, _Value] = {}

    def get(self, key: object, make: Callable[[], _Value]) -> _Value:
        """What is kept for `key`, or what `make` returns; what it raises is not kept."""
        value = self._kept.pop(key, None)
        if value is None:
            value = make()
            while len(self._kept) >= self._most:
                self._kept.pop(next(iter(self._kept), None), None)
        self._kept[key] = value
        return value

    def clear(self) -> None:
        """Forget everything: for measurements."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class Long:
    """Long bytes as part of a key: compared whole, by their length first.

    Python hashes bytes several times slower than it compares them, and the bytes of a new log were never hashed before.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __hash__(self) -> int:
        return len(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Long) and self.data == other.data
