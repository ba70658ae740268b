"""The room's TLS key, of the kind that its contract says, and its certificate request (PKCS#10, RFC 2986).

The subject is empty: a room is known by the DNS names of its subjectAltName, which the contract fixes. What other keys than the usual
one take of the library is loaded only for them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.crypto import der

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

P256, P384, ED25519, RSA_3072 = "ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072"  # as contracts call them
_OID_EXTENSION_REQUEST = bytes.fromhex("2a864886f70d01090e")  # 1.2.840.113549.1.9.14
_OID_SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17
_OID_EC_PUBLIC_KEY = bytes.fromhex("2a8648ce3d0201")  # 1.2.840.10045.2.1
_OID_P256 = bytes.fromhex("2a8648ce3d030107")  # 1.2.840.10045.3.1.7
_DNS_NAME = der.CONTEXT | 2
_NULL = der.wrap(0x05)
# AlgorithmIdentifier of the signature, by the kind of the key (RFC 5758, RFC 8410, RFC 4055).
_ALGORITHMS = {
    P256: der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, bytes.fromhex("2a8648ce3d040302"))),
    P384: der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, bytes.fromhex("2a8648ce3d040303"))),
    ED25519: der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, bytes.fromhex("2b6570"))),
    RSA_3072: der.wrap(
        der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, bytes.fromhex("2a864886f70d01010b")), _NULL
    ),
}


@dataclass(frozen=True)
class RoomTlsKey:
    """A private key, never shown by `repr`. kind: as contracts call it."""

    key: PrivateKey = field(repr=False)
    kind: str = P256

    @property
    def public(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        if self.kind != P256 or not isinstance(self.key, ec.EllipticCurvePrivateKey):
            from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - slow, and seldom needed

            return self.key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        numbers = self.key.public_key().public_numbers()
        point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        algorithm = der.wrap(
            der.SEQUENCE,
            der.wrap(der.OBJECT_IDENTIFIER, _OID_EC_PUBLIC_KEY),
            der.wrap(der.OBJECT_IDENTIFIER, _OID_P256),
        )
        return der.wrap(der.SEQUENCE, algorithm, der.wrap(der.BIT_STRING, b"\x00" + point))

    def pkcs8(self) -> bytes:
        """The private key as unencrypted PKCS#8 DER, for the process that hands it out to the program."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - slow, and seldom needed

        return self.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

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
        signature = der.wrap(der.BIT_STRING, b"\x00" + self._sign(info))
        return der.wrap(der.SEQUENCE, info, _ALGORITHMS[self.kind], signature)

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(data, ec.ECDSA(hashes.SHA384() if self.kind == P384 else hashes.SHA256()))
        from cryptography.hazmat.primitives.asymmetric import ed25519, padding  # noqa: PLC0415 - as above

        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def generate(kind: str = P256) -> RoomTlsKey:
    """A fresh key of that kind from the operating system's generator."""
    if kind in (P256, P384):
        return RoomTlsKey(ec.generate_private_key(ec.SECP256R1() if kind == P256 else ec.SECP384R1()), kind)
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415 - as above

    if kind == ED25519:
        return RoomTlsKey(ed25519.Ed25519PrivateKey.generate(), kind)
    return RoomTlsKey(rsa.generate_private_key(public_exponent=65_537, key_size=3072), RSA_3072)


def pem_certificate(certificate: bytes) -> bytes:
    """The PEM form (RFC 7468) of a DER certificate."""
    text = base64.b64encode(certificate)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"-----BEGIN CERTIFICATE-----\n" + b"\n".join(lines) + b"\n-----END CERTIFICATE-----\n"
