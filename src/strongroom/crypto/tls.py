"""ECDSA P-256 keys for TLS and certificates, and the self-signed certificate of a pinned server.

Clients of a broker know its key beforehand (the pin is the digest of the SubjectPublicKeyInfo), so
that nothing in the certificate itself is believed: it carries the key and a far end date.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.crypto import digest
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

NO_EXPIRY = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280, 4.1.2.5: no well-defined end


@dataclass(frozen=True)
class TlsKey:
    """A private P-256 key as PKCS#8 DER, never shown by `repr`."""

    der: bytes = field(repr=False)

    @property
    def spki(self) -> bytes:
        """The public key: SubjectPublicKeyInfo, DER."""
        return (
            load(self)
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    @property
    def pin(self) -> str:
        """The digest of the public key, by which clients know the server."""
        return digest.sha256(self.spki)

    def pem(self) -> bytes:
        """PKCS#8 PEM without encryption, for the TLS library's own loader."""
        return load(self).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def generate() -> TlsKey:
    """A fresh key from the operating system's generator."""
    return TlsKey(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def load(key: TlsKey) -> ec.EllipticCurvePrivateKey:
    """The key object, for the other files of `crypto`. Raises `Malformed`."""
    try:
        loaded = serialization.load_der_private_key(key.der, password=None)
    except (ValueError, TypeError):
        raise Malformed("TLS key: expected PKCS#8 in DER") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.curve.name != "secp256r1":
        raise Malformed("TLS key: expected a P-256 key")
    return loaded


def self_signed(
    key: TlsKey, *, name: str, now: datetime, random: Callable[[int], bytes], host: str = ""
) -> bytes:
    """A certificate (DER) for `key` by itself; `name` is for people who look. host: a name or address, for clients that know no pin."""
    private = load(key)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(serial(random))
        .not_valid_before(now)
        .not_valid_after(NO_EXPIRY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
    certificate = builder.sign(private, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.DER)


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem_certificate(der: bytes) -> bytes:
    """A certificate as PEM. Raises `Malformed`."""
    return certificate(der).public_bytes(serialization.Encoding.PEM)


def certificate(der: bytes) -> x509.Certificate:
    """A certificate from its DER, for the TLS library. Raises `Malformed`."""
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        raise Malformed("certificate: expected X.509 in DER") from None


def serial(random: Callable[[int], bytes]) -> int:
    """A positive 127-bit serial number (RFC 5280, 4.1.2.2: at most 20 octets, not zero)."""
    return (int.from_bytes(random(16), "big") >> 1) | 1
