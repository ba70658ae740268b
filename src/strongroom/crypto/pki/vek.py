"""AMD's certificates of endorsement keys (VCEK and VLEK): X.509 in AMD's own profile.

Spec: AMD 57230, Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification, section 3.
Every VEK certificate has serial number 0, which RFC 5280 forbids and X.509 libraries begin to refuse, so that
this file reads the DER itself. Read strictly: version 3, one algorithm (RSASSA-PSS with SHA-384, in the two
forms that AMD's certificates have), a P-384 key, no critical extension, each extension once, no trailing bytes.
Parsing believes nothing; the functions called `check_` judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.crypto import der, public_key
from strongroom.encoding import unexpected
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from strongroom.crypto.pki.x509 import Certificate
    from strongroom.crypto.public_key import PublicKey

MAX_BYTES = 4 * 1024
ARC = "1.3.6.1.4.1.3704.1"  # AMD's extensions
MAX_EXTENSIONS = 24

_PSS = bytes.fromhex(
    "06092a864886f70d01010a3034a00f300d06096086480165030402020500"
    "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
)
_PSS_TRAILER = bytes.fromhex(
    "06092a864886f70d01010a3039a00f300d06096086480165030402020500"
    "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130a303020101"
)
_PSS_OID = "1.2.840.113549.1.1.10"
_RSA_BITS = 4096
# TBSCertificate: version, serial number, algorithm, issuer, validity, subject, key, extensions.
_BODY = (
    der.CONTEXT | der.CONSTRUCTED, der.INTEGER, *(der.SEQUENCE,) * 5, der.CONTEXT | der.CONSTRUCTED | 3,
)  # fmt: skip
_ARC_DER = bytes.fromhex("2b060104019c7801")
_COMMON_NAME = bytes.fromhex("550403")
_VERSION_3 = bytes.fromhex("020102")
_UTF8, _PRINTABLE = 0x0C, 0x13
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18


@dataclass(frozen=True, kw_only=True)
class VekCertificate:
    """A parsed certificate, not yet believed. Times are UTC.

    kind: the subject's common name, `SEV-VCEK` or `SEV-VLEK`. issuer: the issuer's name in DER.
    extensions: the raw values of AMD's extensions, by what follows their arc ("3.1": 1.3.6.1.4.1.3704.1.3.1).
    """

    kind: str
    issuer: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    key: PublicKey
    extensions: dict[str, bytes]
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(data: bytes) -> VekCertificate:
    """Parse one DER certificate. Raises `Malformed`."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"VEK certificate: {len(data)} bytes, at most {MAX_BYTES} allowed", code="too-large")
    ((_, element, _),) = _exactly(data, der.SEQUENCE)
    (_, body, signed), (_, algorithm, _), (_, signature, _) = _exactly(
        element, der.SEQUENCE, der.SEQUENCE, der.BIT_STRING
    )
    if algorithm not in (_PSS, _PSS_TRAILER):
        raise Malformed(
            "VEK certificate: expected a signature by RSASSA-PSS with SHA-384, got another algorithm",
            code="unknown-algorithm",
        )
    if not signature or signature[0] != 0:
        raise Malformed("VEK certificate: its signature is not whole bytes")
    return _parse_body(body, algorithm, signed, signature[1:])


def _parse_body(body: bytes, algorithm: bytes, signed: bytes, signature: bytes) -> VekCertificate:
    fields = _exactly(body, *_BODY)
    version, _, inner, issuer, period, subject, spki, extensions = fields
    if version[1] != _VERSION_3:
        raise Malformed("VEK certificate: not X.509 version 3")
    if inner[1] != algorithm:
        raise Malformed("VEK certificate: signed with another algorithm than it says")
    times = [_time(tag, text) for tag, text, _ in _elements(period[1])]
    if len(times) != 2:
        raise Malformed(f"VEK certificate: expected two times as its validity, got {len(times)}")
    key = public_key.key_of_spki(spki[2])
    if key.kind != "secp384r1":
        raise Malformed(f"VEK certificate: a key of kind {key.kind}, expected P-384", code="unknown-key")
    return VekCertificate(
        kind=_common_name(subject[1]),
        issuer=issuer[2],
        not_before=times[0],
        not_after=times[1],
        key=key,
        extensions=_extensions(extensions[1]),
        signed=signed,
        signature=signature,
    )


def check_issued(certificate: VekCertificate, issuer: Certificate) -> None:
    """Raise `Refused` unless `issuer` issued and signed the certificate: by name, then by key."""
    if certificate.issuer != issuer.library.subject.public_bytes():
        raise Refused(f"{certificate.kind}: not issued by {issuer.subject}", code="bad-chain")
    try:
        issuer.key.verify_rsa(certificate.signature, certificate.signed, hash="sha384", pss=True)
    except Refused as cause:
        raise Refused(
            f"{certificate.kind}: not signed by {issuer.subject}: {cause.message}", code="bad-chain"
        ) from None


def check_authority(certificate: Certificate) -> None:
    """Raise `Refused` unless an ASK, ASVK or ARK has AMD's form: RSA of 4096 bits, signed with PSS and SHA-384."""
    if certificate.key.kind != "rsa" or certificate.key.library.key_size != _RSA_BITS:
        raise Refused(f"{certificate.subject}: its key is not RSA of {_RSA_BITS} bits", code="bad-chain")
    if certificate.library.signature_algorithm_oid.dotted_string != _PSS_OID or certificate.hash != "sha384":
        raise Refused(f"{certificate.subject}: not signed with RSASSA-PSS and SHA-384", code="bad-chain")


def _elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    return der.elements(data, "VEK certificate")


def _exactly(data: bytes, *tags: int) -> list[tuple[int, bytes, bytes]]:
    """The elements of `data`, which must have these tags, and no others after them."""
    elements = _elements(data)
    if [tag for tag, _, _ in elements] != list(tags):
        raise Malformed("VEK certificate: not X.509 in AMD's profile")
    return elements


def _extensions(data: bytes) -> dict[str, bytes]:
    ((_, listed, _),) = _exactly(data, der.SEQUENCE)
    extensions: dict[bytes, bytes] = {}
    for tag, body, _ in _elements(listed):
        if tag != der.SEQUENCE:
            raise Malformed(f"VEK extension: expected a SEQUENCE, got tag {tag:#04x}")
        # One that is marked critical, or has that default written out, has a BOOLEAN between the two.
        (_, oid, _), (_, value, _) = _exactly(body, der.OBJECT_IDENTIFIER, der.OCTET_STRING)
        if oid in extensions:
            raise Malformed("VEK extension: given twice", code="duplicate-extension")
        if len(extensions) == MAX_EXTENSIONS:
            raise Malformed(f"VEK certificate: more than {MAX_EXTENSIONS} extensions", code="too-many")
        extensions[oid] = value
    arc = len(_ARC_DER)
    return {
        ".".join(str(number) for number in oid[arc:]): value
        for oid, value in extensions.items()
        if oid[:arc] == _ARC_DER and oid[arc:] and max(oid[arc:]) < 0x80
    }


def _common_name(name: bytes) -> str:
    """The one common name of a subject. Raises `Malformed` where there is none, or more."""
    names = []
    for _, members, _ in _elements(name):
        for _, member, _ in _elements(members):
            (_, oid, _), (tag, text, _) = _pair(member)
            if oid == _COMMON_NAME and tag in (_UTF8, _PRINTABLE) and text.isascii():
                names.append(text.decode("ascii"))
    if len(names) != 1 or not names[0].isprintable():
        raise Malformed(
            f"VEK certificate: expected one printable common name in its subject, got {len(names)}"
        )
    return names[0][:64]


def _pair(data: bytes) -> list[tuple[int, bytes, bytes]]:
    elements = _elements(data)
    if len(elements) != 2:
        raise Malformed(
            f"VEK certificate: expected a type and a value in each member of a name, got {len(elements)} elements"
        )
    return elements


def _time(tag: int, body: bytes) -> datetime:
    """UTCTime or GeneralizedTime, in UTC, to the second (RFC 5280, section 4.1.2.5)."""
    if not body.isascii():
        raise Malformed("VEK certificate: a time that is not ASCII")
    text = body.decode("ascii")
    if tag == _UTC_TIME and len(text) == 13:
        text = ("20" if text[:2] < "50" else "19") + text
    elif tag != _GENERALIZED_TIME:
        text = ""
    if len(text) != 15 or text[14] != "Z" or not text[:14].isdigit():
        raise Malformed(
            f"VEK certificate: expected a time like YYYYMMDDhhmmssZ, got {unexpected.quoted(body.decode('ascii'))}"
        )
    try:
        return datetime(
            int(text[:4]), int(text[4:6]), int(text[6:8]),
            int(text[8:10]), int(text[10:12]), int(text[12:14]), tzinfo=UTC,
        )  # fmt: skip
    except ValueError:
        raise Malformed(f"VEK certificate: the time {text} is none of the calendar") from None
