"""The certificate of a room in DER (RFC 5280, section 4.1), written out: what is signed, field by field.

A library's builder takes seven times as long as the signature. A test holds these bytes to what that builder makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import der, digest
from strongroom.encoding import unexpected
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from datetime import datetime

# UUID-based arc (ITU-T X.667: 2.25.<UUID as an integer>).
# Value: an OCTET STRING with the 32-byte SHA-256 digest of the evidence that was accepted.
_EVIDENCE_UUID = 0x27104D2F_C2AB_468D_96CB_9F3CE680376A
EVIDENCE_OID = f"2.25.{_EVIDENCE_UUID}"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """What a room's certificate says. `spki` is the room's TLS key (DER, as it was sent), `evidence_digest` a text.

    uri, evidence_digest: empty for a key that no evidence is bound to. server, client: what it is for; at least one of them.
    """

    common_name: str
    unit: str
    dns_names: tuple[str, ...]
    uri: str
    spki: bytes
    evidence_digest: str
    not_before: datetime
    not_after: datetime
    server: bool = True
    client: bool = True


_VERSION_3 = der.wrap(der.CONTEXT | der.CONSTRUCTED | 0, der.wrap(der.INTEGER, b"\x02"))
ECDSA_WITH_SHA256 = der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, bytes.fromhex("2a8648ce3d040302")))
_COMMON_NAME = der.wrap(der.OBJECT_IDENTIFIER, b"\x55\x04\x03")
_UNIT = der.wrap(der.OBJECT_IDENTIFIER, b"\x55\x04\x0b")
_UTF8_STRING, _UTC_TIME, _GENERALIZED_TIME, _BOOLEAN = 0x0C, 0x17, 0x18, 0x01
_DNS_NAME, _URI = der.CONTEXT | 2, der.CONTEXT | 6
_MAX_NAME = 64


def _extension(identifier: bytes, value: bytes, *, critical: bool = False) -> bytes:
    flag = der.wrap(_BOOLEAN, b"\xff") if critical else b""
    oid = der.wrap(der.OBJECT_IDENTIFIER, identifier)
    return der.wrap(der.SEQUENCE, oid, flag, der.wrap(der.OCTET_STRING, value))


_NO_AUTHORITY = _extension(b"\x55\x1d\x13", der.wrap(der.SEQUENCE), critical=True)
_DIGITAL_SIGNATURE = _extension(b"\x55\x1d\x0f", der.wrap(der.BIT_STRING, b"\x07\x80"), critical=True)
_SERVER, _CLIENT = (
    der.wrap(der.OBJECT_IDENTIFIER, bytes.fromhex(purpose))
    for purpose in ("2b06010505070301", "2b06010505070302")
)
# By (server, client).
_PURPOSES = {
    (server, client): _extension(
        b"\x55\x1d\x25", der.wrap(der.SEQUENCE, _SERVER if server else b"", _CLIENT if client else b"")
    )
    for server, client in ((True, True), (True, False), (False, True))
}


def _arcs(last: int) -> bytes:
    """The object identifier 2.25.`last`: each arc in groups of seven bits, all but its last group marked."""
    groups = [last & 0x7F]
    while last := last >> 7:
        groups.insert(0, 0x80 | (last & 0x7F))
    return bytes([2 * 40 + 25, *groups])


# Its value has one length, so that all of it but the digest at its end is the same in every certificate.
_EVIDENCE = _extension(_arcs(_EVIDENCE_UUID), der.wrap(der.OCTET_STRING, bytes(32)))[:-32]


def authority_key(identifier: bytes) -> bytes:
    """The extension that names the key of whoever signs."""
    return _extension(b"\x55\x1d\x23", der.wrap(der.SEQUENCE, der.wrap(der.CONTEXT | 0, identifier)))


def to_be_signed(leaf: Leaf, *, spki: bytes, serial: int, issuer: bytes, issuer_key: bytes) -> bytes:
    """The TBSCertificate. spki: the leaf's key in the one DER form; issuer: its name (DER); issuer_key: `authority_key` of its key.

    Raises `Malformed` for names that no certificate can hold.
    """
    try:
        names = [der.wrap(_DNS_NAME, name.encode("ascii")) for name in leaf.dns_names]
        if leaf.uri:
            names.append(der.wrap(_URI, leaf.uri.encode("ascii")))
    except UnicodeEncodeError as cause:
        raise Malformed(f"certificate: the name {unexpected.quoted(cause.object)} is not ASCII") from None
    extensions = (
        _NO_AUTHORITY,
        _DIGITAL_SIGNATURE,
        _PURPOSES[leaf.server, leaf.client],
        _extension(b"\x55\x1d\x11", der.wrap(der.SEQUENCE, *names)),
        issuer_key,
        *((_EVIDENCE + digest.raw(leaf.evidence_digest),) if leaf.evidence_digest else ()),
    )
    return der.wrap(
        der.SEQUENCE,
        _VERSION_3,
        der.wrap(der.INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
        ECDSA_WITH_SHA256,
        issuer,
        der.wrap(der.SEQUENCE, _time(leaf.not_before), _time(leaf.not_after)),
        _name(leaf.common_name, leaf.unit),
        spki,
        der.wrap(der.CONTEXT | der.CONSTRUCTED | 3, der.wrap(der.SEQUENCE, *extensions)),
    )


def signed(tbs: bytes, signature: bytes) -> bytes:
    """The certificate: what was signed, and an ECDSA signature over its SHA-256 (DER)."""
    return der.wrap(der.SEQUENCE, tbs, ECDSA_WITH_SHA256, der.wrap(der.BIT_STRING, b"\x00" + signature))


def _name(common_name: str, unit: str) -> bytes:
    parts = [(_UNIT, unit)] if unit else []
    parts.append((_COMMON_NAME, common_name[:_MAX_NAME]))
    return der.wrap(
        der.SEQUENCE,
        *(
            der.wrap(der.SET, der.wrap(der.SEQUENCE, kind, der.wrap(_UTF8_STRING, text.encode())))
            for kind, text in parts
        ),
    )


def _time(moment: datetime) -> bytes:
    """Of a moment in UTC, whole seconds. Until 2049 the year has two digits (section 4.1.2.5)."""
    digits = f"{moment:%Y%m%d%H%M%SZ}".encode()
    if 1950 <= moment.year < 2050:
        return der.wrap(_UTC_TIME, digits[2:])
    return der.wrap(_GENERALIZED_TIME, digits)
