"""Reference values from CoRIM files (draft-ietf-rats-corim): signed (COSE_Sign1), or unsigned where the reader says so.

Read: tag 501 with its CoMIDs (tag 506), their reference triples, and in these of each measurement its key, digests,
raw value, integrity registers and minimum SVN (tag 553). Each triple is one alternative, a whole set of registers.
A value that is not understood is refused, never dropped: it might be what makes the file narrower.

Registers are named by the measurement's key: text as it is; a number N is `pcrN`, for `snp` by AMD's profile (641 is
`measurement`); the same for the indices of integrity registers, which for `tdx` are `rtmrN`.
Signature: EdDSA by an Ed25519 key, ES256 or ES384 by a P-256 or P-384 key; the reader's keys, never the file's.
Not compared: the environment (class, instance, group) of a triple. For which TEE a file counts is the reader's to say.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.appraisal.reference import MAX_REFERENCES, Reference, check_dates
from strongroom.crypto.sign import VerifyingKey
from strongroom.encoding import cbor, fields, sign1
from strongroom.errors import Malformed, Refused
from strongroom.model.contract import MAX_REGISTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.crypto.public_key import PublicKey

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_ITEMS = 4096
TAG_CORIM, TAG_COMID = 501, 506
_TAG_TIME, _TAG_SVN, _TAG_MIN_SVN, _TAG_BYTES = 1, 552, 553, 560
# Allowed where they stand, and not looked into: object ids, UUIDs, UEIDs, CoSWIDs' and others' identifiers.
_TAGS = frozenset({_TAG_TIME, 32, 37, 111, 550, _TAG_SVN, _TAG_MIN_SVN, _TAG_BYTES, TAG_CORIM, TAG_COMID})
_CONTENT_TYPES = ("application/rim+cbor", "application/corim-unsigned+cbor")
_HASHES: dict[int | str, int] = {
    1: 32, 7: 48, 8: 64, "sha-256": 32, "sha-384": 48, "sha-512": 64,
}  # fmt: skip
_ES = {-7: "secp256r1", -35: "secp384r1"}
_SNP_KEYS = {641: "measurement", 642: "host_data", 644: "id_key_digest", 645: "author_key_digest"}
_CWT_CLAIMS, _META = 15, 8


def open_corim(
    data: bytes,
    *,
    tee: str,
    trusted: Sequence[VerifyingKey | PublicKey],
    unsigned_is_trusted: bool = False,
    now: datetime,
) -> Reference:
    """The reference values of a CoRIM for `tee`. Raises `Refused`, or `Malformed`.

    unsigned_is_trusted: the reader vouches for an unsigned file (it came by a way of the reader's own). It does not
    make a signature that is there, and does not verify, count.
    """
    if len(data) > MAX_BYTES:
        raise Malformed(f"CoRIM: {len(data)} bytes, at most {MAX_BYTES} allowed", code="too-large")
    if data[:1] == b"\xd2":
        made = _corim(_verified(data, trusted), tee)
    elif unsigned_is_trusted:
        made = _corim(data, tee)
    else:
        raise Refused(
            "CoRIM: not signed",
            code="untrusted-reference",
            hint="get a signed one, or say that you vouch for this file yourself",
        )
    check_dates(made, now)
    return made


def _verified(data: bytes, trusted: Sequence[VerifyingKey | PublicKey]) -> bytes:
    """The payload of a signed CoRIM that one of `trusted` signed."""
    message = sign1.parse(data, "CoRIM", max_bytes=MAX_BYTES)
    header = cbor.Map(message.header, "CoRIM header")
    algorithm = header.integer(sign1.ALGORITHM, low=-65536, high=-1)
    if header.text(sign1.CONTENT_TYPE, high=64) not in _CONTENT_TYPES:
        raise header.bad(sign1.CONTENT_TYPE, " or ".join(_CONTENT_TYPES))
    for known in (sign1.KEY_ID, _META, _CWT_CLAIMS):
        if header.has(known):
            header.value(known)
    header.done()
    if not any(_signed_by(message, algorithm, key) for key in trusted):
        raise Refused(
            "CoRIM: not signed by any key that you trust",
            code="untrusted-reference",
            hint="name the signer's key; nothing in the file itself makes it trusted",
        )
    return message.payload


def _signed_by(message: sign1.Message, algorithm: int, key: VerifyingKey | PublicKey) -> bool:
    """Algorithm and key have to fit: neither chooses the other."""
    try:
        if isinstance(key, VerifyingKey):
            if algorithm != sign1.EDDSA:
                return False
            key.verify(message.signature, message.signed())
        else:
            if _ES.get(algorithm) != key.kind:
                return False
            key.verify_ecdsa(message.signature, message.signed())
    except Refused:
        return False
    return True


def _corim(data: bytes, tee: str) -> Reference:
    value = cbor.loads(
        data, "CoRIM", tags=_TAGS, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH, max_items=MAX_ITEMS
    )
    if not isinstance(value, cbor.Tagged) or value.tag != TAG_CORIM:
        raise Malformed(f"CoRIM: expected tag {TAG_CORIM}")
    top = cbor.Map(value.value, "CoRIM")
    name = _name(top.value(0))
    references: list[dict[str, str]] = []
    tcb: dict[str, int] = {}
    for one in top.items(1, low=1, high=64):
        if not isinstance(one, cbor.Tagged) or one.tag != TAG_COMID or not isinstance(one.value, bytes):
            raise top.bad(1, "CoMID tags alone")
        _comid(one.value, tee, references, tcb)
    issued, expires = _validity(top)
    # Known, and saying nothing about values: dependent RIMs, profile, entities.
    for key in (2, 3, 5):
        if top.has(key):
            top.value(key)
    top.done()
    if not 0 < len(references) <= MAX_REFERENCES:
        raise Malformed(f"CoRIM: expected 1 to {MAX_REFERENCES} reference triples", code="too-many")
    return Reference(
        name=name, tee=tee, issued=issued, expires=expires, references=tuple(references), tcb=tcb
    )


def _name(value: cbor.Value) -> str:
    if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable():
        return value
    inner = value.value if isinstance(value, cbor.Tagged) else value
    if isinstance(inner, bytes) and len(inner) == 16:
        return inner.hex()
    raise Malformed("CoRIM: expected a name or a UUID")


def _validity(top: cbor.Map) -> tuple[datetime | None, datetime | None]:
    if not top.has(4):
        return None, None
    inner = cbor.Map(top.value(4), "CoRIM validity")
    begin = _time(inner.value(0)) if inner.has(0) else None
    end = _time(inner.value(1))
    inner.done()
    return begin, end


def _time(value: cbor.Value) -> datetime:
    seconds = value.value if isinstance(value, cbor.Tagged) and value.tag == _TAG_TIME else None
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds < 253402300800:
        raise Malformed("CoRIM validity: expected a time of whole seconds")
    return datetime.fromtimestamp(seconds, UTC)


def _comid(data: bytes, tee: str, references: list[dict[str, str]], tcb: dict[str, int]) -> None:
    value = cbor.loads(
        data, "CoMID", tags=_TAGS, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH, max_items=MAX_ITEMS
    )
    top = cbor.Map(value, "CoMID")
    triples = cbor.Map(top.value(4), "CoMID triples")
    top.value(1)  # the tag's own identity
    for key in (0, 2, 3):  # language, entities, linked tags
        if top.has(key):
            top.value(key)
    top.done()
    for record in triples.items(0, low=1, high=MAX_REFERENCES):
        if not isinstance(record, tuple) or len(record) != 2 or not isinstance(record[1], tuple):
            raise Malformed("CoMID: expected reference triples of an environment and measurements")
        registers: dict[str, str] = {}
        for one in record[1]:
            _measurement(one, tee, registers, tcb)
        if registers:
            references.append(registers)
    # Endorsed values, keys and conditions are no reference values; with them the file would mean something else.
    triples.done()


def _measurement(value: cbor.Value, tee: str, registers: dict[str, str], tcb: dict[str, int]) -> None:
    source = cbor.Map(value, "CoMID measurement")
    key = source.value(0) if source.has(0) else None
    inner = cbor.Map(source.value(1), "CoMID measurement")
    source.done()
    read = False
    if inner.has(14):
        for index, digests in inner.mapping(14, low=1, high=MAX_REGISTERS).items():
            _put(registers, _register(index, tee, prefix="rtmr" if tee == "tdx" else "pcr"), _digest(digests))
        read = True
    if inner.has(2):
        _put(registers, _register(key, tee), _digest(inner.value(2)))
        read = True
    if inner.has(4):
        raw = inner.value(4)
        raw = raw.value if isinstance(raw, cbor.Tagged) and raw.tag == _TAG_BYTES else raw
        if not isinstance(raw, bytes) or not 0 < len(raw) <= 64:
            raise inner.bad(4, "1 to 64 bytes")
        _put(registers, _register(key, tee), raw.hex())
        read = True
    if inner.has(1):
        least = inner.value(1)
        if (
            not isinstance(least, cbor.Tagged)
            or least.tag != _TAG_MIN_SVN
            or not isinstance(least.value, int)
        ):
            raise inner.bad(1, "a minimum SVN (tag 553): an exact one cannot be told in a policy")
        if not isinstance(key, str) or fields.NAME.fullmatch(key) is None or least.value < 0:
            raise inner.bad(1, "an SVN whose measurement is keyed by a component's name")
        tcb[key] = max(least.value, tcb.get(key, 0))
        read = True
    if inner.has(11):
        inner.text(11, high=200)  # a name for people
    inner.done()
    if not read:
        raise Malformed("CoMID measurement: nothing in it that can be compared")


def _put(registers: dict[str, str], name: str, value: str) -> None:
    if name in registers:
        raise Malformed(f"CoMID: register {name} twice in one triple", code="duplicate")
    if len(registers) == MAX_REGISTERS:
        raise Malformed(f"CoMID: more than {MAX_REGISTERS} registers in one triple", code="too-many")
    registers[name] = value


def _register(key: cbor.Value, tee: str, *, prefix: str = "pcr") -> str:
    if isinstance(key, str) and fields.NAME.fullmatch(key) is not None:
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        if tee == "snp" and key in _SNP_KEYS:
            return _SNP_KEYS[key]
        if tee != "snp" and 0 <= key < 64:
            return f"{prefix}{key}"
    raise Malformed("CoMID: a measurement's key that names no register", code="unknown-register")


def _digest(value: cbor.Value) -> str:
    """The one digest of a list of `[algorithm, value]`."""
    if (
        not isinstance(value, tuple)
        or len(value) != 1
        or not isinstance(value[0], tuple)
        or len(value[0]) != 2
    ):
        raise Malformed("CoMID digests: expected exactly one, of the register's algorithm")
    algorithm, raw = value[0]
    size = None
    if isinstance(algorithm, int | str) and not isinstance(algorithm, bool):
        size = _HASHES.get(algorithm)
    if size is None or not isinstance(raw, bytes) or len(raw) != size:
        raise Malformed("CoMID digests: expected SHA-256, SHA-384 or SHA-512, of its length")
    return raw.hex()
