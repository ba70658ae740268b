"""The public key inside a certificate, by which TLS peers are pinned (RFC 7469, section 2.4).

Nothing else of the certificate is looked at: the pin is the identity.
"""

from __future__ import annotations

from strongroom.crypto import der, digest
from strongroom.encoding.reader import Reader

MAX_CERTIFICATE = 64 * 1024


def of_certificate(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo (DER) of a DER certificate (RFC 5280, section 4.1). Raises `Malformed`."""
    outer = Reader(certificate[: MAX_CERTIFICATE + 1], "certificate")
    body, _ = der.expect(outer, der.SEQUENCE)
    outer.done()
    signed, _ = der.expect(Reader(body, "certificate"), der.SEQUENCE)
    reader = Reader(signed, "certificate")
    tag, _, _ = der.read(reader)
    if tag == der.CONTEXT | der.CONSTRUCTED:  # version, absent in version 1
        der.expect(reader, der.INTEGER)
    for _ in ("signature", "issuer", "validity", "subject"):
        der.expect(reader, der.SEQUENCE)
    _, element = der.expect(reader, der.SEQUENCE)
    return element


def digest_of_certificate(certificate: bytes) -> str:
    """The text digest of a certificate's SubjectPublicKeyInfo: what contracts call a pin."""
    return digest.sha256(of_certificate(certificate))
