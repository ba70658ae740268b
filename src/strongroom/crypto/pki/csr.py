"""The room's TLS key (ECDSA P-256) and its certificate request (PKCS#10, RFC 2986).

The subject is empty: a room is known by the DNS names of its subjectAltName, which the contract fixes.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.crypto import der

_OID_EXTENSION_REQUEST = bytes.fromhex("2a864886f70d01090e")  # 1.2.840.113549.1.9.14
_OID_SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17
_OID_EC_PUBLIC_KEY = bytes.fromhex("2a8648ce3d0201")  # 1.2.840.10045.2.1
_OID_P256 = bytes.fromhex("2a8648ce3d030107")  # 1.2.840.10045.3.1.7
_OID_ECDSA_SHA256 = bytes.fromhex("2a8648ce3d040302")  # 1.2.840.10045.4.3.2
_DNS_NAME = der.CONTEXT | 2


@dataclass(frozen=True)
class RoomTlsKey:
    """A private P-256 key, never shown by `repr`."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def public(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        numbers = self.key.public_key().public_numbers()
        point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        algorithm = der.wrap(
            der.SEQUENCE,
            der.wrap(der.OBJECT_IDENTIFIER, _OID_EC_PUBLIC_KEY),
            der.wrap(der.OBJECT_IDENTIFIER, _OID_P256),
        )
        return der.wrap(der.SEQUENCE, algorithm, der.wrap(der.BIT_STRING, b"\x00" + point))

    def pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM, for the program in the room."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - slow, and seldom needed

        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def request(self, names: tuple[str, ...]) -> bytes:
        """A certificate request (DER) for the DNS `names`, signed by this key."""
        alternatives = der.wrap(der.SEQUENCE, *(der.wrap(_DNS_NAME, name.encode("ascii")) for name in names))
        extension = der.wrap(
            der.SEQUENCE,
            der.wrap(der.OBJECT_IDENTIFIER, _OID_SUBJECT_ALT_NAME),
            der.wrap(der.OCTET_STRING, alternatives),
        )
        attribute = der.wrap(
            der.SEQUENCE,
            der.wrap(der.OBJECT_IDENTIFIER, _OID_EXTENSION_REQUEST),
            der.wrap(der.SET, der.wrap(der.SEQUENCE, extension)),
        )
        info = der.wrap(
            der.SEQUENCE,
            der.wrap(der.INTEGER, b"\x00"),
            der.wrap(der.SEQUENCE),
            self.public,
            der.wrap(der.CONTEXT | der.CONSTRUCTED, attribute),
        )
        algorithm = der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, _OID_ECDSA_SHA256))
        signature = self.key.sign(info, ec.ECDSA(hashes.SHA256()))
        return der.wrap(der.SEQUENCE, info, algorithm, der.wrap(der.BIT_STRING, b"\x00" + signature))


def generate() -> RoomTlsKey:
    """A fresh key from the operating system's generator."""
    return RoomTlsKey(ec.generate_private_key(ec.SECP256R1()))


def pem_certificate(certificate: bytes) -> bytes:
    """The PEM form (RFC 7468) of a DER certificate."""
    text = base64.b64encode(certificate)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"-----BEGIN CERTIFICATE-----\n" + b"\n".join(lines) + b"\n-----END CERTIFICATE-----\n"
