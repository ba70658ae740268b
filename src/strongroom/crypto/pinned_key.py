"""A public key that somebody pinned, of one of the kinds that images are signed with.

ECDSA (DER) on P-256 with SHA-256, on P-384 with SHA-384 or on P-521 with SHA-512, Ed25519, or RSA of at least 2048 bits
with PKCS#1 v1.5 and SHA-256: the key decides the algorithm, nothing that comes with a signature does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from strongroom.crypto import digest
from strongroom.encoding import pem
from strongroom.errors import Malformed, Refused

MAX_PEM = 16 * 1024
_MIN_RSA, _MAX_RSA = 2048, 8192
# By curve: its name, and the hash that goes with it.
_CURVES = {
    "secp256r1": ("P-256", hashes.SHA256()),
    "secp384r1": ("P-384", hashes.SHA384()),
    "secp521r1": ("P-521", hashes.SHA512()),
}
_Key = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, kw_only=True)
class PinnedKey:
    """The key. digest: of its SubjectPublicKeyInfo, which names the key in messages."""

    digest: str
    kind: str
    library: _Key = field(repr=False, compare=False)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise `Refused` unless `signature` over `message` is by this key."""
        try:
            if isinstance(self.library, ec.EllipticCurvePublicKey):
                _, over = _CURVES[self.library.curve.name]
                self.library.verify(signature, message, ec.ECDSA(over))
            elif isinstance(self.library, rsa.RSAPublicKey):
                self.library.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            else:
                self.library.verify(signature, message)
        except (InvalidSignature, ValueError):
            raise Refused("signature does not verify", code="bad-signature") from None


def load(data: bytes) -> PinnedKey:
    """From PEM (`PUBLIC KEY`). Raises `Malformed`."""
    (der,) = pem.decode(data, b"PUBLIC KEY", what="public key", max_blocks=1, max_bytes=MAX_PEM)
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed(
            "public key: expected a SubjectPublicKeyInfo in PEM (BEGIN PUBLIC KEY), got other bytes in it",
            code="bad-key",
        ) from None
    kind = ""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        kind = f"ECDSA {_CURVES[key.curve.name][0]}"
    elif isinstance(key, ed25519.Ed25519PublicKey):
        kind = "Ed25519"
    elif isinstance(key, rsa.RSAPublicKey) and _MIN_RSA <= key.key_size <= _MAX_RSA:
        kind = f"RSA {key.key_size}"
    if not kind or not isinstance(key, _Key):
        raise Malformed(
            f"public key: expected ECDSA P-256, P-384 or P-521, Ed25519, or RSA of {_MIN_RSA} to {_MAX_RSA} bits",
            code="bad-key",
        )
    return PinnedKey(digest=digest.sha256(der), kind=kind, library=key)
