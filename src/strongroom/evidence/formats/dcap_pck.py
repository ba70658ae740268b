"""Intel's PKI for SGX and TDX: PCK certificates and what they say of a platform, TCB signing, revocation.

Spec: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification 1.5; RFC 5280.

    Intel SGX Root CA            pinned by key; signs its own revocation list and
      ├── Intel SGX PCK Platform CA or Processor CA      which signs its revocation list and
      │     └── Intel SGX PCK Certificate                one for each platform and TCB; extension 1.2.840.113741.1.13.1
      └── Intel SGX TCB Signing                          signs TCB info and QE identities

Checked of a chain: its length, each name, each signature, the extensions, the root's key. Dates and revocation
depend on the time and on other inputs: `Span` and `check_revocation` are for the caller to ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import der
from strongroom.crypto.pki import crl, x509
from strongroom.encoding import pem
from strongroom.errors import EvidenceRefused, Malformed, Refused

if TYPE_CHECKING:
    from datetime import datetime

SPEC = "Intel SGX PCK Certificate and CRL Profile Specification 1.5"
MAX_CHAIN = 64 * 1024
COMPONENTS = 16

_ORGANISATION = frozenset({"O=Intel Corporation", "L=Santa Clara", "ST=CA", "C=US"})
_ROOT = "Intel SGX Root CA"
_CAS = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}
_PCK = "Intel SGX PCK Certificate"
_TCB_SIGNING = "Intel SGX TCB Signing"
_KEY = "secp256r1"
# Every certificate of the profile has these (besides basic constraints and key usage, which any path needs).
_PROFILE = ("2.5.29.14", "2.5.29.15", "2.5.29.19", "2.5.29.31", "2.5.29.35")
_SGX_EXTENSIONS = "1.2.840.113741.1.13.1"
_PREFIX = bytes.fromhex("2a864886f84d010d01")  # the content octets of that identifier
_CHAIN_CHECKS = {"untrusted-root": "root", "expired": "validity", "not-yet-valid": "validity"}


@dataclass(frozen=True, slots=True)
class Span:
    """When something counts, both ends included. `what` names it in refusals, `check` is the check."""

    check: str
    what: str
    begins: datetime
    ends: datetime


class Window:
    """Several spans of time together. Made once, asked each time."""

    __slots__ = ("_begins", "_ends", "_spans")

    def __init__(self, *spans: Span) -> None:
        self._spans = spans
        self._begins = max(span.begins for span in spans)
        self._ends = min(span.ends for span in spans)

    def check(self, now: datetime) -> None:
        """Refuse, naming what does not count, unless all of them count at `now`."""
        if self._begins <= now <= self._ends:
            return
        for span in self._spans:
            if not span.begins <= now <= span.ends:
                raise EvidenceRefused(
                    span.check,
                    expected=f"{span.what}: valid at {now:%Y-%m-%dT%H:%M:%SZ}",
                    got=f"valid from {span.begins:%Y-%m-%dT%H:%M:%SZ} to {span.ends:%Y-%m-%dT%H:%M:%SZ}",
                    hint="fetch current endorsements" if now > span.ends else "mind the clock",
                    source=SPEC,
                )


@dataclass(frozen=True, slots=True)
class PckExtension:
    """What Intel certifies of a platform. components: 16 SVNs. instance: of multi-package platforms, or empty."""

    ppid: bytes
    cpu_svn: bytes
    pce_svn: int
    components: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    instance: bytes
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt_enabled: bool | None


@dataclass(frozen=True, eq=False)
class PckChain:
    """A verified chain: PCK certificate, CA (`platform` or `processor`), root."""

    leaf: x509.Certificate
    ca: x509.Certificate
    root: x509.Certificate
    ca_kind: str
    platform: PckExtension
    spans: tuple[Span, ...]


def certificates(data: bytes, *, what: str, count: int) -> tuple[bytes, ...]:
    """The certificates (DER) of a PEM chain, leaf first and root last in whichever order they came."""
    ders = pem.decode(data, b"CERTIFICATE", what=what, max_blocks=count, max_bytes=MAX_CHAIN)
    if len(ders) != count:
        raise EvidenceRefused(
            f"{what}.path", expected=f"{count} certificates", got=str(len(ders)), source=SPEC
        )
    parsed = {certificate.subject: certificate for certificate in map(x509.parse_cached, ders)}
    issuers = {
        certificate.issuer for certificate in parsed.values() if certificate.issuer != certificate.subject
    }
    at = [certificate for certificate in parsed.values() if certificate.subject not in issuers]
    ordered: list[x509.Certificate] = []
    while len(at) == 1 and len(ordered) < count:
        ordered.append(at[0])
        above = parsed.get(at[0].issuer)
        at = [] if above is None or above is at[0] else [above]
    if len(ordered) != count:
        raise EvidenceRefused(
            f"{what}.path",
            expected="each certificate issued by another of them, up to the root",
            got=", ".join(sorted(parsed))[:400],
            source=SPEC,
        )
    return tuple(certificate.der for certificate in ordered)


def pck_chain(data: bytes, *, roots: frozenset[str], now: datetime) -> PckChain:
    """Verify a chain of PCK certificates in PEM. Raises `Malformed` or `EvidenceRefused`."""
    what = "pck"
    ders = certificates(data, what=what, count=3)
    path = _path(ders, what, roots, now)
    leaf, ca, root = path.certificates
    kind = next((kind for name, kind in _CAS.items() if _named(ca, name)), None)
    if kind is None:
        raise _misnamed(what, ca, " or ".join(_CAS))
    _demand(what, leaf, _PCK)
    _demand(what, root, _ROOT)
    for certificate in path.certificates:
        _profile(what, certificate)
    return PckChain(
        leaf=leaf,
        ca=ca,
        root=root,
        ca_kind=kind,
        platform=_extension(leaf),
        spans=tuple(_span(what, certificate) for certificate in path.certificates),
    )


def tcb_signer(data: bytes, *, what: str, roots: frozenset[str], now: datetime) -> x509.Path:
    """Verify the chain of the key that signs TCB info and QE identities, in PEM. `what` names the part."""
    path = _path(certificates(data, what=what, count=2), what, roots, now)
    signer, root = path.certificates
    _demand(what, signer, _TCB_SIGNING)
    _demand(what, root, _ROOT)
    _profile(what, signer)
    _profile(what, root)
    return path


def ca_chain(data: bytes, *, what: str, roots: frozenset[str], now: datetime) -> x509.Path:
    """Verify the chain of a CA that signs a revocation list: a PCK CA below the root, or the root alone."""
    count = min(max(data.count(b"-----BEGIN"), 1), 2)
    ders = certificates(data, what=what, count=count)
    try:
        path = x509.verify_ca_path(ders, roots=roots, now=now)
    except Refused as cause:
        raise _refused(what, cause) from None
    _demand(what, path.root, _ROOT)
    if count == 2 and not any(_named(path.leaf, name) for name in _CAS):
        raise _misnamed(what, path.leaf, " or ".join(_CAS))
    for certificate in path.certificates:
        _profile(what, certificate)
    return path


def spans(what: str, path: x509.Path) -> tuple[Span, ...]:
    """When each certificate of a path counts."""
    return tuple(_span(what, certificate) for certificate in path.certificates)


def trusted_root(certificate: bytes, *, now: datetime) -> str:
    """The digest by which contracts and callers trust the root in `certificate` (PEM), if it is a sound one."""
    (der_bytes,) = pem.decode(certificate, b"CERTIFICATE", what="root", max_blocks=1, max_bytes=MAX_CHAIN)
    key = x509.parse(der_bytes).spki_digest
    ca_chain(certificate, what="root", roots=frozenset({key}), now=now)
    return key


def revocation_list(data: bytes, *, what: str) -> crl.RevocationList:
    """A list in DER, in hexadecimal digits (as PCCS gives it) or in PEM. Raises `Malformed`."""
    if len(data) > 2 * crl.MAX_BYTES:
        raise Malformed(f"{what}: {len(data)} bytes, at most {2 * crl.MAX_BYTES} allowed", code="too-large")
    if data[:1] == b"\x30":
        return crl.parse(data)
    if data[:1] == b"-":
        (contents,) = pem.decode(data, b"X509 CRL", what=what, max_blocks=1, max_bytes=2 * crl.MAX_BYTES)
        return crl.parse(contents)
    return crl.parse(unhex(data, what=what))


def check_revocation(
    revoked: crl.RevocationList, issuer: x509.Certificate, *certificates: x509.Certificate, what: str
) -> Span:
    """Refuse unless `issuer` signed the list and none of `certificates` is on it; when the list counts."""
    try:
        crl.check_issued(revoked, issuer)
    except Refused as cause:
        raise EvidenceRefused(
            f"{what}.signature",
            expected=f"a revocation list by {issuer.subject}",
            got=cause.message,
            hint="fetch the list of the authority that issued this platform's certificate",
            source=SPEC,
        ) from None
    for certificate in certificates:
        check_listed(revoked, certificate)
    return Span(
        f"{what}.validity", f"revocation list of {revoked.issuer}", revoked.this_update, revoked.next_update
    )


def check_listed(revoked: crl.RevocationList, certificate: x509.Certificate) -> None:
    """Refuse when `one`, which the list's issuer issued, is on the list."""
    if revoked.revokes(certificate):
        raise EvidenceRefused(
            "revoked",
            expected=f"{certificate.subject}, serial {certificate.serial:x}, not revoked",
            got=f"on revocation list {revoked.number} of {revoked.issuer}",
            hint="the vendor withdrew this certificate: its key proves nothing any more",
            source=SPEC,
        )


def unhex(data: bytes, *, what: str) -> bytes:
    """Bytes from hexadecimal digits, all in lower or all in upper case. Raises `Malformed`."""
    if data not in (data.lower(), data.upper()) or not data.isalnum():
        raise Malformed(f"{what}: expected hexadecimal digits, all in lower or all in upper case")
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        raise Malformed(f"{what}: expected hexadecimal digits, all in lower or all in upper case") from None


def _path(ders: tuple[bytes, ...], what: str, roots: frozenset[str], now: datetime) -> x509.Path:
    try:
        return x509.verify_path(ders[0], b"".join(ders[1:]), roots=roots, purpose=None, now=now)
    except Refused as cause:
        raise _refused(what, cause) from None


def _refused(what: str, cause: Refused) -> EvidenceRefused:
    return EvidenceRefused(
        f"{what}.{_CHAIN_CHECKS.get(cause.code, 'path')}",
        expected="certificates, in date, that lead to a trusted root",
        got=cause.message,
        hint="an Intel production platform's chain ends in the pinned Intel SGX Root CA"
        if cause.code == "untrusted-root"
        else "",
        source=f"{SPEC}; RFC 5280, section 6",
    )


def _named(certificate: x509.Certificate, name: str) -> bool:
    return frozenset(certificate.subject.split(",")) == _ORGANISATION | {f"CN={name}"}


def _demand(what: str, certificate: x509.Certificate, name: str) -> None:
    if not _named(certificate, name):
        raise _misnamed(what, certificate, name)


def _misnamed(what: str, certificate: x509.Certificate, name: str) -> EvidenceRefused:
    return EvidenceRefused(
        f"{what}.path",
        expected=f"a certificate of Intel Corporation's {name}",
        got=certificate.subject,
        source=SPEC,
    )


def _profile(what: str, certificate: x509.Certificate) -> None:
    missing = [oid for oid in _PROFILE if oid not in certificate.extensions]
    if missing or certificate.key.kind != _KEY:
        raise EvidenceRefused(
            f"{what}.path",
            expected="a P-256 key and the extensions " + ", ".join(_PROFILE),
            got=f"{certificate.subject}: {certificate.key.kind}, without {', '.join(missing) or 'none'}",
            source=SPEC,
        )


def _span(what: str, certificate: x509.Certificate) -> Span:
    return Span(f"{what}.validity", certificate.subject, certificate.not_before, certificate.not_after)


def _extension(leaf: x509.Certificate) -> PckExtension:
    raw = leaf.extension(_SGX_EXTENSIONS)
    if raw is None:
        raise Malformed(f"PCK certificate: lacks Intel's SGX extensions ({_SGX_EXTENSIONS})")
    return parse_extension(raw)


def parse_extension(raw: bytes) -> PckExtension:
    """Read the value of a PCK certificate's SGX extensions. Raises `Malformed`."""
    fields = _sequence(raw, _PREFIX)
    tcb = _sequence(_need(fields, 2, der.SEQUENCE), _PREFIX + b"\x02", whole=False)
    components = bytes(_small(_need(tcb, index, der.INTEGER), 0xFF) for index in range(1, COMPONENTS + 1))
    configuration: dict[int, tuple[int, bytes]] = {}
    if fields.get(6, (_BOOLEAN,))[0] == fields.get(7, (_BOOLEAN,))[0] == _BOOLEAN:
        # As in the profile's first version, before there were multi-package platforms.
        configuration = {number - 5: fields.pop(number) for number in (6, 7) if number in fields}
    elif 7 in fields:
        configuration = _sequence(_need(fields, 7, der.SEQUENCE), _PREFIX + b"\x07", whole=False)
    return PckExtension(
        _octets(fields, 1, 16),
        _octets(tcb, 18, 16),
        _small(_need(tcb, 17, der.INTEGER), 0xFFFF),
        components,
        _octets(fields, 3, 2),
        _octets(fields, 4, 6),
        _small(_need(fields, 5, _ENUMERATED), 0xFF),
        _octets(fields, 6, 16) if 6 in fields else b"",
        *(_boolean(configuration, index) for index in (1, 2, 3)),
    )


_ENUMERATED = 0x0A
_BOOLEAN = 0x01


def _sequence(data: bytes, prefix: bytes, *, whole: bool = True) -> dict[int, tuple[int, bytes]]:
    """Pairs of identifier and value, by the identifier's last number: {number: (tag, contents)}."""
    at, end = 0, len(data)
    if whole:
        tag, at, end = _element(data, 0, end)
        if tag != der.SEQUENCE or end != len(data):
            raise _not_der()
    out: dict[int, tuple[int, bytes]] = {}
    while at < end:
        pair, start, after = _element(data, at, end)
        oid, name, value = _element(data, start, after)
        tag, contents, last = _element(data, value, after)
        if pair != der.SEQUENCE or oid != der.OBJECT_IDENTIFIER or last != after:
            raise _not_der()
        number = data[value - 1]
        if data[name : value - 1] != prefix or number >= 0x80:
            raise Malformed(
                "PCK certificate: an object identifier that is not Intel's among the SGX extensions"
            )
        if number in out:
            raise Malformed(f"PCK certificate: SGX extension {number} is given twice", code="duplicate-key")
        out[number] = (tag, data[contents:last])
        at = after
    return out


def _element(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, start and end of the contents of the DER element at `at`, which must lie before `end`.

    Not `crypto.der`: there are some seventy elements in each platform's certificate.
    """
    if at + 2 > end:
        raise _not_der()
    size, start = data[at + 1], at + 2
    if size >= 0x80:
        more = size & 0x7F
        start += more
        size = int.from_bytes(data[at + 2 : start], "big")
        if not 1 <= more <= 2 or size < 0x80 or data[at + 2] == 0:
            raise _not_der()
    if start + size > end:
        raise _not_der()
    return data[at], start, start + size


def _not_der() -> Malformed:
    return Malformed("PCK certificate: the SGX extensions are not in DER")


def _need(fields: dict[int, tuple[int, bytes]], number: int, tag: int) -> bytes:
    field = fields.get(number)
    if field is None or field[0] != tag:
        raise Malformed(f"PCK certificate: SGX extension {number} is missing or of another type")
    return field[1]


def _octets(fields: dict[int, tuple[int, bytes]], number: int, size: int) -> bytes:
    value = _need(fields, number, der.OCTET_STRING)
    if len(value) != size:
        raise Malformed(f"PCK certificate: SGX extension {number} of {len(value)} bytes, expected {size}")
    return value


def _small(value: bytes, high: int) -> int:
    number = int.from_bytes(value, "big", signed=True)
    if not value or len(value) > 4 or not 0 <= number <= high:
        raise Malformed(
            f"PCK certificate: expected a number from 0 to {high} among the SGX extensions, got {value.hex()[:16] or 'none'}"
        )
    return number


def _boolean(fields: dict[int, tuple[int, bytes]], number: int) -> bool | None:
    if number not in fields:
        return None
    value = _need(fields, number, _BOOLEAN)
    if value not in (b"\x00", b"\xff"):
        raise Malformed(
            f"PCK certificate: SGX extension 7.{number}: expected a BOOLEAN of 00 or ff, got {value.hex()[:16] or 'none'}"
        )
    return value == b"\xff"
