"""X.509: an owner's certificate authority, which signs the leaves of rooms (`leaf`), and certificate requests.

RFC 5280, RFC 2986 (PKCS#10). This file encodes and decodes; what a room may be called is decided in
`authority` and `broker`. Nothing of a request is copied into a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.crypto import der, tls
from strongroom.crypto.pki.leaf import Leaf, authority_key, signed, to_be_signed
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

# SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480, section 2), and an uncompressed point's bytes.
_P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_UNCOMPRESSED, _POINT_BYTES = b"\x04", 65


@dataclass(frozen=True, kw_only=True)
class CertificateRequest:
    """A certificate request. Nobody has looked at its signature (`read_request`).

    `spki` is its key (DER, as it was sent). `names` are all subject alternative names, as text with their kind in
    front unless they are DNS names, and `common_name` that of the subject ("" when there is none).
    """

    spki: bytes
    common_name: str
    names: tuple[str, ...]


def make_authority(key: tls.TlsKey, *, name: str, now: datetime, random: Callable[[int], bytes]) -> bytes:
    """A self-signed authority certificate (DER) that may sign leaves only (path length 0)."""
    private = tls.load(key)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    public = private.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(tls.serial(random))
        .not_valid_before(now)
        .not_valid_after(tls.NO_EXPIRY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER)


class Signer:
    """An authority's key and certificate, decoded once."""

    __slots__ = ("_issuer_key", "_key", "_name", "der")

    def __init__(self, key: tls.TlsKey, certificate_der: bytes) -> None:
        self.der = certificate_der
        self._key = tls.load(key)
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

    def issue(self, leaf: Leaf, *, random: Callable[[int], bytes]) -> bytes:
        """A signed leaf certificate (DER). Raises `Malformed` when the key or a name will not do."""
        tbs = to_be_signed(
            leaf,
            spki=_room_key(leaf.spki),
            serial=tls.serial(random),
            issuer=self._name,
            issuer_key=self._issuer_key,
        )
        return signed(tbs, self._key.sign(tbs, ec.ECDSA(hashes.SHA256())))


def _room_key(spki: bytes) -> bytes:
    """The room's TLS key in the one DER form, whatever spelling was sent. Raises `Malformed` when it will not do."""
    try:
        point = spki[-_POINT_BYTES:]
        if spki == _P256_SPKI + point and point.startswith(_UNCOMPRESSED):
            # What rooms send. To read it as if it could be any kind of key takes as long as to sign for it.
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
            return spki
        public = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("certificate: the room's TLS key: expected a SubjectPublicKeyInfo in DER") from None
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise Malformed("certificate: the room's TLS key: expected an elliptic-curve key")
    return _spki(public)


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


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return str(name.value)
    return f"{type(name).__name__}:{str(name.value)[:200]}"


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


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
