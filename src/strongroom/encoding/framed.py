"""Length-prefixed concatenation, so that no two field lists share an encoding."""

from __future__ import annotations


def join(label: str, *fields: bytes) -> bytes:
    """Return label and fields, each after its length as 8 big-endian bytes."""
    out = bytearray()
    for field in (label.encode(), *fields):
        out += len(field).to_bytes(8, "big") + field
    return bytes(out)
