"""Secrets at rest under a random master key: AES-256-GCM, one derived key per purpose.

Key: HKDF-SHA256(master, info = frame("strongroom/at-rest/1", "AES-256-GCM", owner, purpose)).
Layout: nonce(12) ‖ ciphertext+tag. The name of the secret is authenticated, so that a row moved to
another name, purpose or owner does not open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.encoding import framed
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

LABEL = "strongroom/at-rest/1"
ALGORITHM = b"AES-256-GCM"
MAC = b"HMAC-SHA256"
MASTER_BYTES = 32
_NONCE = 12


class AtRest:
    """Seals and opens secrets of one owner under one master key. Never shows a key."""

    __slots__ = ("_keys", "_master", "_owner")

    def __init__(self, master: bytes, *, owner: str) -> None:
        if len(master) != MASTER_BYTES:
            raise Malformed(f"master key: expected {MASTER_BYTES} bytes, got {len(master)}")
        self._master = master
        self._owner = owner
        self._keys: dict[str, AESGCM] = {}

    def seal(self, plaintext: bytes, *, purpose: str, name: str, random: Callable[[int], bytes]) -> bytes:
        """Encrypt; the result opens only under the same purpose and name."""
        nonce = random(_NONCE)
        return nonce + self._key(purpose).encrypt(nonce, plaintext, self._aad(purpose, name))

    def open(self, sealed: bytes, *, purpose: str, name: str) -> bytes:
        """Decrypt. Raises `Refused` when anything differs from what `seal` was given."""
        try:
            return self._key(purpose).decrypt(sealed[:_NONCE], sealed[_NONCE:], self._aad(purpose, name))
        except (InvalidTag, ValueError):
            raise Refused(
                f"the stored {purpose} does not open under this master key",
                code="at-rest",
                hint="the store was altered, or belongs to another broker",
            ) from None

    def mac_key(self, purpose: str) -> bytes:
        """A key (32 bytes) for HMAC-SHA256, of that purpose alone and of this master key."""
        return self._derive(MAC, purpose)

    def _key(self, purpose: str) -> AESGCM:
        if purpose not in self._keys:
            self._keys[purpose] = AESGCM(self._derive(ALGORITHM, purpose))
        return self._keys[purpose]

    def _derive(self, algorithm: bytes, purpose: str) -> bytes:
        info = framed.join(LABEL, algorithm, self._owner.encode(), purpose.encode())
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(self._master)

    def _aad(self, purpose: str, name: str) -> bytes:
        return framed.join(LABEL, self._owner.encode(), purpose.encode(), name.encode())
