"""HPKE (RFC 9180) with the X-Wing hybrid KEM, HKDF-SHA256 and AES-256-GCM.

X-Wing (draft-connolly-cfrg-xwing-kem) combines ML-KEM-768 and X25519: recorded traffic stays closed
unless both fall. Base mode, single shot; the output is `enc ‖ ciphertext`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from strongroom.errors import Malformed, Refused

_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_MLKEM_PUBLIC = 1184  # bytes, as FIPS 203 has them for ML-KEM-768
_MLKEM_SEED = 64
PUBLIC_BYTES = _MLKEM_PUBLIC + 32


@dataclass(frozen=True)
class KemPrivateKey:
    """A private KEM key: ML-KEM seed (64 bytes) then X25519 scalar (32 bytes)."""

    raw: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """1216 bytes: ML-KEM-768 key then X25519 key, the X-Wing encapsulation key."""
        ml, x = self._parts()
        return ml.public_key().public_bytes_raw() + x.public_key().public_bytes_raw()

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Decrypt what `seal` made for this key under the same `info`. Raises `Refused`."""
        ml, x = self._parts()
        try:
            return _SUITE.decrypt(sealed, hpke.MLKEM768X25519PrivateKey(ml, x), info)
        except (InvalidTag, ValueError):
            raise Refused(
                "the sealed message does not open with this key",
                code="not-ours",
                hint="it was sealed for another room or under another binding, or was changed on its way",
            ) from None

    def _parts(self) -> tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]:
        return (
            mlkem.MLKEM768PrivateKey.from_seed_bytes(self.raw[:_MLKEM_SEED]),
            x25519.X25519PrivateKey.from_private_bytes(self.raw[_MLKEM_SEED:]),
        )


def generate() -> KemPrivateKey:
    """A fresh KEM key from the operating system's generator."""
    ml = mlkem.MLKEM768PrivateKey.generate().private_bytes_raw()
    x = x25519.X25519PrivateKey.generate().private_bytes_raw()
    return KemPrivateKey(ml + x)


def seal(public: bytes, plaintext: bytes, *, info: bytes) -> bytes:
    """Encrypt to `public` (1216 bytes). Raises `Malformed` when that is no key."""
    if len(public) != PUBLIC_BYTES:
        raise Malformed(f"KEM key: expected {PUBLIC_BYTES} bytes, got {len(public)}")
    try:
        ml = mlkem.MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC])
        x = x25519.X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:])
        return _SUITE.encrypt(plaintext, hpke.MLKEM768X25519PublicKey(ml, x), info)
    except ValueError:
        raise Malformed("KEM key: expected an X-Wing key (ML-KEM-768 and X25519), got other bytes") from None
