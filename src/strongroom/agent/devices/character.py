"""A character device that answers ioctls: the way to the firmware of SEV-SNP, TDX and Nitro."""

from __future__ import annotations

import ctypes
import fcntl
import os
from typing import Protocol

from strongroom.errors import Unavailable

_DEVICE = "the machine gave the room no such device: `strongroom node doctor` says what it lacks"

_READ_WRITE = 3
_WORD = 8


class Caller(Protocol):
    """Carries one request to the driver."""

    def call(self, request: int, argument: bytearray) -> None:
        """The ioctl `request`; the driver reads and changes `argument` in place. Raises `OSError`."""
        ...


class CharacterDevice:
    """The device at `path`, open until the end of the room. Raises `Unavailable`."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as cause:
            raise Unavailable(f"opening {path}: {cause.strerror}", code="no-device", hint=_DEVICE) from None

    def call(self, request: int, argument: bytearray) -> None:
        """The ioctl `request`."""
        fcntl.ioctl(self._fd, request, argument, True)


def both_ways(kind: int, number: int, size: int) -> int:
    """The number of an ioctl whose argument of `size` bytes is read and written (_IOWR)."""
    return _READ_WRITE << 30 | size << 16 | kind << 8 | number


def address(buffer: bytearray) -> int:
    """Where `buffer` lies, for a request that holds pointers. It must neither grow nor go until the call is over."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def word(value: int) -> bytes:
    """A __u64."""
    return value.to_bytes(_WORD, "little")
