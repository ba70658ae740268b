"""X.509 certificate paths, strictly (RFC 5280, section 6), and the keys at their ends.

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
from typing import TYPE_CHECKING, TypeVar

from cryptography import utils, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.crypto import digest
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from datetime import datetime

# Names in Google's certificates are longer than X.520 allows. The library reads them and warns; nobody could act on it.
warnings.filterwarnings("ignore", message="Attribute's length must be", category=UserWarning)

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

MAX_CERTIFICATE = 16 * 1024
MAX_PATH = 8

_HASHES = ("sha256", "sha384", "sha512")
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)
# By curve: its order, the hash that goes with it, bytes of a coordinate, and the library's objects.
_ECDSA = {
    "secp256r1": (_P256_ORDER, 32, ec.SECP256R1(), ec.ECDSA(hashes.SHA256())),
    "secp384r1": (_P384_ORDER, 48, ec.SECP384R1(), ec.ECDSA(hashes.SHA384())),
}
# By hash, the library's objects for signatures whose hash is not the curve's or is told apart from the key.
_RSA_OVER = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
_ECDSA_OVER = {name: ec.ECDSA(over) for name, over in _RSA_OVER.items()}
_PKCS1 = padding.PKCS1v15()
_PSS = {
    name: padding.PSS(mgf=padding.MGF1(over), salt_length=padding.PSS.AUTO)
    for name, over in _RSA_OVER.items()
}
# What the library raises for bytes that are no certificate; its warnings are errors where tests run.
_LIBRARY_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    utils.CryptographyDeprecationWarning,
)


@dataclass(frozen=True)
class PublicKey:
    """The public key of a certificate: ECDSA on P-256, P-384 or P-521, or RSA of 2048 to 8192 bits."""

    library: ec.EllipticCurvePublicKey | rsa.RSAPublicKey = field(repr=False)

    @property
    def kind(self) -> str:
        """`secp256r1`, `secp384r1`, `secp521r1` or `rsa`."""
        return self.library.curve.name if isinstance(self.library, ec.EllipticCurvePublicKey) else "rsa"

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return self.library.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verify_p256(self, *, r: int, s: int, message: bytes) -> None:
        """Raise `Refused` unless (r, s) is an ECDSA P-256 SHA-256 signature over `message`."""
        if not isinstance(self.library, ec.EllipticCurvePublicKey) or self.kind != "secp256r1":
            raise Refused(f"the key is {self.kind}, the signature ECDSA P-256", code="wrong-key")
        if not (0 < r < _P256_ORDER and 0 < s < _P256_ORDER):
            raise Refused("ECDSA r or s is not between 1 and the order of the curve", code="bad-signature")
        try:
            self.library.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Refused("signature does not verify", code="bad-signature") from None

    def verify_ecdsa(self, signature: bytes, message: bytes) -> None:
        """Raise `Refused` unless `signature` is r ‖ s, big-endian, each as long as a coordinate, over `message`.

        The hash is the curve's: SHA-256 for P-256, SHA-384 for P-384. Other keys are refused.
        """
        suite = _ECDSA.get(self.kind)
        if suite is None or not isinstance(self.library, ec.EllipticCurvePublicKey):
            raise Refused(f"the key is {self.kind}, the signature ECDSA P-256 or P-384", code="wrong-key")
        order, size, _, algorithm = suite
        if len(signature) != 2 * size:
            raise Refused(f"ECDSA signature of {len(signature)} bytes, not {2 * size}", code="bad-signature")
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        if not (0 < r < order and 0 < s < order):
            raise Refused("ECDSA r or s is not between 1 and the order of the curve", code="bad-signature")
        try:
            self.library.verify(encode_dss_signature(r, s), message, algorithm)
        except InvalidSignature:
            raise Refused("signature does not verify", code="bad-signature") from None

    def verify_rs(self, *, r: int, s: int, message: bytes, hash: str) -> None:
        """Raise `Refused` unless (r, s) is an ECDSA signature over `message` by a P-256 or P-384 key.

        hash: `sha256` or `sha384`, as the signature's scheme says; a TPM's key may use either with its curve.
        """
        suite = _ECDSA.get(self.kind)
        if suite is None or not isinstance(self.library, ec.EllipticCurvePublicKey):
            raise Refused(f"the key is {self.kind}, the signature ECDSA P-256 or P-384", code="wrong-key")
        if not (0 < r < suite[0] and 0 < s < suite[0]):
            raise Refused("ECDSA r or s is not between 1 and the order of the curve", code="bad-signature")
        try:
            self.library.verify(encode_dss_signature(r, s), message, _ECDSA_OVER[hash])
        except InvalidSignature:
            raise Refused("signature does not verify", code="bad-signature") from None

    def verify_rsa(
        self, signature: bytes, message: bytes, *, hash: str = "sha256", pss: bool = False
    ) -> None:
        """Raise `Refused` unless `signature` is RSASSA-PKCS1-v1_5 (or, with `pss`, RSASSA-PSS) over `message`.

        hash: `sha256` or `sha384`. The salt of a PSS signature may have any length: TPMs differ in it.
        """
        if not isinstance(self.library, rsa.RSAPublicKey):
            raise Refused(f"the key is {self.kind}, the signature RSA", code="wrong-key")
        if len(signature) != (self.library.key_size + 7) // 8:
            raise Refused("RSA signature is not as long as the modulus", code="bad-signature")
        try:
            self.library.verify(signature, message, _PSS[hash] if pss else _PKCS1, _RSA_OVER[hash])
        except InvalidSignature:
            raise Refused("signature does not verify", code="bad-signature") from None


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A parsed certificate, nothing of it verified. Times are UTC; names are RFC 4514 text.

    `hash` is what the issuer hashed with. `library` and `extensions` are the library's objects, for this package alone.
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
    library: x509.Certificate = field(repr=False, compare=False)
    extensions: x509.Extensions = field(repr=False, compare=False)

    def extension(self, oid: str) -> bytes | None:
        """The value (DER) of a vendor's own extension, by its dotted OID; None where the certificate has none."""
        for one in self.extensions:
            if one.oid.dotted_string == oid and isinstance(one.value, x509.UnrecognizedExtension):
                return one.value.value
        return None


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
        return Certificate(
            der=der,
            digest=digest.sha256(der),
            subject=_plain(parsed.subject.rfc4514_string()),
            issuer=_plain(parsed.issuer.rfc4514_string()),
            serial=parsed.serial_number,
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
            key=public,
            hash=signed_hash.name if signed_hash else "none",
            spki_digest=digest.sha256(public.spki),
            library=parsed,
            extensions=parsed.extensions,
        )
    except (*_LIBRARY_ERRORS, x509.DuplicateExtension, IndexError) as cause:
        raise Malformed(f"certificate: not X.509 in DER ({type(cause).__name__})") from None


def key_of_point(kind: str, x: bytes, y: bytes) -> PublicKey:
    """The key at an affine point of `secp256r1` or `secp384r1`. Raises `Malformed`: wrong length, not on the curve."""
    suite = _ECDSA.get(kind)
    if suite is None or len(x) != suite[1] or len(y) != suite[1]:
        raise Malformed(f"public key: not a point of {kind}", code="unknown-key")
    try:
        return PublicKey(ec.EllipticCurvePublicKey.from_encoded_point(suite[2], b"\x04" + x + y))
    except _LIBRARY_ERRORS:
        raise Malformed(f"public key: not a point of {kind}", code="unknown-key") from None


def key_of_modulus(modulus: int, exponent: int) -> PublicKey:
    """The RSA key of these numbers. Raises `Malformed`."""
    try:
        return PublicKey(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    except _LIBRARY_ERRORS:
        raise Malformed("public key: not an RSA key", code="unknown-key") from None


def key_digest(key: PublicKey) -> str:
    """The text digest of a key's SubjectPublicKeyInfo: by it keys and machines are named."""
    return digest.sha256(key.spki)


def key_of_spki(der: bytes) -> PublicKey:
    """The key of a SubjectPublicKeyInfo in its one DER form. Raises `Malformed`."""
    if len(der) > MAX_CERTIFICATE:
        raise Malformed("public key: too large", code="too-large")
    try:
        key = serialization.load_der_public_key(der)
    except _LIBRARY_ERRORS:
        raise Malformed("public key: not a SubjectPublicKeyInfo in DER") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise Malformed("public key: neither ECDSA nor RSA", code="unknown-key")
    public = PublicKey(key)
    if public.spki != der:
        raise Malformed("public key: not in the one DER form")
    return public


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
        raise Malformed("certificates: none", code="truncated")
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
    for one in path.certificates:
        if now < one.not_before:
            raise Refused(
                f"{one.subject}: valid from {one.not_before:%Y-%m-%dT%H:%M:%SZ}, "
                f"asked at {now:%Y-%m-%dT%H:%M:%SZ}",
                code="not-yet-valid",
            )
        if now > one.not_after:
            raise Refused(
                f"{one.subject}: valid until {one.not_after:%Y-%m-%dT%H:%M:%SZ}, "
                f"asked at {now:%Y-%m-%dT%H:%M:%SZ}",
                code="expired",
            )


@functools.lru_cache(maxsize=256)
def _path(leaf: bytes, issuers: bytes, roots: frozenset[str], purpose: str | None) -> Path:
    ders = split(issuers)
    _anchor(ders[-1], roots)
    chain = tuple(kept(der) for der in (leaf, *ders))
    for one in chain:
        _sound(one, is_root=one is chain[-1])
    for depth, (subject, issuer) in enumerate(itertools.pairwise(chain)):
        if depth:
            _issued_kept(subject.der, issuer.der)
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
    chain = tuple(kept(der) for der in ders)
    for depth, one in enumerate(chain):
        _sound(one, is_root=one is chain[-1])
        _may_issue(one, below=depth, purpose=None)
    for subject, issuer in itertools.pairwise(chain):
        _issued_kept(subject.der, issuer.der)
    return Path(certificates=chain)


def _anchor(root: bytes, roots: frozenset[str]) -> None:
    # The root is asked for first: nobody spends signature checks on a path that leads nowhere.
    whole = digest.sha256(root)
    if whole in roots:
        return
    key = kept(root).spki_digest
    if key not in roots:
        raise Refused(
            f"the path ends in {whole} (key {key}), which is no trusted root", code="untrusted-root"
        )
    # Pinned by its key alone, the certificate's own words count only under that key.
    _issued_kept(root, root)


@functools.lru_cache(maxsize=256)
def kept(der: bytes) -> Certificate:
    """`parse`, remembered: the same issuers stand above most leaves. Raises `Malformed`."""
    return parse(der)


@functools.lru_cache(maxsize=256)
def _issued_kept(subject: bytes, issuer: bytes) -> None:
    """`_issued`, for issuers: that they were issued does not change, and who asks again pays no signature."""
    _issued(kept(subject), kept(issuer))


def _sound(one: Certificate, *, is_root: bool) -> None:
    if one.library.version is not x509.Version.v3 and not is_root:
        raise Refused(f"{one.subject}: not an X.509 version 3 certificate", code="bad-chain")
    if one.serial <= 0:
        raise Refused(f"{one.subject}: serial number is not positive", code="bad-chain")
    if one.hash not in _HASHES:
        raise Refused(f"{one.subject}: not signed with SHA-256, SHA-384 or SHA-512", code="bad-chain")
    key = one.key.library
    if isinstance(key, rsa.RSAPublicKey):
        known = _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS
    else:
        known = isinstance(key.curve, _CURVES)
    if not known:
        raise Refused(f"{one.subject}: a key of unknown curve or size", code="bad-chain")
    for extension in one.extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise Refused(
                f"{one.subject}: critical extension {extension.oid.dotted_string} is not understood",
                code="bad-chain",
            )


def _issued(subject: Certificate, issuer: Certificate) -> None:
    try:
        # Compares the names, and the inner with the outer algorithm, before the signature.
        subject.library.verify_directly_issued_by(issuer.library)
    except (InvalidSignature, *_LIBRARY_ERRORS):
        raise Refused(
            f"{subject.subject}: not issued and signed by {issuer.subject}", code="bad-chain"
        ) from None


def _may_issue(issuer: Certificate, *, below: int, purpose: str | None) -> None:
    """`below` is how many CA certificates stand between this issuer and the leaf."""
    constraints = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        raise Refused(f"{issuer.subject}: not a certificate authority", code="bad-chain")
    if constraints.path_length is not None and below > constraints.path_length:
        raise Refused(f"{issuer.subject}: the path below it is too long", code="bad-chain")
    if usage is None or not usage.key_cert_sign:
        raise Refused(f"{issuer.subject}: its key may not sign certificates", code="bad-chain")
    extended = _extension(issuer, x509.ExtendedKeyUsage)
    if extended is not None and purpose is not None and not _marked(extended, purpose):
        raise Refused(f"{issuer.subject}: may not issue for purpose {purpose}", code="wrong-purpose")


def _may_sign(leaf: Certificate, purpose: str | None) -> None:
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


def unrecognized(one: Certificate, oid: str) -> bytes | None:
    """The value (DER) of a vendor's own extension, or None when the certificate has none of that identifier."""
    for extension in one.extensions:
        if extension.oid.dotted_string == oid and isinstance(extension.value, x509.UnrecognizedExtension):
            return extension.value.value
    return None


def _extension(one: Certificate, kind: type[_Kind]) -> _Kind | None:
    for extension in one.extensions:
        if isinstance(extension.value, kind):
            return extension.value
    return None


def _der_length(data: bytes, offset: int) -> int:
    """Length in bytes, header included, of the DER SEQUENCE at `offset`."""
    head = data[offset : offset + 4]
    if len(head) < 4 or head[0] != 0x30:
        raise Malformed("certificates: no DER SEQUENCE where one should begin")
    if head[1] < 0x80:
        return 2 + head[1]
    if head[1] == 0x81 and head[2] >= 0x80:
        return 3 + head[2]
    if head[1] == 0x82 and head[2]:
        return 4 + int.from_bytes(head[2:4], "big")
    raise Malformed("certificates: length is not in DER, or beyond 65535 bytes")


def _plain(name: str) -> str:
    """A name from a certificate, fit for a terminal: printable, at most 300 characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:300]
