"""Writing CBOR in its one deterministic form (RFC 8949, section 4.2.1), over what `cbor` reads.

Shortest heads, definite lengths, map keys in the order of their encoded bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.encoding.cbor import Tagged
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from strongroom.encoding.cbor import Value

_SIMPLE = {False: b"\xf4", True: b"\xf5", None: b"\xf6"}
_MAX_DEPTH = 32


def dumps(value: Value) -> bytes:
    """Encode `value`. Raises `Malformed` for an integer of more than 64 bits, and for what has no place in CBOR."""
    return _encode(value, 0)


def _encode(value: Value, depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise Malformed("CBOR: nested too deeply", code="too-deep")
    if value is None or isinstance(value, bool):
        return _SIMPLE[value]
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        data = value.encode()
        return _head(3, len(data)) + data
    if isinstance(value, tuple):
        return _head(4, len(value)) + b"".join([_encode(item, depth + 1) for item in value])
    if isinstance(value, dict):
        pairs = sorted((_encode(key, depth + 1), _encode(item, depth + 1)) for key, item in value.items())
        return _head(5, len(pairs)) + b"".join([key + item for key, item in pairs])
    if isinstance(value, Tagged):
        return _head(6, value.tag) + _encode(value.value, depth + 1)
    raise Malformed(f"CBOR: {type(value).__name__} has no place in it", code="bad-type")


def _head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes((major << 5 | count,))
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if count < 1 << 8 * size:
            return bytes((major << 5 | info,)) + count.to_bytes(size, "big")
    raise Malformed("CBOR: an integer of more than 64 bits", code="integer-range")
