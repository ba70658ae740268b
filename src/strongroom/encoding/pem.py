"""PEM (RFC 7468), strictly: blocks of one label, and nothing between them.

A text that would not be written again as it was read is refused, so that no byte of it is without effect: the lines
of a block are all as long as its first (64 characters, or MIME's 76), each ends alike (LF, or CRLF throughout), the
last of the text may lack its end, at most an empty line parts two blocks, and one NUL may follow the last line's end,
since C programs that put certificates into quotes count the end of the string.
"""

from __future__ import annotations

import base64
import binascii
import re

from strongroom.errors import Malformed

_COLUMNS = 64


def decode(data: bytes, label: bytes, *, what: str, max_blocks: int, max_bytes: int) -> tuple[bytes, ...]:
    """The contents of the `label` blocks of `data`, at least one. Raises `Malformed`."""
    if len(data) > max_bytes:
        raise Malformed(f"{what}: {len(data)} bytes, at most {max_bytes} allowed", code="too-large")
    text = data[:-1] if data.endswith(b"\n\0") else data
    newline = b"\r\n" if b"\r\n" in text else b"\n"
    begin, end = b"-----BEGIN " + label + b"-----" + newline, newline + b"-----END " + label + b"-----"
    *chunks, rest = text.split(end)
    if not chunks or rest not in (b"", newline):
        raise Malformed(
            f"{what}: expected PEM: {label.decode()} blocks and nothing around them", code="not-pem"
        )
    if len(chunks) > max_blocks:
        raise Malformed(f"{what}: more than {max_blocks} blocks", code="too-many")
    out = []
    for index, chunk in enumerate(chunks):
        block = chunk
        for _ in range(2 if index else 0):
            block = block.removeprefix(newline)
        if not block.startswith(begin):
            raise Malformed(
                f"{what}: expected PEM: {label.decode()} blocks and nothing around them", code="not-pem"
            )
        out.append(_body(block[len(begin) :], newline, what))
    return tuple(out)


def find_blocks(data: bytes, label: bytes) -> list[bytes]:
    """The contents of every `label` block anywhere in a text, none where there is none.

    For files that others hand over with names, comments or headers around the blocks: what they hold is judged, not
    how it was written.
    """
    blocks = re.findall(
        rb"-----BEGIN "
        + re.escape(label)
        + rb"-----([A-Za-z0-9+/=\s]*)-----END "
        + re.escape(label)
        + rb"-----",
        data,
    )
    out = []
    for block in blocks:
        try:
            out.append(binascii.a2b_base64(b"".join(block.split()), strict_mode=True))
        except binascii.Error:
            continue
    return out


def encode(contents: bytes, label: bytes) -> bytes:
    """One block with LF line ends."""
    return (
        b"-----BEGIN "
        + label
        + b"-----\n"
        + _lines(contents, b"\n", _COLUMNS)
        + b"\n-----END "
        + label
        + b"-----\n"
    )


def _body(body: bytes, newline: bytes, what: str) -> bytes:
    try:
        contents = binascii.a2b_base64(body.replace(newline, b""), strict_mode=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{what}: a PEM block is not base64", code="not-pem") from None
    columns = len(body.split(newline, 1)[0])
    if not contents or _lines(contents, newline, columns) != body:
        raise Malformed(
            f"{what}: expected PEM blocks whose lines are all as long as the first, got others",
            code="not-canonical",
        )
    return contents


def _lines(contents: bytes, newline: bytes, columns: int) -> bytes:
    text = base64.b64encode(contents)
    return newline.join([text[at : at + columns] for at in range(0, len(text), columns)])
