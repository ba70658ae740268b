"""Public keys of certificates and evidence: ECDSA and RSA, and what they signed.

A signature that does not verify raises; nothing returns a truth that a caller could drop. r and s are range-checked
before the library sees them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from cryptography import utils, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.crypto import digest
from strongroom.errors import Malformed, Refused

MAX_SPKI = 16 * 1024

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)
# By curve: its order, the hash that goes with it, bytes of a coordinate, and the library's objects.
_ECDSA = {
    "secp256r1": (P256_ORDER, 32, ec.SECP256R1(), ec.ECDSA(hashes.SHA256())),
    "secp384r1": (P384_ORDER, 48, ec.SECP384R1(), ec.ECDSA(hashes.SHA384())),
}
# By hash, the library's objects for signatures whose hash is not the curve's or is given apart from the key.
_RSA_OVER = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
_ECDSA_OVER = {name: ec.ECDSA(over) for name, over in _RSA_OVER.items()}
_PKCS1 = padding.PKCS1v15()
_PSS = {
    name: padding.PSS(mgf=padding.MGF1(over), salt_length=padding.PSS.AUTO)
    for name, over in _RSA_OVER.items()
}
# What the library raises for bytes that are no key; its warnings are errors where tests run.
_LIBRARY_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, utils.CryptographyDeprecationWarning)


@dataclass(frozen=True)
class PublicKey:
    """The public key of a certificate: ECDSA on P-256, P-384 or P-521, or RSA of 2048 to 8192 bits."""

    library: ec.EllipticCurvePublicKey | rsa.RSAPublicKey = field(repr=False)

    # What is asked at every signature is asked of the library once.
    @functools.cached_property
    def kind(self) -> str:
        """`secp256r1`, `secp384r1`, `secp521r1` or `rsa`."""
        return self.library.curve.name if isinstance(self.library, ec.EllipticCurvePublicKey) else "rsa"

    @functools.cached_property
    def _curve(self) -> tuple[ec.EllipticCurvePublicKey, int, int, ec.ECDSA] | None:
        """The key with its curve's order, bytes of a coordinate and own algorithm, where it is of P-256 or P-384."""
        suite = _ECDSA.get(self.kind)
        if suite is None or not isinstance(self.library, ec.EllipticCurvePublicKey):
            return None
        order, size, _, algorithm = suite
        return self.library, order, size, algorithm

    @functools.cached_property
    def _modulus(self) -> tuple[rsa.RSAPublicKey, int] | None:
        """The key with the bytes of its modulus, where it is of RSA."""
        if not isinstance(self.library, rsa.RSAPublicKey):
            return None
        return self.library, (self.library.key_size + 7) // 8

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return self.library.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verify_ecdsa(self, signature: bytes, message: bytes) -> None:
        """Raise `Refused` unless `signature` is r ‖ s, big-endian, each as long as a coordinate, over `message`.

        The hash is the curve's: SHA-256 for P-256, SHA-384 for P-384. Other keys are refused.
        """
        if self._curve is None:
            raise Refused(f"the key is {self.kind}, the signature ECDSA P-256 or P-384", code="wrong-key")
        key, order, size, algorithm = self._curve
        if len(signature) != 2 * size:
            raise Refused(f"ECDSA signature of {len(signature)} bytes, not {2 * size}", code="bad-signature")
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        _check_ecdsa(key, order, r, s, message, algorithm)

    def verify_rs(self, *, r: int, s: int, message: bytes, hash: str) -> None:
        """Raise `Refused` unless (r, s) is an ECDSA signature over `message` by a P-256 or P-384 key.

        hash: `sha256` or `sha384`, as the signature's scheme says; a TPM's key may use either with its curve.
        """
        if self._curve is None:
            raise Refused(f"the key is {self.kind}, the signature ECDSA P-256 or P-384", code="wrong-key")
        key, order, _, _ = self._curve
        _check_ecdsa(key, order, r, s, message, _ECDSA_OVER[hash])

    def verify_rsa(
        self, signature: bytes, message: bytes, *, hash: str = "sha256", pss: bool = False
    ) -> None:
        """Raise `Refused` unless `signature` is RSASSA-PKCS1-v1_5 (or, with `pss`, RSASSA-PSS) over `message`.

        hash: `sha256` or `sha384`. The salt of a PSS signature may have any length: TPMs differ in it.
        """
        if self._modulus is None:
            raise Refused(f"the key is {self.kind}, the signature RSA", code="wrong-key")
        key, size = self._modulus
        if len(signature) != size:
            raise Refused(
                f"RSA signature of {len(signature)} bytes, not {size} as the modulus", code="bad-signature"
            )
        try:
            key.verify(signature, message, _PSS[hash] if pss else _PKCS1, _RSA_OVER[hash])
        except InvalidSignature:
            raise Refused("signature does not verify", code="bad-signature") from None

    def verify_signed(
        self, certificate: x509.Certificate | x509.CertificateRevocationList, signed: bytes
    ) -> None:
        """Raise `InvalidSignature` or a library's error unless the key signed `signed`, the signed bytes of `one`.

        The scheme and the hash are those that `one` says, and the scheme must be one of this kind of key.
        """
        key, scheme, over = (
            self.library,
            certificate.signature_algorithm_parameters,
            certificate.signature_hash_algorithm,
        )
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(scheme, ec.ECDSA):
            key.verify(certificate.signature, signed, scheme)
        elif (
            isinstance(key, rsa.RSAPublicKey)
            and isinstance(scheme, padding.PSS | padding.PKCS1v15)
            and over is not None
        ):
            key.verify(certificate.signature, signed, scheme, over)
        else:
            raise InvalidSignature


def _check_ecdsa(
    key: ec.EllipticCurvePublicKey, order: int, r: int, s: int, message: bytes, algorithm: ec.ECDSA
) -> None:
    if not (0 < r < order and 0 < s < order):
        raise Refused("ECDSA r or s is not between 1 and the order of the curve", code="bad-signature")
    try:
        key.verify(encode_dss_signature(r, s), message, algorithm)
    except InvalidSignature:
        raise Refused("signature does not verify", code="bad-signature") from None


def key_of_point(kind: str, x: bytes, y: bytes) -> PublicKey:
    """The key at an affine point of `secp256r1` or `secp384r1`. Raises `Malformed`: wrong length, not on the curve."""
    suite = _ECDSA.get(kind)
    if suite is None or len(x) != suite[1] or len(y) != suite[1]:
        raise Malformed(f"public key: not a point of {kind}", code="unknown-key")
    try:
        return PublicKey(ec.EllipticCurvePublicKey.from_encoded_point(suite[2], b"\x04" + x + y))
    except _LIBRARY_ERRORS:
        raise Malformed(f"public key: not a point of {kind}", code="unknown-key") from None


def key_of_modulus(modulus: int, exponent: int) -> PublicKey:
    """The RSA key of these numbers. Raises `Malformed`."""
    try:
        return PublicKey(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    except _LIBRARY_ERRORS:
        raise Malformed("public key: modulus and exponent make no RSA key", code="unknown-key") from None


def key_digest(key: PublicKey) -> str:
    """The text digest of a key's SubjectPublicKeyInfo: by it keys and machines are named."""
    return digest.sha256(key.spki)


def key_of_spki(der: bytes) -> PublicKey:
    """The key of a SubjectPublicKeyInfo in its one DER form. Raises `Malformed`."""
    if len(der) > MAX_SPKI:
        raise Malformed(f"public key: {len(der)} bytes, at most {MAX_SPKI} allowed", code="too-large")
    try:
        key = serialization.load_der_public_key(der)
    except _LIBRARY_ERRORS:
        raise Malformed("public key: expected a SubjectPublicKeyInfo in DER, got other bytes") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise Malformed("public key: neither ECDSA nor RSA", code="unknown-key")
    public = PublicKey(key)
    if public.spki != der:
        raise Malformed("public key: not in the one DER form")
    return public
