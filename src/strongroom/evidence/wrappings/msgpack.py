"""MessagePack, as dstack writes its attestations with it: read into the values that JSON has, bounded.

Spec: github.com/msgpack/msgpack, spec.md. Read: nil, booleans, integers, texts, byte strings, arrays and maps whose
keys are texts. Refused: floats, extensions, what is cut short or goes on after its end. Byte strings become `bytes`.
"""

from __future__ import annotations

from typing import Any

MAX_ITEMS = 1 << 20
MAX_DEPTH = 16

_INTEGERS = {0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False)} | {
    0xD0: (1, True),
    0xD1: (2, True),
    0xD2: (4, True),
    0xD3: (8, True),
}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_CONSTANTS: dict[int, Any] = {0xC0: None, 0xC2: False, 0xC3: True}


def loads(data: bytes) -> Any:
    """The one value in `data`. Raises `ValueError`."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != len(data):
        raise ValueError("bytes after the end")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.items = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > len(self.data) - self.at:
            raise ValueError("cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        """The next number without a sign."""
        return int.from_bytes(self.take(size), "big")

    def value(self, depth: int) -> Any:
        """The next value."""
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise ValueError("too deep, or too many values")
        kind = self.number(1)
        if kind < 0x80:
            return kind
        if kind >= 0xE0:
            return kind - 0x100
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind in _INTEGERS:
            size, signed = _INTEGERS[kind]
            return int.from_bytes(self.take(size), "big", signed=signed)
        if kind in _BINARIES:
            return self.take(self.number(_BINARIES[kind]))
        return self._of_several(kind, depth)

    def _of_several(self, kind: int, depth: int) -> Any:
        if 0xA0 <= kind < 0xC0 or kind in _TEXTS:
            size = kind & 0x1F if kind < 0xC0 else self.number(_TEXTS[kind])
            return self.take(size).decode()  # UnicodeDecodeError is a ValueError
        if 0x90 <= kind < 0xA0 or kind in _ARRAYS:
            count = kind & 0x0F if kind < 0xA0 else self.number(_ARRAYS[kind])
            return [self.value(depth + 1) for _ in range(count)]
        if kind < 0x90 or kind in _MAPS:
            return self._map(kind & 0x0F if kind < 0x90 else self.number(_MAPS[kind]), depth)
        raise ValueError("a type that has no place here")

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in out:
                raise ValueError("a key that is no text, or twice there")
            out[key] = self.value(depth + 1)
        return out
