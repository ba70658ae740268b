"""Secrets at rest under a passphrase: scrypt (RFC 7914), then AES-256-GCM.

Layout: magic(8) ‖ log2 N(1) ‖ salt(16) ‖ nonce(12) ‖ ciphertext+tag. The header is authenticated.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

_MAGIC = b"SRVAULT1"
_LOG_N = 15
_R = 8


def lock(passphrase: bytes, plaintext: bytes, *, purpose: str, random: Callable[[int], bytes]) -> bytes:
    """Encrypt under `passphrase`. `purpose` is authenticated: a vault opens only for its own use."""
    if not passphrase:
        raise Malformed("passphrase: empty", hint="give a passphrase of at least one character")
    header = _MAGIC + bytes([_LOG_N]) + random(16)
    nonce = random(12)
    key = _derive(passphrase, header)
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, header + purpose.encode())


def unlock(passphrase: bytes, vault: bytes, *, purpose: str) -> bytes:
    """Decrypt what `lock` made. Raises `Malformed`, or `Refused` for a wrong passphrase."""
    reader = Reader(vault, "the part under the passphrase")
    header = reader.take(25)
    if header[:8] != _MAGIC or header[8] != _LOG_N:
        raise Malformed(
            "the part under the passphrase: not in the form that this version writes",
            hint="the file is damaged, which a backup mends, or of another version of this program",
        )
    nonce = reader.take(12)
    ciphertext = reader.take(reader.remaining)
    try:
        return AESGCM(_derive(passphrase, header)).decrypt(nonce, ciphertext, header + purpose.encode())
    except InvalidTag:
        raise Refused(
            "the passphrase is another one than this was locked with",
            code="wrong-passphrase",
            hint="check the passphrase; a damaged file gives the same answer",
        ) from None


def _derive(passphrase: bytes, header: bytes) -> bytes:
    n = 1 << header[8]
    return hashlib.scrypt(passphrase, salt=header[9:25], n=n, r=_R, p=1, maxmem=256 * n * _R, dklen=32)
