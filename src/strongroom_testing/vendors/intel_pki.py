"""Intel's PKI for SGX and TDX as `fake_intel` plays it: keys, certificates by Intel's profile, the SGX extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from strongroom.crypto import der
from strongroom.encoding import pem

if TYPE_CHECKING:
    from datetime import datetime

FMSPC = bytes.fromhex("00906ed50000")
ROOT, PLATFORM_CA, PROCESSOR_CA = (
    "Intel SGX Root CA",
    "Intel SGX PCK Platform CA",
    "Intel SGX PCK Processor CA",
)
PCK, TCB_SIGNING = "Intel SGX PCK Certificate", "Intel SGX TCB Signing"
_SGX = "1.2.840.113741.1.13.1"


class Entity:
    """A key and its certificate."""

    def __init__(
        self, name: str, issuer: Entity | None, begins: datetime, ends: datetime, **made: Any
    ) -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.serial = x509.random_serial_number()
        above = issuer or self
        self.certificate = _certificate(self, above, begins, ends, **made)
        above_it = issuer.chain if issuer else b""
        self.chain: bytes = pem.encode(self.certificate, b"CERTIFICATE") + above_it


def name(common: str) -> x509.Name:
    """A name as Intel's certificates carry it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _certificate(
    one: Entity,
    issuer: Entity,
    begins: datetime,
    ends: datetime,
    *,
    ca: bool = False,
    path_length: int | None = None,
    sgx: bytes | None = None,
) -> bytes:
    public = one.key.public_key()
    point = x509.DistributionPoint(
        [x509.UniformResourceIdentifier("https://fake.example/root.crl")], None, None, None
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(one.name))
        .issuer_name(name(issuer.name))
        .public_key(public)
        .serial_number(one.serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
        .add_extension(x509.CRLDistributionPoints([point]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                content_commitment=not ca,
                key_cert_sign=ca,
                crl_sign=ca,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if sgx is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX), sgx)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def sgx_extension(*, components: bytes, pce_svn: int, ppid: bytes, fmspc: bytes = FMSPC) -> bytes:
    """The value of a PCK certificate's SGX extensions."""
    prefix = bytes.fromhex("2a864886f84d010d01")

    def entry(numbers: bytes, value: bytes) -> bytes:
        return der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, prefix, numbers), value)

    def integer(value: int) -> bytes:
        return der.wrap(der.INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))

    def octets(value: bytes) -> bytes:
        return der.wrap(der.OCTET_STRING, value)

    tcb = [entry(bytes([2, index]), integer(svn)) for index, svn in enumerate(components, start=1)]
    tcb += [entry(b"\x02\x11", integer(pce_svn)), entry(b"\x02\x12", octets(components))]
    configuration = [entry(bytes([7, index]), der.wrap(0x01, b"\xff")) for index in (1, 2, 3)]
    return der.wrap(
        der.SEQUENCE,
        entry(b"\x01", octets(ppid)),
        entry(b"\x02", der.wrap(der.SEQUENCE, *tcb)),
        entry(b"\x03", octets(bytes(2))),
        entry(b"\x04", octets(fmspc)),
        entry(b"\x05", der.wrap(0x0A, b"\x01")),
        entry(b"\x06", octets(b"\x33" * 16)),
        entry(b"\x07", der.wrap(der.SEQUENCE, *configuration)),
    )
