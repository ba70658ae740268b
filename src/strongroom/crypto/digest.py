"""SHA-256 digests in the one text form that documents use: `sha256:` and 64 hexadecimal digits."""

from __future__ import annotations

import hashlib


def sha256(data: bytes) -> str:
    """The text digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def raw(digest: str) -> bytes:
    """The 32 bytes of a text digest that was already validated."""
    return bytes.fromhex(digest.removeprefix("sha256:"))


def text(raw_digest: bytes) -> str:
    """The text form of 32 raw bytes."""
    return "sha256:" + raw_digest.hex()
