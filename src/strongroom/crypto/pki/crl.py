"""Certificate revocation lists (RFC 5280, section 5), strictly: what an issuer takes back.

Parsed here: complete lists in their one DER form, each with what section 5.2 demands of an authority, its number and
the identifier of the authority's key, and with the time of the next. Refused: delta and indirect lists, and critical extensions of any kind, which could mean that a list says less than it
seems to. Whether a list is still in date is for the caller, who has the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import utils
from cryptography import x509 as library_x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from strongroom.crypto import der, digest
from strongroom.crypto.pki import x509
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.crypto.pki.x509 import Certificate

MAX_BYTES = 1024 * 1024

_NUMBER_END = 1 << 160  # RFC 5280, section 5.2.3: at most 20 bytes
_SIGNED_HASHES = ("sha256", "sha384", "sha512")
# What `cryptography` raises for bytes that are no list; its deprecation warning is raised where warnings are errors.
_LIBRARY_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    library_x509.InvalidVersion,
    library_x509.DuplicateExtension,
    utils.CryptographyDeprecationWarning,
)


@dataclass(frozen=True, kw_only=True)
class RevocationList:
    """A parsed list, whose signature nobody has verified yet. Times are UTC. digest: of the whole list. issuer: its name as text.

    authority: identifier of the issuer's key. issuer_name: in DER. library: the same list as `cryptography` parsed it.
    """

    digest: str
    issuer: str
    number: int
    this_update: datetime
    next_update: datetime
    authority: bytes = field(repr=False, compare=False)
    issuer_name: bytes = field(repr=False, compare=False)
    library: library_x509.CertificateRevocationList = field(repr=False, compare=False)

    def revokes(self, certificate: Certificate) -> bool:
        """Whether `certificate`, which the list's issuer issued, is on the list."""
        return self.library.get_revoked_certificate_by_serial_number(certificate.serial) is not None


def parse(data: bytes) -> RevocationList:
    """Parse one list in DER without trailing bytes. Raises `Malformed`."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"revocation list: {len(data)} bytes, at most {MAX_BYTES} allowed", code="too-large")
    try:
        parsed = library_x509.load_der_x509_crl(data)
        if parsed.public_bytes(serialization.Encoding.DER) != data:
            raise Malformed("revocation list: not in the one DER form")
        # Before a BIT STRING's bytes stands the number of bits that the last lacks.
        if data[-len(parsed.signature) - 1] != 0:
            raise Malformed("revocation list: its signature is not whole bytes")
        number, authority = -1, b""  # both are what no list may have, until an extension says better
        for extension in parsed.extensions:
            if extension.critical:
                raise Malformed(
                    f"revocation list: critical extension {extension.oid.dotted_string} is not understood"
                )
            if isinstance(extension.value, library_x509.CRLNumber):
                number = extension.value.crl_number
            if isinstance(extension.value, library_x509.AuthorityKeyIdentifier):
                authority = extension.value.key_identifier or b""
        ends = parsed.next_update_utc
        lacking = [
            name
            for name, there in (
                ("cRLNumber", 0 <= number < _NUMBER_END),
                ("authorityKeyIdentifier", authority),
                ("nextUpdate", ends),
            )
            if not there
        ]
        if lacking or ends is None:
            raise Malformed(f"revocation list: lacks {' and '.join(lacking)}")
        # Each element is (tag, contents, whole). CertificateList: TBSCertList, algorithm, signature.
        ((_, element, _),) = der.elements(data)
        (_, body, _), (_, _, algorithm), _ = der.elements(element)
        # TBSCertList: version (which lists with a number have), algorithm, issuer.
        _, (_, _, inner), (_, _, issuer_name), *_ = der.elements(body)
        if inner != algorithm:
            raise Malformed("revocation list: signed with another algorithm than it says")
        return RevocationList(
            digest=digest.sha256(data),
            issuer=x509.name_text(issuer_name, lambda: parsed.issuer),
            issuer_name=issuer_name,
            number=number,
            authority=authority,
            this_update=parsed.last_update_utc,
            next_update=ends,
            library=parsed,
        )
    except (*_LIBRARY_ERRORS, IndexError):
        raise Malformed("revocation list: expected a CRL in DER, got other bytes") from None


def check_issued(revocations: RevocationList, issuer: Certificate) -> None:
    """Raise `Refused` unless `issuer` issued and signed the list, and may sign lists."""
    parsed = revocations.library
    if revocations.issuer_name != issuer.raw.subject:
        raise Refused(
            f"revocation list of {revocations.issuer}: not issued by {issuer.subject}", code="bad-list"
        )
    if revocations.authority != _identifier(issuer):
        raise Refused(
            f"revocation list of {revocations.issuer}: its authorityKeyIdentifier names another key than {issuer.subject}'s",
            code="bad-list",
        )
    if not any(
        isinstance(extension.value, library_x509.KeyUsage) and extension.value.crl_sign
        for extension in issuer.extensions.values()
    ):
        raise Refused(f"{issuer.subject}: its key may not sign revocation lists", code="bad-list")
    signed_hash = parsed.signature_hash_algorithm
    if signed_hash is None or signed_hash.name not in _SIGNED_HASHES:
        raise Refused(
            f"revocation list of {revocations.issuer}: expected a signature with SHA-256, SHA-384 or SHA-512, got another",
            code="bad-list",
        )
    try:
        # The same as the library's own check, without encoding the list again.
        issuer.key.verify_signed(parsed, parsed.tbs_certlist_bytes)
    except (InvalidSignature, *_LIBRARY_ERRORS):
        raise Refused(
            f"revocation list of {revocations.issuer}: signature does not verify", code="bad-list"
        ) from None


def _identifier(issuer: Certificate) -> bytes:
    """What the issuer's certificate calls its key; where it has no name, the one that RFC 5280 (4.2.1.2) makes."""
    for extension in issuer.extensions.values():
        if isinstance(extension.value, library_x509.SubjectKeyIdentifier):
            return extension.value.digest
    return library_x509.SubjectKeyIdentifier.from_public_key(issuer.library.public_key()).digest
