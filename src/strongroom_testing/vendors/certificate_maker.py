"""Certificates for the fakes: a chain of P-384 authorities and leaves, with any extension spoiled on purpose."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from datetime import datetime

Curve = ec.EllipticCurve


def new_key(curve: Curve | None = None) -> ec.EllipticCurvePrivateKey:
    """A fresh key, P-384 unless told otherwise."""
    return ec.generate_private_key(curve or ec.SECP384R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The SubjectPublicKeyInfo (DER) of its public half."""
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_digest(key: ec.EllipticCurvePrivateKey) -> str:
    """The text digest of its SubjectPublicKeyInfo, by which roots are named."""
    return "sha256:" + hashlib.sha256(spki(key)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One certificate to make. path_length: of an authority; None means no limit."""

    subject: str
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    begins: datetime
    ends: datetime
    ca: bool = False
    path_length: int | None = None
    extensions: tuple[x509.ExtensionType, ...] = field(default=())


def issue(request: Request, issuer: str, signer: ec.EllipticCurvePrivateKey) -> bytes:
    """The certificate (DER), signed with SHA-384 by `signer` in the name of `issuer`."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(request.subject))
        .issuer_name(_name(issuer))
        .public_key(request.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(request.begins)
        .not_valid_after(request.ends)
        .add_extension(x509.BasicConstraints(ca=request.ca, path_length=request.path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not request.ca,
                key_cert_sign=request.ca,
                crl_sign=request.ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    for one in request.extensions:
        builder = builder.add_extension(one, critical=False)
    return builder.sign(signer, hashes.SHA384()).public_bytes(serialization.Encoding.DER)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
