"""Ed25519 signatures (RFC 8032), the signing algorithm of parties, rooms and ledgers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class VerifyingKey:
    """A public key: 32 raw bytes."""

    raw: bytes

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise `Refused` unless `signature` over `message` is by this key."""
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise Refused("signature does not verify", code="bad-signature") from None


@dataclass(frozen=True)
class SigningKey:
    """A private key: 32 raw bytes, never shown by `repr`."""

    raw: bytes = field(repr=False)

    @cached_property
    def public(self) -> VerifyingKey:
        """The matching public key."""
        return VerifyingKey(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """A 64-byte signature."""
        return self._key.sign(message)

    # Kept: making the key takes three times as long as a signature.
    @cached_property
    def _key(self) -> ed25519.Ed25519PrivateKey:
        try:
            return ed25519.Ed25519PrivateKey.from_private_bytes(self.raw)
        except ValueError:
            raise Malformed(f"signing key: expected 32 bytes, got {len(self.raw)}") from None


def holds(verify: Callable[[bytes, bytes], None], signature: bytes, message: bytes) -> bool:
    """Whether `verify`, a key's method that raises `Refused`, lets `signature` over `message` pass."""
    try:
        verify(signature, message)
    except Refused:
        return False
    return True


def generate() -> SigningKey:
    """A fresh key from the operating system's generator."""
    return SigningKey(ed25519.Ed25519PrivateKey.generate().private_bytes_raw())
