"""Reference values from CoRIM files (draft-ietf-rats-corim): signed (COSE_Sign1), or unsigned where the reader says so.

Read: tag 501 with its CoMIDs (tag 506), their reference triples, and in these of each measurement its key, digests,
raw value, integrity registers and minimum SVN (tag 553). Each triple is one alternative, a whole set of registers.
A value that is not understood is refused, never dropped: it might be what makes the file narrower.

Registers and facts are named by the measurement's key, by the profile of each TEE (reference_corim_keys.py); a key that
names none is refused, for no evidence could fit it. Facts hold for all of a file: where its alternatives say different
ones of them, it is refused. Attestation keys of a CoMID are passed over: a contract names the roots that it believes.
Signature: EdDSA by an Ed25519 key, ES256 or ES384 by a P-256 or P-384 key; the reader's keys, never the file's.
Not compared: the environment (class, instance, group) of a triple. For which TEE a file counts is the reader's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.appraisal.reference import corim_keys as keys
from strongroom.appraisal.reference.values import MAX_REFERENCES, Reference, check_dates
from strongroom.crypto import sign
from strongroom.crypto.sign import VerifyingKey
from strongroom.encoding import cbor, fields, sign1, unexpected
from strongroom.errors import Malformed, Refused
from strongroom.model.contracts.contract import MAX_REGISTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.crypto.public_key import PublicKey

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_ITEMS = 4096
TAG_CORIM, TAG_COMID = 501, 506
_TAG_TIME, _TAG_SVN, _TAG_MIN_SVN, _TAG_BYTES = 1, 552, 553, 560
# Allowed where they stand, and not looked into: object ids, UUIDs, UEIDs, CoSWIDs' and others' identifiers.
_KEYS = range(554, 560)  # public keys, certificates, thumbprints
_TAG_IMPLEMENTATION, _TAG_COMPONENT, _TAG_CONFIG = 600, 601, 602  # Arm's first profile
_TAGS = frozenset(
    {_TAG_TIME, 32, 37, 111, 550, _TAG_SVN, _TAG_MIN_SVN, _TAG_BYTES, TAG_CORIM, TAG_COMID}
    | {_TAG_IMPLEMENTATION, _TAG_COMPONENT, _TAG_CONFIG, *_KEYS}
)
_CONTENT_TYPES = ("application/rim+cbor", "application/corim-unsigned+cbor")
_HASHES: dict[int | str, int] = {
    1: 32, 7: 48, 8: 64, "sha-256": 32, "sha-384": 48, "sha-512": 64,
}  # fmt: skip
_ES = {-7: "secp256r1", -35: "secp384r1"}
_CWT_CLAIMS, _META = 15, 8
_ATTESTATION_KEYS, _CRYPTO_KEYS = 3, 13


@dataclass(kw_only=True)
class _Triple:
    """One alternative while it is read: its registers and facts, and how many components of firmware it had."""

    registers: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    components: int = 0


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
        reference = _corim(_verified(data, trusted), tee)
    elif unsigned_is_trusted:
        reference = _corim(data, tee)
    else:
        raise Refused(
            "CoRIM: not signed",
            code="untrusted-reference",
            hint="get a signed one, or say that you vouch for this file yourself (--unsigned-reference)",
        )
    check_dates(reference, now)
    return reference


def _verified(data: bytes, trusted: Sequence[VerifyingKey | PublicKey]) -> bytes:
    """The payload of a signed CoRIM that one of `trusted` signed."""
    message = sign1.parse(data, "CoRIM", max_bytes=MAX_BYTES)
    header = cbor.Map(message.header, "CoRIM header")
    algorithm = header.integer(sign1.ALGORITHM, low=-65536, high=-1)
    if (named := header.text(sign1.CONTENT_TYPE, high=64)) not in _CONTENT_TYPES:
        raise header.bad(sign1.CONTENT_TYPE, " or ".join(_CONTENT_TYPES), unexpected.quoted(named))
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
    if isinstance(key, VerifyingKey):
        return algorithm == sign1.EDDSA and sign.holds(key.verify, message.signature, message.signed())
    return _ES.get(algorithm) == key.kind and sign.holds(
        key.verify_ecdsa, message.signature, message.signed()
    )


def _corim(data: bytes, tee: str) -> Reference:
    value = cbor.loads(
        data, "CoRIM", tags=_TAGS, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH, max_items=MAX_ITEMS
    )
    if not isinstance(value, cbor.Tagged) or value.tag != TAG_CORIM:
        raise Malformed(f"CoRIM: expected a map under tag {TAG_CORIM}, got another item")
    top = cbor.Map(value.value, "CoRIM")
    name = _name(top.value(0))
    triples: list[_Triple] = []
    tcb: dict[str, int] = {}
    for item in top.items(1, low=1, high=64):
        if not isinstance(item, cbor.Tagged) or item.tag != TAG_COMID or not isinstance(item.value, bytes):
            raise top.bad(1, f"CoMIDs alone, bytes under tag {TAG_COMID}", "another item")
        _comid(item.value, tee, triples, tcb)
    issued, expires = _validity(top)
    # Known, and saying nothing about values: dependent RIMs, profile, entities.
    for key in (2, 3, 5):
        if top.has(key):
            top.value(key)
    top.done()
    references = tuple(triple.registers for triple in triples if triple.registers)
    if not 0 < len(references) <= MAX_REFERENCES:
        raise Malformed(
            f"CoRIM: expected 1 to {MAX_REFERENCES} reference triples with registers, got {len(references)}",
            code="too-many",
        )
    facts = triples[0].facts
    if any(triple.facts != facts for triple in triples):
        raise Malformed(
            "CoRIM: its alternatives differ in facts, which a policy asks of all of them",
            code="facts-differ",
            hint="give one file for each of them",
        )
    return Reference(
        name=name, tee=tee, issued=issued, expires=expires, references=references, tcb=tcb, facts=facts
    )


def _name(value: cbor.Value) -> str:
    if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable():
        return value
    inner = value.value if isinstance(value, cbor.Tagged) else value
    if isinstance(inner, bytes) and len(inner) == 16:
        return inner.hex()
    raise Malformed(
        f"CoRIM.0: expected a name of 1 to 200 characters or a UUID, got {unexpected.kind(inner)}"
    )


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
        raise Malformed(
            f"CoRIM validity: expected a time of whole seconds until the year 9999 (tag {_TAG_TIME}), got {unexpected.kind(seconds)}"
        )
    return datetime.fromtimestamp(seconds, UTC)


def _comid(data: bytes, tee: str, triples: list[_Triple], tcb: dict[str, int]) -> None:
    value = cbor.loads(
        data, "CoMID", tags=_TAGS, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH, max_items=MAX_ITEMS
    )
    top = cbor.Map(value, "CoMID")
    triples_map = cbor.Map(top.value(4), "CoMID triples")
    top.value(1)  # the tag's own identity
    for key in (0, 2, 3):  # language, entities, linked tags
        if top.has(key):
            top.value(key)
    top.done()
    for record in triples_map.items(0, low=1, high=MAX_REFERENCES):
        if not isinstance(record, tuple) or len(record) != 2 or not isinstance(record[1], tuple):
            raise Malformed(
                "CoMID: expected each reference triple to be an environment and a list of measurements, got another item"
            )
        triple = _Triple()
        for measurement in record[1]:
            _measurement(measurement, tee, triple, tcb)
        if triple.registers or triple.facts:
            triples.append(triple)
    if triples_map.has(_ATTESTATION_KEYS):
        triples_map.value(_ATTESTATION_KEYS)
    # Endorsed values and conditions are no reference values; with them the file would mean something else.
    triples_map.done()


def _measurement(value: cbor.Value, tee: str, triple: _Triple, tcb: dict[str, int]) -> None:
    source = cbor.Map(value, "CoMID measurement")
    key = source.value(0) if source.has(0) else None
    inner = cbor.Map(source.value(1), "CoMID measurement")
    source.done()
    if tee == "cca":
        key = _arms(key, triple, inner)
    read = False
    if inner.has(14):
        for index, digests in inner.mapping(14, low=1, high=MAX_REGISTERS).items():
            _put(triple.registers, keys.numbered(index, tee), _digest(digests))
        read = True
    if inner.has(2):
        _place(triple, key, tee, _digest(inner.value(2)))
        read = True
    if inner.has(4):
        _place(triple, key, tee, _raw(inner))
        read = True
    if inner.has(1):
        least = inner.value(1)
        if (
            not isinstance(least, cbor.Tagged)
            or least.tag != _TAG_MIN_SVN
            or not isinstance(least.value, int)
        ):
            raise inner.bad(1, "a minimum SVN (tag 553): a policy cannot ask for an exact SVN")
        if not isinstance(key, str) or fields.NAME.fullmatch(key) is None or least.value < 0:
            raise inner.bad(1, "an SVN whose measurement is keyed by a component's name")
        tcb[key] = max(least.value, tcb.get(key, 0))
        read = True
    if inner.has(11):
        inner.text(11, high=200)  # a name for people
    inner.done()
    if not read:
        raise Malformed(
            "CoMID measurement: expected a minimum SVN (1), digests (2), a raw value (4) or integrity registers (14)"
        )


def _arms(key: cbor.Value, triple: _Triple, inner: cbor.Map) -> cbor.Value:
    """The key of a measurement of Arm's, as its present profile has it. Components of firmware are numbered in their order.

    Who signed a component is a fact; its name and its version are for people.
    """
    signer: cbor.Value = None
    if isinstance(key, cbor.Tagged) and key.tag == _TAG_CONFIG:
        return "cca.platform-config"
    if isinstance(key, cbor.Tagged) and key.tag == _TAG_COMPONENT:
        component = cbor.Map(key.value, "CoMID component")
        for text in (1, 4):
            if component.has(text):
                component.text(text, high=200)
        signer = component.data(5, low=32, high=64) if component.has(5) else None
        component.done()
    elif key != keys.COMPONENT:
        return key
    elif inner.has(_CRYPTO_KEYS):
        (signer_key,) = inner.items(_CRYPTO_KEYS, low=1, high=1)
        signer = (
            signer_key.value if isinstance(signer_key, cbor.Tagged) and signer_key.tag == _TAG_BYTES else None
        )
        if not isinstance(signer, bytes) or not 32 <= len(signer) <= 64:
            raise inner.bad(_CRYPTO_KEYS, "who signed the component, 32 to 64 bytes (tag 560)")
    name = f"component{triple.components}"
    if isinstance(signer, bytes):
        triple.facts[f"component_{triple.components}_signer"] = signer.hex()
    triple.components += 1
    return name


def _raw(inner: cbor.Map) -> str:
    raw = inner.value(4)
    raw = raw.value if isinstance(raw, cbor.Tagged) and raw.tag == _TAG_BYTES else raw
    if not isinstance(raw, bytes) or not 0 < len(raw) <= 64:
        raise inner.bad(4, "1 to 64 bytes")
    return raw.hex()


def _place(triple: _Triple, key: cbor.Value, tee: str, value: str) -> None:
    """Put a value where its key says: among the registers, or the facts."""
    name = keys.register(key, tee)
    if name is None:
        _put(triple.facts, keys.fact(key, tee), value)
    elif tee == "cca" and keys.REALM_ZERO.fullmatch(name) and not value.strip("0"):
        return  # claims leave it out where nothing extended it, and any other value is one without a reference
    else:
        _put(triple.registers, name, value)


def _put(registers: dict[str, str], name: str, value: str) -> None:
    if name in registers:
        raise Malformed(f"CoMID: register {name} is given twice in one triple", code="duplicate")
    if len(registers) == MAX_REGISTERS:
        raise Malformed(f"CoMID: more than {MAX_REGISTERS} registers in one triple", code="too-many")
    registers[name] = value


def _digest(value: cbor.Value) -> str:
    """The one digest of a list of `[algorithm, value]`."""
    if (
        not isinstance(value, tuple)
        or len(value) != 1
        or not isinstance(value[0], tuple)
        or len(value[0]) != 2
    ):
        raise Malformed("CoMID digests: expected exactly one, as a list of algorithm and value")
    algorithm, raw = value[0]
    size = None
    if isinstance(algorithm, int | str) and not isinstance(algorithm, bool):
        size = _HASHES.get(algorithm)
    if size is None or not isinstance(raw, bytes) or len(raw) != size:
        raise Malformed(
            f"CoMID digests: expected SHA-256, SHA-384 or SHA-512, of its length, got {unexpected.kind(raw)}"
        )
    return raw.hex()
