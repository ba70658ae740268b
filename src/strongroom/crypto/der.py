"""Just enough DER (X.690) to write a certificate request and to find the key in a certificate.

The room does without an X.509 library: loading one costs more time than all of its attestation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from strongroom.encoding.reader import Reader

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
SEQUENCE = 0x30
SET = 0x31
CONTEXT = 0x80
CONSTRUCTED = 0x20


def wrap(tag: int, *parts: bytes) -> bytes:
    """One element: tag, definite length, contents."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def read(reader: Reader) -> tuple[int, bytes, bytes]:
    """The next element as (tag, contents, whole). Raises `Malformed` on what DER forbids."""
    tag = reader.u8()
    if tag & 0x1F == 0x1F:
        raise Malformed("DER: a long tag has no place here")
    first = reader.u8()
    head = bytes([tag, first])
    size = first
    if first & 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4:
            raise Malformed("DER: indefinite or oversized length")
        raw = reader.take(count)
        head += raw
        size = int.from_bytes(raw, "big")
        if size < 0x80 or raw[0] == 0:
            raise Malformed("DER: length is not in its shortest form")
    body = reader.take(size)
    return tag, body, head + body


def expect(reader: Reader, tag: int) -> tuple[bytes, bytes]:
    """The next element, which must have `tag`, as (contents, whole)."""
    found, body, whole = read(reader)
    if found != tag:
        raise Malformed(f"DER: expected tag {tag:#04x}, got {found:#04x}")
    return body, whole
