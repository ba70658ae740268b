"""X.509: the leaves of rooms (`leaf`) as an authority signs them, and certificate requests.

RFC 5280, RFC 2986 (PKCS#10). This file encodes and decodes; what a room may be called is decided in
`authority` and `broker`. Nothing of a request is copied into a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from strongroom.crypto import der
from strongroom.crypto.pki.leaf import Leaf, authority_key, signed, to_be_signed
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.crypto.pki.key_signer import KeySigner

# SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480, section 2), and an uncompressed point's bytes.
_P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_UNCOMPRESSED, _POINT_BYTES = b"\x04", 65
_P256, _RSA, _ED25519 = "ecdsa-p256", "rsa-3072", "ed25519"  # as contracts call them
_CURVES = {"secp256r1": _P256, "secp384r1": "ecdsa-p384"}
_RSA_BITS, _RSA_EXPONENT = 3072, 65_537


@dataclass(frozen=True, kw_only=True)
class CertificateRequest:
    """A certificate request. Nobody has looked at its signature (`read_request`).

    `spki` is its key (DER, as it was sent). `names` are all subject alternative names, as text with their kind in
    front unless they are DNS names, and `common_name` that of the subject ("" when there is none).
    """

    spki: bytes
    common_name: str
    names: tuple[str, ...]


class Signer:
    """An authority's key and certificate, decoded once."""

    __slots__ = ("_issuer_key", "_name", "der", "key")

    def __init__(self, key: KeySigner, certificate_der: bytes) -> None:
        self.der = certificate_der
        self.key = key
        certificate = _load(certificate_der)
        if _spki(certificate.public_key()) != key.spki:
            raise Malformed(
                "authority: its certificate is not of its key",
                code="mismatch",
                hint="take both from one backup of the broker",
            )
        self._name = certificate.subject.public_bytes()
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        self._issuer_key = authority_key(identifier)

    @property
    def not_after(self) -> datetime:
        """When the authority's own certificate ends."""
        return _load(self.der).not_valid_after_utc

    def issue(self, leaf: Leaf, *, serial: int) -> bytes:
        """A signed leaf certificate (DER). Raises `Malformed` when the key or a name will not do."""
        tbs = to_be_signed(
            leaf, spki=_room_key(leaf.spki), serial=serial, issuer=self._name, issuer_key=self._issuer_key
        )
        return signed(tbs, self.key.sign(tbs))


def _room_key(spki: bytes) -> bytes:
    """The room's TLS key in the one DER form, whatever spelling was sent. Raises `Malformed` when it will not do."""
    if _is_p256(spki):
        return spki
    public = _public(spki)
    if public is None:
        raise Malformed("certificate: the room's TLS key: expected a SubjectPublicKeyInfo in DER")
    if not _kind(public):
        raise Malformed(
            "certificate: the room's TLS key: expected a key on P-256 or P-384, Ed25519, or RSA of 3072 bits"
        )
    return _spki(public)


def key_kind(spki: bytes) -> str:
    """The kind of a TLS key, as contracts call it; empty for one that no certificate is issued for."""
    return _P256 if _is_p256(spki) else _kind(_public(spki))


def _is_p256(spki: bytes) -> bool:
    """Whether `spki` is what most rooms send: to read it as if it could be any kind of key takes as long as to sign for it."""
    point = spki[-_POINT_BYTES:]
    if spki != _P256_SPKI + point or not point.startswith(_UNCOMPRESSED):
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        return False
    return True


def _public(spki: bytes) -> object:
    try:
        return serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _kind(public: object) -> str:
    if isinstance(public, ec.EllipticCurvePublicKey):
        return _CURVES.get(public.curve.name, "")
    if isinstance(public, rsa.RSAPublicKey):
        return _RSA if public.key_size == _RSA_BITS and public.public_numbers().e == _RSA_EXPONENT else ""
    return _ED25519 if isinstance(public, ed25519.Ed25519PublicKey) else ""


def read_request(data: bytes) -> CertificateRequest:
    """Parse a PKCS#10 request. Raises `Malformed`.

    Its own signature is not verified: whose key it is says the evidence, which is bound to it
    (docs/decisions/0039-a-key-is-the-evidences-to-prove.md).
    """
    try:
        request = x509.load_der_x509_csr(data)
        names: tuple[str, ...] = ()
        for extension in request.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                names = tuple(_text(name) for name in extension.value)
        common = [
            str(attribute.value)
            for attribute in request.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        ]
        ((_, info, _),) = der.elements(request.tbs_certrequest_bytes)
        _version, _subject, (_, _, spki), *_ = der.elements(info)
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        raise Malformed("certificate request: expected PKCS#10 in DER") from None
    if len(common) > 1:
        raise Malformed(f"certificate request: {len(common)} common names, at most one allowed")
    return CertificateRequest(spki=spki, common_name="".join(common), names=names)


def proves_possession(data: bytes) -> bool:
    """Whether a PKCS#10 request is signed by the key that it is about."""
    try:
        return x509.load_der_x509_csr(data).is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return False


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return str(name.value)
    return f"{type(name).__name__}:{str(name.value)[:200]}"


def _load(data: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(data)
    except ValueError:
        raise Malformed("certificate: expected X.509 in DER") from None


def _spki(key: object) -> bytes:
    encode = getattr(key, "public_bytes", None)
    if encode is None:
        raise Malformed("certificate: unknown kind of public key")
    return bytes(encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
