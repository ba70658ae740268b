"""OCSP (RFC 6960) from an issuer's side: reads a question about one certificate, and writes the issuer's own signed answer.

Reading other issuers' answers is of `ocsp`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.crypto.pki.key_signer import HeldKey

MAX_BYTES = 4096
MEDIA_TYPE = "application/ocsp-response"
# Of the certificate's identity alone: nothing hangs on the hash, and clients still send SHA-1.
_ID_HASHES = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}
_MAX_NONCE = 32  # RFC 8954
_UNAUTHORIZED = ocsp.OCSPResponseBuilder.build_unsuccessful(
    ocsp.OCSPResponseStatus.UNAUTHORIZED
).public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True, kw_only=True)
class OcspQuestion:
    """A question about the certificate with that serial number. nonce: to be given back; None where there is none."""

    id_hash: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int
    nonce: bytes | None


def read(data: bytes) -> OcspQuestion:
    """Parse a question in DER. Raises `Malformed`."""
    try:
        asked = ocsp.load_der_ocsp_request(data)
        nonce = None
        for extension in asked.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                nonce = extension.value.nonce
            elif extension.critical:
                raise Malformed(
                    f"OCSP request: critical extension {extension.oid.dotted_string} is not understood"
                )
        question = OcspQuestion(
            id_hash=asked.hash_algorithm.name,
            issuer_name_hash=asked.issuer_name_hash,
            issuer_key_hash=asked.issuer_key_hash,
            serial=asked.serial_number,
            nonce=nonce,
        )
    except (
        ValueError,
        TypeError,
        RuntimeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
    ):  # the third: several
        raise Malformed("OCSP request: expected one in DER, about one certificate") from None
    if question.id_hash not in _ID_HASHES:
        raise Malformed(
            f"OCSP request: expected a certificate named by {' or '.join(_ID_HASHES)}, got {question.id_hash[:20]}"
        )
    if nonce is not None and not 1 <= len(nonce) <= _MAX_NONCE:
        raise Malformed(f"OCSP request: expected a nonce of 1 to {_MAX_NONCE} bytes, got {len(nonce)}")
    return question


def unauthorized() -> bytes:
    """The answer about a certificate that is none of this authority's (RFC 6960, section 2.3); it has no signature."""
    return _UNAUTHORIZED


def is_about(question: OcspQuestion, issuer: bytes) -> bool:
    """Whether the question is about a certificate of `issuer` (DER)."""
    certificate = x509.load_der_x509_certificate(issuer)
    key = certificate.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    names = (
        hashlib.new(question.id_hash, part).digest() for part in (certificate.subject.public_bytes(), key)
    )
    return (question.issuer_name_hash, question.issuer_key_hash) == tuple(names)


def answer(
    question: OcspQuestion,
    key: HeldKey,
    issuer: bytes,
    *,
    revoked: datetime | None,
    now: datetime,
    until: datetime,
) -> bytes:
    """The answer (DER) of `issuer` (certificate, DER): good, or revoked since then."""
    good = revoked is None
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response_by_hash(
            question.issuer_name_hash,
            question.issuer_key_hash,
            question.serial,
            _ID_HASHES[question.id_hash](),
            ocsp.OCSPCertStatus.GOOD if good else ocsp.OCSPCertStatus.REVOKED,
            now,
            until,
            revoked,
            None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, x509.load_der_x509_certificate(issuer))
    )
    if question.nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(question.nonce), critical=False)
    return builder.sign(key.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
