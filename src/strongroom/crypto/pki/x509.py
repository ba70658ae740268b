"""X.509 certificate paths, strictly (RFC 5280, section 6).

No system trust store, no fetching, no clock: the roots that count and the time are arguments.
A path is a leaf, then each issuer in order up to and including the root. Checked of every path:

  1 the last certificate is one of the roots: by the digest of its whole DER, or by the digest of its key
    (SubjectPublicKeyInfo), and then it is signed by that key itself
  2 each certificate is version 3 (the root may be older), of a known algorithm, with a known key
  3 each is issued and signed by the next, by name and by key; SHA-1 and MD5 count for nothing
  4 each issuer is a CA that may sign certificates, within its path length
  5 the leaf is no CA, may sign, and is marked for the purpose, where one is asked for
  6 no certificate has a critical extension that this file does not understand
  7 each certificate, the root too, is in its period of validity

1 to 6 depend on the bytes alone, so that their outcome is kept for a bounded number of paths;
7 is asked each time. Not checked: revocation, which needs lists that a caller has to bring.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cryptography import utils, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.crypto import der, digest
from strongroom.crypto.public_key import PublicKey
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

# Names in Google's certificates are longer than X.520 allows. The library reads them and warns; nobody could act on it.
warnings.filterwarnings("ignore", message="Attribute's length must be", category=UserWarning)

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

MAX_CERTIFICATE = 16 * 1024  # bytes of DER
MAX_PATH = 8  # certificates

_HASHES = ("sha256", "sha384", "sha512")
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
# What the library raises for bytes that are no certificate; its warnings are errors where tests run.
_LIBRARY_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    utils.CryptographyDeprecationWarning,
)


class Raw(NamedTuple):
    """Pieces of a certificate as they stand in it, in DER. signed: the TBSCertificate, in which inner_algorithm stands."""

    signed: bytes
    algorithm: bytes
    inner_algorithm: bytes
    issuer: bytes
    subject: bytes


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A parsed certificate, nothing of it verified. Times are UTC; names are RFC 4514 text.

    `hash` is what the issuer hashed with. `extensions` are by dotted OID. They and `library` are the library's objects,
    for this package alone.
    """

    der: bytes = field(repr=False)
    digest: str
    subject: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    key: PublicKey
    hash: str
    spki_digest: str
    raw: Raw = field(repr=False, compare=False)
    library: x509.Certificate = field(repr=False, compare=False)
    extensions: dict[str, x509.Extension[x509.ExtensionType]] = field(repr=False, compare=False)

    def extension(self, oid: str) -> bytes | None:
        """The value (DER) of a vendor's own extension, by its dotted OID; None where the certificate has none."""
        extension = self.extensions.get(oid)
        return (
            extension.value.value
            if extension and isinstance(extension.value, x509.UnrecognizedExtension)
            else None
        )


@dataclass(frozen=True, kw_only=True)
class Path:
    """A verified path, leaf first, root last. Made by `verify_path` alone."""

    certificates: tuple[Certificate, ...]

    @property
    def leaf(self) -> Certificate:
        """The certificate whose key is vouched for."""
        return self.certificates[0]

    @property
    def root(self) -> Certificate:
        """The trusted root that vouches."""
        return self.certificates[-1]

    @functools.cached_property
    def period(self) -> tuple[datetime, datetime]:
        """The first and the last moment at which every certificate of it is valid."""
        certificates = self.certificates
        return max(certificate.not_before for certificate in certificates), min(
            certificate.not_after for certificate in certificates
        )


def parse(der: bytes) -> Certificate:
    """Parse one DER certificate without trailing bytes. Raises `Malformed`."""
    if len(der) > MAX_CERTIFICATE:
        raise Malformed(f"certificate: {len(der)} bytes, at most {MAX_CERTIFICATE} allowed", code="too-large")
    try:
        parsed = x509.load_der_x509_certificate(der)
        if parsed.public_bytes(serialization.Encoding.DER) != der:
            raise Malformed("certificate: not in the one DER form")
        # The signature is the last field, and nothing signs how many of its bits are said to be unused.
        if der[-len(parsed.signature) - 1] != 0:
            raise Malformed("certificate: its signature is not whole bytes")
        key = parsed.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise Malformed("certificate: the key is neither ECDSA nor RSA", code="unknown-key")
        public = PublicKey(key)
        signed_hash = parsed.signature_hash_algorithm
        raw = _raw(der)
        return Certificate(
            der=der,
            digest=digest.sha256(der),
            subject=name_text(raw.subject, lambda: parsed.subject),
            issuer=name_text(raw.issuer, lambda: parsed.issuer),
            serial=parsed.serial_number,
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
            key=public,
            hash=signed_hash.name if signed_hash else "none",
            spki_digest=digest.sha256(public.spki),
            raw=raw,
            library=parsed,
            extensions={extension.oid.dotted_string: extension for extension in parsed.extensions},
        )
    except (*_LIBRARY_ERRORS, x509.DuplicateExtension, IndexError):
        raise Malformed("certificate: expected X.509 in DER, got other bytes") from None


def split(data: bytes, *, max_certificates: int = MAX_PATH) -> tuple[bytes, ...]:
    """Cut concatenated DER certificates apart, at least one. Raises `Malformed`."""
    out: list[bytes] = []
    offset = 0
    while offset < len(data):
        if len(out) == max_certificates:
            raise Malformed(f"certificates: more than {max_certificates}", code="too-many")
        end = offset + _der_length(data, offset)
        if end > len(data):
            raise Malformed("certificates: the last one is cut short", code="truncated")
        out.append(data[offset:end])
        offset = end
    if not out:
        raise Malformed("certificates: expected at least one, got none", code="truncated")
    return tuple(out)


def verify_path(
    leaf: bytes, issuers: bytes, *, roots: frozenset[str], purpose: str | None, now: datetime
) -> Path:
    """Verify the path from `leaf` (DER) over `issuers` (concatenated DER, root last) to one of `roots`.

    roots: digests of root certificates, or of their SubjectPublicKeyInfo; none accepts nothing. purpose: the
    extended key usage (dotted OID) that the leaf must be marked with, None where the vendor marks none. Raises `Malformed`, or `Refused` whose `code` is one of
    `untrusted-root`, `bad-chain`, `wrong-purpose`, `expired`, `not-yet-valid`.
    """
    path = _path(leaf, issuers, roots, purpose)
    _in_date(path, now)
    return path


def verify_ca_path(ders: tuple[bytes, ...], *, roots: frozenset[str], now: datetime) -> Path:
    """Verify the path (DER, root last) of an authority itself, as of one that signs revocation lists.

    Like `verify_path`, but the first certificate must be one that may issue; it may be the root.
    """
    path = _ca_path(ders, roots)
    _in_date(path, now)
    return path


def _in_date(path: Path, now: datetime) -> None:
    """7. Raise `Refused` unless every certificate is valid at `now`."""
    begins, ends = path.period
    if begins <= now <= ends:
        return
    for certificate in path.certificates:
        for code, word, at, fails in (
            ("not-yet-valid", "from", certificate.not_before, now < certificate.not_before),
            ("expired", "until", certificate.not_after, now > certificate.not_after),
        ):
            if fails:
                raise Refused(
                    f"{certificate.subject}: valid {word} {at:%Y-%m-%dT%H:%M:%SZ}, asked at {now:%Y-%m-%dT%H:%M:%SZ}",
                    code=code,
                )


@functools.lru_cache(maxsize=256)
def _path(leaf: bytes, issuers: bytes, roots: frozenset[str], purpose: str | None) -> Path:
    ders = split(issuers)
    _anchor(ders[-1], roots)
    chain = tuple(parse_cached(der) for der in (leaf, *ders))
    for certificate in chain:
        _sound(certificate, is_root=certificate is chain[-1])
    for depth, (subject, issuer) in enumerate(itertools.pairwise(chain)):
        if depth:  # the leaf is another each time
            _issued_cached(subject.der, issuer.der)
        else:
            _issued(subject, issuer)
        _may_issue(issuer, below=depth, purpose=purpose)
    _may_sign(chain[0], purpose)
    return Path(certificates=chain)


@functools.lru_cache(maxsize=64)
def _ca_path(ders: tuple[bytes, ...], roots: frozenset[str]) -> Path:
    if not 0 < len(ders) <= MAX_PATH:
        raise Malformed(f"certificates: {len(ders)}, expected 1 to {MAX_PATH}", code="too-many")
    _anchor(ders[-1], roots)
    chain = tuple(parse_cached(der) for der in ders)
    for depth, certificate in enumerate(chain):
        _sound(certificate, is_root=certificate is chain[-1])
        _may_issue(certificate, below=depth, purpose=None)
    for subject, issuer in itertools.pairwise(chain):
        _issued_cached(subject.der, issuer.der)
    return Path(certificates=chain)


def _anchor(root: bytes, roots: frozenset[str]) -> None:
    """1. Raise `Refused` unless the root (DER) is one of `roots`."""
    # The root is asked for first: nobody spends signature checks on a path that leads nowhere.
    root_digest = digest.sha256(root)
    if root_digest in roots:
        return
    key = parse_cached(root).spki_digest
    if key not in roots:
        raise Refused(
            f"the path ends in {root_digest} (key {key}), which is no trusted root", code="untrusted-root"
        )
    # Pinned by its key alone, the certificate's own words count only under that key.
    _issued_cached(root, root)


@functools.lru_cache(maxsize=256)
def parse_cached(der: bytes) -> Certificate:
    """`parse`, remembered: the same issuers stand above most leaves. Raises `Malformed`."""
    return parse(der)


@functools.lru_cache(maxsize=256)
def _issued_cached(subject: bytes, issuer: bytes) -> None:
    """`_issued`, for issuers: that they were issued does not change, and who asks again pays no signature."""
    _issued(parse_cached(subject), parse_cached(issuer))


def _sound(certificate: Certificate, *, is_root: bool) -> None:
    """2, 6, and the hash of 3. Raise `Refused` for what one certificate shows by itself."""
    if certificate.library.version is not x509.Version.v3 and not is_root:
        raise Refused(
            f"{certificate.subject}: expected X.509 version 3, got {certificate.library.version.name}",
            code="bad-chain",
        )
    if certificate.serial <= 0:
        raise Refused(
            f"{certificate.subject}: expected a positive serial number, got {certificate.serial}",
            code="bad-chain",
        )
    if certificate.hash not in _HASHES:
        raise Refused(
            f"{certificate.subject}: expected a signature with SHA-256, SHA-384 or SHA-512, got {certificate.hash}",
            code="bad-chain",
        )
    key = certificate.key.library
    if isinstance(key, rsa.RSAPublicKey):
        known = _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS
    else:
        known = isinstance(key.curve, _CURVES)
    if not known:
        raise Refused(
            f"{certificate.subject}: expected a key on P-256, P-384 or P-521, or RSA of {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits, "
            f"got {certificate.key.kind} of {key.key_size} bits",
            code="bad-chain",
        )
    for extension in certificate.extensions.values():
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise Refused(
                f"{certificate.subject}: critical extension {extension.oid.dotted_string} is not understood",
                code="bad-chain",
            )


def _issued(subject: Certificate, issuer: Certificate) -> None:
    """3. What the library's `verify_directly_issued_by` compares and verifies, by the bytes and the key at hand.

    That would encode anew what was signed, and read the issuer's key again.
    """
    raw = subject.raw
    try:
        if raw.issuer != issuer.raw.subject or raw.algorithm != raw.inner_algorithm:
            raise InvalidSignature
        issuer.key.verify_signed(subject.library, raw.signed)
    except (InvalidSignature, *_LIBRARY_ERRORS):
        raise Refused(
            f"{subject.subject}: not issued and signed by {issuer.subject}", code="bad-chain"
        ) from None


def _may_issue(issuer: Certificate, *, below: int, purpose: str | None) -> None:
    """4. Raise `Refused` unless `issuer` may issue. `below` is how many CA certificates stand between this issuer and the leaf."""
    constraints = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        raise Refused(f"{issuer.subject}: not a certificate authority", code="bad-chain")
    if constraints.path_length is not None and below > constraints.path_length:
        raise Refused(
            f"{issuer.subject}: {below} authorities below it, its path length allows {constraints.path_length}",
            code="bad-chain",
        )
    if usage is None or not usage.key_cert_sign:
        raise Refused(f"{issuer.subject}: its key may not sign certificates", code="bad-chain")
    extended = _extension(issuer, x509.ExtendedKeyUsage)
    if extended is not None and purpose is not None and not _marked(extended, purpose):
        raise Refused(f"{issuer.subject}: may not issue for purpose {purpose}", code="wrong-purpose")


def _may_sign(leaf: Certificate, purpose: str | None) -> None:
    """5. Raise `Refused` unless `leaf` is no CA, may sign, and is marked for the purpose."""
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise Refused(f"{leaf.subject}: a certificate authority, not an end entity", code="bad-chain")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise Refused(f"{leaf.subject}: its key may not sign", code="wrong-purpose")
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if purpose is None:
        return
    if extended is None or purpose not in {oid.dotted_string for oid in extended}:
        raise Refused(f"{leaf.subject}: not marked for purpose {purpose}", code="wrong-purpose")


def _marked(extended: x509.ExtendedKeyUsage, purpose: str) -> bool:
    marks = {oid.dotted_string for oid in extended}
    return purpose in marks or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string in marks


def _extension(certificate: Certificate, kind: type[_Kind]) -> _Kind | None:
    extension = certificate.extensions.get(kind.oid.dotted_string)
    return extension.value if extension and isinstance(extension.value, kind) else None


def _der_length(data: bytes, offset: int) -> int:
    """Length in bytes, header included, of the DER SEQUENCE at `offset`."""
    head = data[offset : offset + 4]
    if len(head) < 4 or head[0] != 0x30:
        raise Malformed(
            f"certificates: expected a DER SEQUENCE at byte {offset}, got {head.hex() or 'nothing'}"
        )
    if head[1] < 0x80:
        return 2 + head[1]
    if head[1] == 0x81 and head[2] >= 0x80:
        return 3 + head[2]
    if head[1] == 0x82 and head[2]:
        return 4 + int.from_bytes(head[2:4], "big")
    raise Malformed(
        f"certificates: expected a length in DER of at most 65535 at byte {offset + 1}, got {head[1:].hex()}"
    )


def _raw(der_bytes: bytes) -> Raw:
    """Pieces of a certificate that the library has parsed: their places are known."""
    ((_, element, _),) = der.elements(der_bytes)
    (_, body, signed), (_, _, algorithm), _ = der.elements(element)
    fields = [value for _, _, value in der.elements(body)]
    # Version (which certificates of version 1 lack), serial number, algorithm, issuer, validity, subject.
    serial_at = 1 if fields[0][0] == der.CONTEXT | der.CONSTRUCTED else 0
    return Raw(signed, algorithm, fields[serial_at + 1], fields[serial_at + 2], fields[serial_at + 4])


# Texts of names by their DER: few authorities issue most certificates, and the library is slow at writing names.
_NAMES: dict[bytes, str] = {}
_MAX_NAMES = 512


def name_text(encoded: bytes, name: Callable[[], x509.Name]) -> str:
    """The text of the name `encoded` (DER), which `name` reads; fit for a terminal."""
    text = _NAMES.get(encoded)
    if text is None:
        text = _plain(name().rfc4514_string())
        if len(_NAMES) >= _MAX_NAMES:
            _NAMES.clear()
        _NAMES[encoded] = text
    return text


def _plain(name: str) -> str:
    """A name from a certificate, fit for a terminal: printable, at most 300 characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:300]
