"""Whatever signs for an authority: a P-256 key in this process, or one that stays in a token.

One narrow seam: the key's public part, and ECDSA signatures over SHA-256. X.509 structures are made by the library's builders,
signed there by a key of no meaning, and what was to be signed is then signed here: builders take no key that is elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.crypto import tls
from strongroom.crypto.pki.leaf import signed
from strongroom.encoding import framed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (SP 800-186, 3.2.1.3)
_EXTRA_BITS = 64  # FIPS 186-5, A.2.1
_OF_NOBODY = ec.derive_private_key(1, ec.SECP256R1())


class KeySigner(Protocol):
    """An authority's key."""

    @property
    def spki(self) -> bytes:
        """The public key: SubjectPublicKeyInfo, DER."""

    def sign(self, data: bytes) -> bytes:
        """ECDSA over the SHA-256 of `data` (DER). Raises `Unavailable` where the key is out of reach."""


@dataclass(frozen=True)
class HeldKey:
    """A key in this process; `repr` shows nothing of it. The same data get the same signature (RFC 6979)."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @cached_property
    def spki(self) -> bytes:
        """The public key: SubjectPublicKeyInfo, DER."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, data: bytes) -> bytes:
        """ECDSA over the SHA-256 of `data` (DER)."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def held(key: tls.TlsKey) -> HeldKey:
    """The key of a file. Raises `Malformed`."""
    return HeldKey(tls.load(key))


def derived(secret: bytes, label: str, *context: bytes) -> HeldKey:
    """The P-256 key of a 32-byte secret for `context`: the same wherever the secret is, and of no use for another context."""
    info = framed.join(label, *context)
    wide = HKDF(algorithm=hashes.SHA256(), length=32 + _EXTRA_BITS // 8, salt=None, info=info).derive(secret)
    scalar = int.from_bytes(wide, "big") % (_ORDER - 1) + 1
    return HeldKey(ec.derive_private_key(scalar, ec.SECP256R1()))


def ecdsa_der(signature: bytes) -> bytes:
    """A P-256 signature in DER (RFC 3279, 2.2.3). signature: both numbers, 32 bytes each, as tokens give them."""
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


def certificate(builder: x509.CertificateBuilder, key: KeySigner) -> bytes:
    """The certificate (DER) that `builder` describes, signed by `key`."""
    unsigned = builder.sign(_OF_NOBODY, hashes.SHA256())
    return _signed(unsigned.tbs_certificate_bytes, key.sign)


def revocation_list(builder: x509.CertificateRevocationListBuilder, key: KeySigner) -> bytes:
    """The list (DER) that `builder` describes, signed by `key`."""
    unsigned = builder.sign(_OF_NOBODY, hashes.SHA256())
    return _signed(unsigned.tbs_certlist_bytes, key.sign)


def _signed(tbs: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    return signed(tbs, sign(tbs))
