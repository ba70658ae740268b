"""Whether a secret, or a part of it, shows somewhere: as it is, in hexadecimal, or in base64.

A secret of 16 bytes or more is looked for by pieces of eight that follow one another, so that whatever holds
any fifteen of its bytes in a row is caught; a shorter one as a whole. Both are looked for raw, in hexadecimal
of either case, and in base64 of either alphabet, wherever in a longer stream the bytes stood.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PIECE = 8


def forms(piece: bytes) -> Iterator[bytes]:
    """How these bytes may be written, without what their neighbours would decide."""
    yield piece
    yield piece.hex().encode()
    yield piece.hex().upper().encode()
    for before in range(3):
        # Of the first and last characters some bits are the neighbours'.
        first, last = -(-before * 8 // 6), (before + len(piece)) * 8 // 6
        text = base64.b64encode(bytes(before) + piece)[first:last]
        yield text
        yield text.translate(bytes.maketrans(b"+/", b"-_"))


def pieces(secret: bytes) -> Iterator[bytes]:
    """Its parts; of a short secret, the whole."""
    if len(secret) < PIECE:
        raise ValueError("too short to be told from chance")
    if len(secret) < 2 * PIECE:
        yield secret
        return
    yield from (secret[at : at + PIECE] for at in range(0, len(secret) - PIECE + 1, PIECE))


def shown(secrets: Mapping[str, bytes], places: Mapping[str, bytes]) -> list[str]:
    """`NAME in PLACE` for each of the secrets that shows in one of the places."""
    return [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, data in places.items()
        if any(form in data for piece in pieces(secret) for form in forms(piece))
    ]
