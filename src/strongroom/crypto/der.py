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
_NAMES = {
    INTEGER: "INTEGER",
    BIT_STRING: "BIT STRING",
    OCTET_STRING: "OCTET STRING",
    OBJECT_IDENTIFIER: "OBJECT IDENTIFIER",
    SEQUENCE: "SEQUENCE",
    SET: "SET",
}


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
        raise Malformed(f"{reader.what}: DER: tag {tag:#04x}, of more than one byte, has no place here")
    first = reader.u8()
    head = bytes([tag, first])
    size = first
    if first & 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4:
            raise Malformed(
                f"{reader.what}: DER: expected a length of 1 to 4 bytes, got {count or 'an indefinite one'}"
            )
        raw = reader.take(count)
        head += raw
        size = int.from_bytes(raw, "big")
        if size < 0x80 or raw[0] == 0:
            raise Malformed(f"{reader.what}: DER: length {size} is not in its shortest form")
    body = reader.take(size)
    return tag, body, head + body


def expect(reader: Reader, tag: int) -> tuple[bytes, bytes]:
    """The next element, which must have `tag`, as (contents, whole)."""
    found_tag, body, element = read(reader)
    if found_tag != tag:
        raise Malformed(f"{reader.what}: DER: expected {_name(tag)}, got {_name(found_tag)}")
    return body, element


def _name(tag: int) -> str:
    return f"{_NAMES[tag]} (tag {tag:#04x})" if tag in _NAMES else f"tag {tag:#04x}"


def elements(data: bytes, what: str = "certificate") -> list[tuple[int, bytes, bytes]]:
    """All elements of the contents of a SEQUENCE or SET, as (tag, contents, whole). Raises `Malformed`.

    what: names the structure in messages.

    What `read` does, several times as fast: certificates that are new are parsed while somebody waits.
    """
    out = []
    at, end = 0, len(data)
    while at < end:
        if end - at < 2:
            raise Malformed(f"{what}: DER: cut short", code="truncated")
        tag, size = data[at], data[at + 1]
        body = at + 2
        if tag & 0x1F == 0x1F:
            raise Malformed(f"{what}: DER: tag {tag:#04x}, of more than one byte, has no place here")
        if size & 0x80:
            count = size & 0x7F
            body += count
            if not 1 <= count <= 4 or body > end:
                raise Malformed(
                    f"{what}: DER: expected a length of 1 to 4 bytes, got an indefinite, longer or cut one"
                )
            size = int.from_bytes(data[at + 2 : body], "big")
            if size < 0x80 or data[at + 2] == 0:
                raise Malformed(f"{what}: DER: length {size} is not in its shortest form")
        stop = body + size
        if stop > end:
            raise Malformed(f"{what}: DER: cut short", code="truncated")
        out.append((tag, data[body:stop], data[at:stop]))
        at = stop
    return out
