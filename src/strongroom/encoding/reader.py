"""A bounds-checked cursor over bytes: every read either succeeds whole or raises `Malformed`."""

from __future__ import annotations

from strongroom.errors import Malformed


class Reader:
    """Reads integers and byte runs in order. `what` names the structure in messages."""

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    @property
    def what(self) -> str:
        """The structure's name, for messages."""
        return self._what

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._offset

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._offset

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        end = self._offset + count
        if count < 0 or end > len(self._data):
            raise Malformed(
                f"{self._what}: {count} bytes wanted at offset {self._offset}, {self.remaining} left",
                code="truncated",
            )
        run = self._data[self._offset : end]
        self._offset = end
        return run

    def u8(self) -> int:
        """Unsigned byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Unsigned 16-bit integer, big-endian."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Unsigned 32-bit integer, big-endian."""
        return int.from_bytes(self.take(4), "big")

    def u32le(self) -> int:
        """Unsigned 32-bit integer, little-endian."""
        return int.from_bytes(self.take(4), "little")

    def u64le(self) -> int:
        """Unsigned 64-bit integer, little-endian."""
        return int.from_bytes(self.take(8), "little")

    def done(self) -> None:
        """Refuse trailing bytes."""
        if self.remaining:
            raise Malformed(f"{self._what}: {self.remaining} trailing bytes", code="trailing-bytes")
