"""OCSP answers (RFC 6960), strictly: that an issuer has not taken a certificate back, in its own signed word.

Parsed here: one answer about one certificate, in its one DER form, with the time of the next. Signed by the issuer
of the certificate, or by a responder that this very issuer certified for it (id-kp-OCSPSigning). Refused: answers
about several certificates, critical extensions, an answer without an end, "unknown", and every kind of revocation,
a hold too. A nonce is not asked for: an answer's times say that it is fresh.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import utils
from cryptography import x509 as library_x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.x509 import ocsp

from strongroom.crypto.pki import x509
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.crypto.pki.x509 import Certificate

MAX_BYTES = 16 * 1024
SIGNING = "1.3.6.1.5.5.7.3.9"

_GOOD = "good"
_MAX_CERTIFICATES = 4
_HASHES = frozenset({"sha256", "sha384", "sha512"})
# Of the certificate's identity alone, where nothing hangs on the hash: the answer is signed under another.
_ID_HASHES = frozenset({"sha1", "sha256", "sha384", "sha512"})
_LIBRARY_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    library_x509.InvalidVersion,
    library_x509.DuplicateExtension,
    utils.CryptographyDeprecationWarning,
)


@dataclass(frozen=True, kw_only=True)
class OcspResponse:
    """A parsed answer, not yet believed. Times are UTC.

    id_hash: what the certificate's identity (`issuer_name_hash`, `issuer_key_hash`, `serial`) is hashed with. `hash` is
    what `signature` over `signed` was made with; `responders` are the certificates (DER) that came along.
    """

    id_hash: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int
    status: str
    this_update: datetime
    next_update: datetime
    signed: bytes
    signature: bytes
    hash: hashes.HashAlgorithm
    responders: tuple[bytes, ...]


def parse(der: bytes) -> OcspResponse:
    """Parse one answer in DER without trailing bytes. Raises `Malformed`."""
    if len(der) > MAX_BYTES:
        raise Malformed(f"OCSP answer: {len(der)} bytes, at most {MAX_BYTES} allowed", code="too-large")
    try:
        parsed = ocsp.load_der_ocsp_response(der)
        if parsed.public_bytes(serialization.Encoding.DER) != der:
            raise Malformed("OCSP answer: not in the one DER form")
        if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Malformed(f"OCSP answer: the responder says {parsed.response_status.name.lower()}")
        after = der.index(parsed.tbs_response_bytes) + len(parsed.tbs_response_bytes)
        # Nothing signs how many bits of the signature are said to be unused.
        if der[der.index(parsed.signature, after) - 1] != 0:
            raise Malformed("OCSP answer: its signature is not whole bytes")
        about, brought = len(list(parsed.responses)), len(parsed.certificates)
        if about != 1 or brought > _MAX_CERTIFICATES:
            raise Malformed(
                f"OCSP answer: expected one about 1 certificate, with at most {_MAX_CERTIFICATES} of responders, "
                f"got one about {about}, with {brought}"
            )
        for extension in (*parsed.extensions, *parsed.single_extensions):
            if extension.critical:
                raise Malformed(
                    f"OCSP answer: critical extension {extension.oid.dotted_string} is not understood"
                )
        ends, signed_hash = parsed.next_update_utc, parsed.signature_hash_algorithm
        if ends is None:
            raise Malformed("OCSP answer: lacks nextUpdate")
        if signed_hash is None or signed_hash.name not in _HASHES:
            raise Malformed("OCSP answer: expected a signature with SHA-256, SHA-384 or SHA-512, got another")
        return OcspResponse(
            id_hash=parsed.hash_algorithm.name,
            issuer_name_hash=parsed.issuer_name_hash,
            issuer_key_hash=parsed.issuer_key_hash,
            serial=parsed.serial_number,
            status=parsed.certificate_status.name.lower(),
            this_update=parsed.this_update_utc,
            next_update=ends,
            signed=parsed.tbs_response_bytes,
            signature=parsed.signature,
            hash=signed_hash,
            responders=tuple(
                responder.public_bytes(serialization.Encoding.DER) for responder in parsed.certificates
            ),
        )
    except _LIBRARY_ERRORS:
        raise Malformed("OCSP answer: expected one in DER, got other bytes") from None


def check_good(
    answer: OcspResponse,
    certificate: Certificate,
    issuers: tuple[Certificate, ...],
    *,
    roots: frozenset[str],
    now: datetime,
) -> None:
    """Raise `Refused` unless the answer says at `now` that `certificate` is good.

    issuers: the verified path above the certificate, its own issuer first. The code is one of `wrong-answer` (about
    another certificate), `bad-answer` (not signed by who may), `expired`, `not-yet-valid`, `revoked`.
    """
    _check_about(answer, certificate, issuers[0])
    _check_signed(answer, issuers, roots=roots, now=now)
    if not answer.this_update <= now < answer.next_update:
        raise Refused(
            f"OCSP answer: from {answer.this_update:%Y-%m-%dT%H:%M:%SZ} to before "
            f"{answer.next_update:%Y-%m-%dT%H:%M:%SZ}, asked at {now:%Y-%m-%dT%H:%M:%SZ}",
            code="expired" if now >= answer.next_update else "not-yet-valid",
        )
    if answer.status != _GOOD:
        raise Refused(f"OCSP answer: {certificate.subject} is {answer.status}", code="revoked")


def _check_about(answer: OcspResponse, certificate: Certificate, issuer: Certificate) -> None:
    if answer.id_hash not in _ID_HASHES:
        raise Refused(
            f"OCSP answer: names the certificate by {answer.id_hash}, expected {' or '.join(sorted(_ID_HASHES))}",
            code="wrong-answer",
        )
    wanted = (
        certificate.serial,
        hashlib.new(answer.id_hash, issuer.library.subject.public_bytes()).digest(),
        hashlib.new(answer.id_hash, _key_bits(issuer)).digest(),
    )
    if (answer.serial, answer.issuer_name_hash, answer.issuer_key_hash) != wanted:
        raise Refused(f"OCSP answer: not about {certificate.subject}", code="wrong-answer")


def _key_bits(issuer: Certificate) -> bytes:
    """The value of the bit string of the issuer's key: RFC 6960, 4.1.1."""
    key = issuer.key.library
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)


def _check_signed(
    answer: OcspResponse, issuers: tuple[Certificate, ...], *, roots: frozenset[str], now: datetime
) -> None:
    """By the issuer, or by the responder whose certificate came along, which the issuer issued for answers."""
    signer = issuers[0]
    if answer.responders:
        above = b"".join(issuer.der for issuer in issuers)
        try:
            signer = x509.verify_path(answer.responders[0], above, roots=roots, purpose=SIGNING, now=now).leaf
        except (Refused, Malformed) as cause:
            raise Refused(f"OCSP answer: its responder: {cause.message}", code="bad-answer") from None
    key = signer.key.library
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(answer.signature, answer.signed, ec.ECDSA(answer.hash))
        else:
            key.verify(answer.signature, answer.signed, padding.PKCS1v15(), answer.hash)
    except InvalidSignature:
        raise Refused("OCSP answer: signature does not verify", code="bad-answer") from None
