"""Length-prefixed concatenation, so that no two field lists share an encoding."""

from __future__ import annotations


def join(label: str, *fields: bytes) -> bytes:
    """Return label and fields, each after its length as 8 big-endian bytes."""
    parts: list[bytes] = []
    for field in (label.encode(), *fields):
        parts += (len(field).to_bytes(8, "big"), field)
    return b"".join(parts)
