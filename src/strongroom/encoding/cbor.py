"""CBOR (RFC 8949), the strict profile in which evidence is read.

Accepted: integers of 64 bits, byte and text strings, arrays, maps, false, true, null; of definite or
indefinite length (Nitro documents have either). Refused, each as `Malformed`: bytes after the item, an
integer or length not in its shortest form, a key that is neither integer nor text, a key given twice,
text that is not UTF-8, tags that the caller did not name, floats, undefined and other simple values,
nesting, items or bytes beyond the limits. What is refused does not depend on what was read before.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from strongroom.encoding import unexpected
from strongroom.errors import Malformed

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8
MAX_ITEMS = 512


class _End(enum.Enum):
    """What a break byte reads as."""

    BREAK = 0


_BREAK: Final = _End.BREAK
_SIMPLE = {0xF4: False, 0xF5: True, 0xF6: None}
_LOWEST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}  # below it a shorter form exists
_INDEFINITE = -1


@dataclass(frozen=True)
class Tagged:
    """An item under a tag that the caller named."""

    tag: int
    value: Value


Value = int | bytes | str | bool | None | tuple["Value", ...] | dict["int | str", "Value"] | Tagged


def loads(
    data: bytes,
    what: str,
    *,
    tags: frozenset[int] = frozenset(),
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_items: int = MAX_ITEMS,
) -> Value:
    """The one item that `data` is. `what` names it in messages. Arrays become tuples. Raises `Malformed`."""
    if len(data) > max_bytes:
        raise Malformed(f"{what}: {len(data)} bytes, at most {max_bytes} allowed", code="too-large")
    decoder = _Decoder(data, what, tags, max_depth, max_items)
    value = decoder.value(0)
    if decoder.at != len(data):
        raise Malformed(f"{what}: {len(data) - decoder.at} trailing bytes", code="trailing-bytes")
    return value


class _Decoder:
    __slots__ = ("_data", "_deepest", "_left", "_most", "_tags", "_what", "at")

    def __init__(self, data: bytes, what: str, tags: frozenset[int], deepest: int, most: int) -> None:
        self._data = data
        self._what = what
        self._tags = tags
        self._deepest = deepest
        self._most = self._left = most
        self.at = 0

    def value(self, depth: int) -> Value:
        item = self._item(depth)
        if item is _BREAK:
            raise self._bad("a break outside of an item of indefinite length")
        return item

    def _item(self, depth: int) -> Value | _End:
        """A value, or `_BREAK`."""
        self._left -= 1
        if self._left < 0:
            raise self._bad(f"more than {self._most} items", code="too-many")
        if depth > self._deepest:
            raise self._bad(f"nested deeper than {self._deepest}", code="too-deep")
        at = self.at
        if at >= len(self._data):
            raise self._bad("ends too soon", code="truncated")
        initial = self._data[at]
        self.at = at + 1
        major = initial >> 5
        info = initial & 0x1F
        if major == 7:
            if initial == 0xFF:
                return _BREAK
            if initial not in _SIMPLE:
                raise self._bad("a float, or a simple value other than false, true and null")
            return _SIMPLE[initial]
        count = info if info < 24 else self._argument(info)
        if major == 2:
            return self._run(count, 2)
        if major == 3:
            return self._decoded(self._run(count, 3))
        if major == 4:
            return self._array(count, depth)
        if major == 5:
            return self._map(count, depth)
        return self._number(major, count, depth)

    def _number(self, major: int, count: int, depth: int) -> Value:
        """An integer, or an item under a tag."""
        if count == _INDEFINITE:
            raise self._bad("an integer or tag of indefinite length")
        if major == 0:
            return count
        if major == 1:
            return -1 - count
        if count not in self._tags:
            wanted = ", ".join(str(tag) for tag in sorted(self._tags)) or "none"
            raise self._bad(f"tag {count}, which has no place here (expected {wanted})", code="unknown-tag")
        return Tagged(count, self.value(depth + 1))

    def _argument(self, info: int) -> int:
        """What follows the initial byte; `info` is at least 24."""
        if info == 24 and self.at < len(self._data):
            number = self._data[self.at]
            if number >= 24:
                self.at += 1
                return number
        if info == 31:
            return _INDEFINITE
        if info > 27:
            raise self._bad("a reserved length")
        end = self.at + (1 << (info - 24))
        run = self._data[self.at : end]
        if end > len(self._data):
            raise self._bad("ends too soon", code="truncated")
        self.at = end
        number = int.from_bytes(run, "big")
        if number < _LOWEST[info]:
            raise self._bad("a number or length that is not in its shortest form", code="not-canonical")
        return number

    def _run(self, count: int, major: int) -> bytes:
        if count == _INDEFINITE:
            return self._chunks(major)
        at = self.at
        end = at + count
        if end > len(self._data):
            raise self._bad("ends too soon", code="truncated")
        self.at = end
        return self._data[at:end]

    def _chunks(self, major: int) -> bytes:
        """The pieces of a string of indefinite length, each of definite length and the same type."""
        pieces: list[bytes] = []
        while True:
            self._left -= 1
            if self._left < 0:
                raise self._bad(f"more than {self._most} items", code="too-many")
            if self.at >= len(self._data):
                raise self._bad("ends too soon", code="truncated")
            initial = self._data[self.at]
            self.at += 1
            if initial == 0xFF:
                return b"".join(pieces)
            info = initial & 0x1F
            count = info if info < 24 else self._argument(info)
            if initial >> 5 != major or count == _INDEFINITE:
                raise self._bad("a string with a piece of another kind")
            piece = self._run(count, major)
            if major == 3:
                self._decoded(piece)  # a character may not lie across two pieces
            pieces.append(piece)

    def _decoded(self, run: bytes) -> str:
        try:
            return run.decode("utf-8")
        except UnicodeDecodeError:
            raise self._bad("text that is not UTF-8") from None

    def _array(self, count: int, depth: int) -> tuple[Value, ...]:
        if count != _INDEFINITE:
            self._plausible(count)
            return tuple([self.value(depth + 1) for _ in range(count)])
        items: list[Value] = []
        while (item := self._item(depth + 1)) is not _BREAK:
            items.append(item)
        return tuple(items)

    def _map(self, count: int, depth: int) -> dict[int | str, Value]:
        out: dict[int | str, Value] = {}
        if count != _INDEFINITE:
            self._plausible(count)
            for _ in range(count):
                self._entry(out, self._item(depth + 1), depth)
            return out
        while (key := self._item(depth + 1)) is not _BREAK:
            self._entry(out, key, depth)
        return out

    def _entry(self, out: dict[int | str, Value], key: object, depth: int) -> None:
        if type(key) is not str and type(key) is not int:
            raise self._bad("a map's key that is neither integer nor text")
        if key in out:
            raise self._bad(f"a key given twice: {str(key)[:40]!r}", code="duplicate-key")
        value = self._item(depth + 1)
        if value is _BREAK:
            raise self._bad("a break for a value")
        out[key] = value

    def _plausible(self, count: int) -> None:
        """Each item has a byte at least: refused before anything is made of a length that lies."""
        if count > len(self._data) - self.at or count > self._most:
            left = len(self._data) - self.at
            raise self._bad(
                f"{count} items announced, {left} bytes left, at most {self._most} items allowed",
                code="truncated",
            )

    def _bad(self, why: str, *, code: str = "") -> Malformed:
        return Malformed(f"{self._what}: {why}, at byte {self.at}", code=code)


class Map:
    """A decoded map being consumed: each getter removes its key, `done()` refuses what is left."""

    __slots__ = ("_left", "what")

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{what}: expected a map, got {unexpected.kind(value)}", code="not-object")
        self._left: dict[int | str, Value] = dict(value)
        self.what = what

    def has(self, key: int | str) -> bool:
        """Whether the key is there and not read yet."""
        return key in self._left

    def value(self, key: int | str) -> Value:
        """Whatever stands under `key`."""
        if key not in self._left:
            raise Malformed(f"{self.what}: key {key!r} is missing", code="missing-key")
        return self._left.pop(key)

    def data(self, key: int | str, *, low: int, high: int) -> bytes:
        """Bytes, from `low` to `high` of them."""
        value = self.value(key)
        if not isinstance(value, bytes) or not low <= len(value) <= high:
            raise self.bad(key, f"{low} to {high} bytes", unexpected.kind(value))
        return value

    def data_or_null(self, key: int | str, *, low: int, high: int) -> bytes | None:
        """The same, or null, or no such key."""
        if self._left.get(key, None) is None:
            self._left.pop(key, None)
            return None
        return self.data(key, low=low, high=high)

    def text(self, key: int | str, *, high: int) -> str:
        """Printable text of 1 to `high` characters."""
        value = self.value(key)
        if not isinstance(value, str) or not 0 < len(value) <= high or not value.isprintable():
            raise self.bad(key, f"printable text of 1 to {high} characters", unexpected.kind(value))
        return value

    def integer(self, key: int | str, *, low: int, high: int) -> int:
        """An integer with low ≤ value ≤ high."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.bad(key, f"an integer from {low} to {high}", unexpected.kind(value))
        return value

    def boolean(self, key: int | str) -> bool:
        """True or false."""
        value = self.value(key)
        if not isinstance(value, bool):
            raise self.bad(key, "true or false", unexpected.kind(value))
        return value

    def items(self, key: int | str, *, low: int, high: int) -> tuple[Value, ...]:
        """An array of `low` to `high` items."""
        value = self.value(key)
        if not isinstance(value, tuple) or not low <= len(value) <= high:
            raise self.bad(key, f"an array of {low} to {high} items", unexpected.kind(value))
        return value

    def mapping(self, key: int | str, *, low: int, high: int) -> dict[int | str, Value]:
        """A map of `low` to `high` entries."""
        value = self.value(key)
        if not isinstance(value, dict) or not low <= len(value) <= high:
            raise self.bad(key, f"a map of {low} to {high} entries", unexpected.kind(value))
        return value

    def bad(self, key: int | str, wanted: str, got: str = "") -> Malformed:
        """The error for a value that is not as wanted, to be raised. got: what it is, in words."""
        return Malformed(
            f"{self.what}.{key}: expected {wanted}" + (f", got {got}" if got else ""), code="bad-value"
        )

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        if self._left:
            names = ", ".join(repr(key)[:40] for key in list(self._left)[:5])
            raise Malformed(f"{self.what}: unknown key {names}", code="unknown-key")
