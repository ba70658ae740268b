"""A node's own certificate authority for the attestation keys of its software TPMs (RFC 5280).

The root says SIMULATED in its subject: what it certifies is a program's key, not that of a chip.
Attestation keys are marked for the purpose tcg-kp-AIKCertificate (TCG EK Credential Profile, 3.2.16).
Random bytes and the time are arguments.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.crypto import tls
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

UNIT = "SIMULATED"
AK_PURPOSE = "2.23.133.8.3"
_BACKDATED = timedelta(days=1)  # verifiers' clocks differ


def make_root(key: tls.TlsKey, *, name: str, now: datetime, random: Callable[[int], bytes]) -> bytes:
    """The self-signed root certificate (DER) of the node called `name`."""
    private = tls.load(key)
    subject = _name(f"Strongroom node {name}")
    return (
        _started(subject, subject, private.public_key(), now=now, random=random)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def certify_ak(
    key: tls.TlsKey,
    root: bytes,
    point: tuple[bytes, bytes],
    *,
    name: str,
    now: datetime,
    random: Callable[[int], bytes],
) -> bytes:
    """Certify the P-256 attestation key with the coordinates `point` (32 bytes each); DER.

    Raises `Malformed` when the point is not on the curve or `root` no certificate.
    """
    x, y = (int.from_bytes(coordinate, "big") for coordinate in point)
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        issuer = x509.load_der_x509_certificate(root)
    except ValueError:
        raise Malformed(
            "attestation key: its point is not on P-256, or the node's root is no certificate",
            hint="make the node's folder anew with `strongroom node init`",
        ) from None
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _started(_name(f"AK of {name}"), issuer.subject, public, now=now, random=random)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(AK_PURPOSE)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(tls.load(key), hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def spki(point: tuple[bytes, bytes]) -> bytes:
    """SubjectPublicKeyInfo (DER) of the P-256 key with these coordinates. Raises `Malformed`."""
    x, y = (int.from_bytes(coordinate, "big") for coordinate in point)
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise Malformed("attestation key: its point is not on P-256") from None
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _started(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    random: Callable[[int], bytes],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(tls.serial(random))
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(tls.NO_EXPIRY)
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, UNIT),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common[:64]),
        ]
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
