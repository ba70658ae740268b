"""Key and certificates in one PKCS#12 file (RFC 7292), for programs that read no PEM. Encrypted by AES-256, as today's readers know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.crypto.pki.csr import RoomTlsKey

NAME = b"room"


def encode(key: RoomTlsKey, certificates: Sequence[bytes], *, password: bytes) -> bytes:
    """The file. certificates: DER, the key's own first."""
    own, *above = (x509.load_der_x509_certificate(der) for der in certificates)
    return pkcs12.serialize_key_and_certificates(NAME, key.key, own, above, BestAvailableEncryption(password))
