"""Disk keys as files: 64 random bytes in an age file to their owner, mode 0600 (age-encryption.org/v1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom import files
from strongroom.crypto import age, xts
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 16 * 1024


def new(random: Callable[[int], bytes]) -> bytes:
    """A fresh disk key."""
    return xts.new_key(random)


def lock(key: bytes, recipient: str) -> bytes:
    """The file's bytes, for the owner's `age1…` recipient; write them with mode 0600."""
    xts.check_key(key)
    return age.seal((recipient,), key)


def unlock(data: bytes, identity: age.AgeIdentity) -> bytes:
    """The disk key in a file. Raises `Refused` when it is not for `identity`, `Malformed` when it holds no key."""
    if len(data) > MAX_BYTES:
        raise Malformed(
            f"disk key file: {len(data)} bytes, expected at most {MAX_BYTES}",
            code="too-large",
            hint="name the NAME.key.age that `strongroom seal` or `convert` wrote beside the disk",
        )
    key = identity.open(data)
    xts.check_key(key)
    return key


def read(path: Path, identity: age.AgeIdentity) -> bytes:
    """The disk key in the file NAME.key.age. Raises like `unlock`, with the file's name."""
    return files.parsed(path, lambda data: unlock(data, identity), max_bytes=MAX_BYTES)
