"""ECDSA P-384 with SHA-384, by which enclave images are signed. Deterministic (RFC 6979): same image, same signature."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from strongroom.crypto import public_key
from strongroom.crypto.pki import x509
from strongroom.encoding import pem
from strongroom.errors import Malformed

CURVE = "secp384r1"
_COORDINATE = 48
_MAX_PEM = 16 * 1024
_MAKE = "make one with `openssl ecparam -name secp384r1 -genkey -noout -out key.pem`"


@dataclass(frozen=True, kw_only=True)
class ImageSigner:
    """A private key (PKCS#8 DER, never shown by `repr`) and the certificate of its public one (DER)."""

    key: bytes = field(repr=False)
    certificate: bytes

    def sign(self, message: bytes) -> bytes:
        """The signature: r ‖ s, 96 bytes."""
        algorithm = ec.ECDSA(hashes.SHA384(), deterministic_signing=True)
        r, s = decode_dss_signature(_key(self.key).sign(message, algorithm))
        return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")


def load(key: bytes, certificate: bytes) -> ImageSigner:
    """From PEM: a private key without a passphrase, and its certificate. Raises `Malformed`."""
    what = "image signing certificate"
    (der,) = pem.decode(certificate, b"CERTIFICATE", what=what, max_blocks=1, max_bytes=_MAX_PEM)
    try:
        loaded = serialization.load_pem_private_key(key, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise Malformed(
            "image signing key: expected a private key in PEM without a passphrase", hint=_MAKE
        ) from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.curve.name != CURVE:
        raise Malformed(
            "image signing key: expected an ECDSA key of P-384, got another kind",
            code="wrong-key",
            hint=_MAKE,
        )
    if public_key.PublicKey(loaded.public_key()).spki != x509.parse(der).key.spki:
        raise Malformed(
            "image signing key: the certificate is of another key",
            code="mismatch",
            hint="give the key and the certificate that were made for each other",
        )
    form = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ImageSigner(key=loaded.private_bytes(*form), certificate=der)


def _key(der: bytes) -> ec.EllipticCurvePrivateKey:
    loaded = serialization.load_der_private_key(der, password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise Malformed(
            "image signing key: expected an ECDSA key of P-384, got another kind",
            code="wrong-key",
            hint=_MAKE,
        )
    return loaded
