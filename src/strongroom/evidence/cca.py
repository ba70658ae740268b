"""Arm CCA: attestation token of a realm (platform token and realm token) → Claims.

Specs: Arm Realm Management Monitor DEN0137, section A7.2 (tokens, claims); draft-ffm-rats-cca-token (profiles);
RFC 9052, RFC 9053 (COSE_Sign1, COSE_Key), RFC 8949 (CBOR). Claims of either profile are read: the first one
(CCA-SSD/1.0.0; the realm's key as a raw point) and the current one (cca_platform#1.0.0 and realm#1.0.0; a COSE_Key).

Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts               exactly the token, exactly the platform's key as endorsement, nothing over its size
  2 root                the platform's key is one of `roots`, by its digest
  3 platform.signature  ES256 or ES384, as fits that key, over the platform token
  4 realm.key           the platform token's challenge is the hash of the realm's attestation key
  5 realm.signature     ES384 by that key over the realm token
  6 binding             the realm token's challenge is the report_data of `binding`

Not checked here: initial and extensible measurements, firmware, lifecycle, instance. Those are policy
(strongroom/appraisal); they are in the claims. Not checked anywhere: see NOT_CHECKED below.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import digest, public_key
from strongroom.encoding import cbor, unexpected
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import cose
from strongroom.model.claims import Claims
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "cca"
PART = "token"
PLATFORM_KEY = "platform-key"
MAX_TOKEN = 16 * 1024
MAX_COMPONENTS = 32
REMS = 4

NOT_CHECKED = (
    "that the platform's key is in silicon: no CCA platform has a public root; whoever names the key vouches for it",
    "the firmware's measurements, against reference values of the platform's maker: not compared",
    "revocation and validity of the platform's key: a bare key has neither",
)

_TAG_COLLECTION = 399
_PLATFORM_TOKEN, _REALM_TOKEN = 44234, 44241
_PLATFORM_PROFILES = ("http://arm.com/CCA-SSD/1.0.0", "tag:arm.com,2023:cca_platform#1.0.0")
_REALM_PROFILE = "tag:arm.com,2023:realm#1.0.0"
_HASHES = {"sha-256": hashlib.sha256, "sha-384": hashlib.sha384, "sha-512": hashlib.sha512}
_HASH_SIZES = (32, 48, 64)
_LIFECYCLES = {
    0x00: "unknown",
    0x10: "assembly and test",
    0x20: "provisioning",
    0x30: "secured",
    0x40: "non-CCA platform debug",
    0x50: "recoverable CCA platform debug",
    0x60: "decommissioned",
}
_SECURED = "secured"
_RMM = "Arm DEN0137, section A7.2"


@dataclass(frozen=True, kw_only=True)
class Component:
    """Firmware that the platform measured. kind, version and algorithm may be empty."""

    kind: str
    measurement: bytes
    version: str
    signer: bytes
    algorithm: str


@dataclass(frozen=True, kw_only=True)
class PlatformToken:
    """A parsed platform token, nothing of it verified."""

    signed: cose.Sign1
    profile: str
    challenge: bytes
    implementation: bytes
    instance: bytes
    config: bytes
    lifecycle: int
    components: tuple[Component, ...]
    service: str
    algorithm: str


@dataclass(frozen=True, kw_only=True)
class Realm:
    """A parsed realm token, nothing of it verified. key_bytes: the key's claim as it stands, which is hashed."""

    signed: cose.Sign1
    profile: str
    challenge: bytes
    personalization: bytes
    algorithm: str
    key: public_key.PublicKey
    key_bytes: bytes
    key_algorithm: str
    initial: bytes
    extensible: tuple[bytes, ...]


def parse(token: bytes) -> tuple[PlatformToken, Realm]:
    """Parse both tokens of a CCA token. Raises `Malformed`."""
    platform, realm = split(token)
    return parse_platform(platform), parse_realm(realm)


def split(token: bytes) -> tuple[cbor.Value, cbor.Value]:
    """The platform token and the realm token, each a COSE_Sign1 or bytes that hold one. Raises `Malformed`."""
    value = cbor.loads(
        token, "cca token", tags=frozenset({_TAG_COLLECTION, cose.TAG_SIGN1}), max_bytes=MAX_TOKEN
    )
    if not isinstance(value, cbor.Tagged) or value.tag != _TAG_COLLECTION:
        raise Malformed(f"cca token: expected a map under tag {_TAG_COLLECTION}, got another item")
    source = cbor.Map(value.value, "cca token")
    both = source.value(_PLATFORM_TOKEN), source.value(_REALM_TOKEN)
    source.done()
    return both


def _sign1(value: cbor.Value, what: str) -> cose.Sign1:
    return (
        cose.parse(value, what, max_bytes=MAX_TOKEN) if isinstance(value, bytes) else cose.read(value, what)
    )


def parse_platform(value: cbor.Value) -> PlatformToken:
    """Parse a platform token. Raises `Malformed`."""
    what = "cca platform token"
    signed = _sign1(value, what)
    source = cbor.Map(cbor.loads(signed.payload, what, max_bytes=MAX_TOKEN), what)
    profile = source.text(265, high=128)
    if profile not in _PLATFORM_PROFILES:
        raise source.bad(
            265, "the profile " + " or ".join(sorted(_PLATFORM_PROFILES)), unexpected.quoted(profile)
        )
    platform = PlatformToken(
        signed=signed,
        profile=profile,
        challenge=_hash(source, 10),
        implementation=source.data(2396, low=32, high=32),
        instance=source.data(256, low=33, high=33),
        config=source.data(2401, low=1, high=4096),
        lifecycle=source.integer(2395, low=0, high=0xFFFF),
        components=tuple(
            _component(component) for component in source.items(2399, low=1, high=MAX_COMPONENTS)
        ),
        service=source.text(2400, high=512) if source.has(2400) else "",
        algorithm=_algorithm(source, 2402),
    )
    source.done()
    if platform.instance[0] != 1:
        raise source.bad(256, "an instance identifier of type RAND (1)", f"type {platform.instance[0]}")
    return platform


def _component(value: cbor.Value) -> Component:
    source = cbor.Map(value, "cca platform token.2399")
    component = Component(
        kind=source.text(1, high=64) if source.has(1) else "",
        measurement=_hash(source, 2),
        version=source.text(4, high=64) if source.has(4) else "",
        signer=_hash(source, 5),
        algorithm=source.text(6, high=64) if source.has(6) else "",
    )
    source.done()
    return component


def parse_realm(value: cbor.Value) -> Realm:
    """Parse a realm token. Raises `Malformed`."""
    what = "cca realm token"
    signed = _sign1(value, what)
    source = cbor.Map(cbor.loads(signed.payload, what, max_bytes=MAX_TOKEN), what)
    profile = source.text(265, high=128) if source.has(265) else ""
    if profile not in {"", _REALM_PROFILE}:
        raise source.bad(265, f"the profile {_REALM_PROFILE}", unexpected.quoted(profile))
    key_bytes = source.data(44237, low=97, high=256)
    realm = Realm(
        signed=signed,
        profile=profile,
        challenge=source.data(10, low=64, high=64),
        personalization=source.data(44235, low=64, high=64),
        algorithm=_algorithm(source, 44236),
        key=_key(key_bytes, current=bool(profile)),
        key_bytes=key_bytes,
        key_algorithm=_algorithm(source, 44240),
        initial=_hash(source, 44238),
        extensible=tuple(
            _measurement(source, measurement) for measurement in source.items(44239, low=REMS, high=REMS)
        ),
    )
    source.done()
    return realm


def _hash(source: cbor.Map, key: int) -> bytes:
    value = source.data(key, low=32, high=64)
    if len(value) not in _HASH_SIZES:
        raise source.bad(key, "32, 48 or 64 bytes", unexpected.kind(value))
    return value


def _measurement(source: cbor.Map, value: cbor.Value) -> bytes:
    if not isinstance(value, bytes) or len(value) not in _HASH_SIZES:
        raise source.bad(44239, "measurements of 32, 48 or 64 bytes", unexpected.kind(value))
    return value


def _algorithm(source: cbor.Map, key: int) -> str:
    name = source.text(key, high=16)
    if name not in _HASHES:
        raise source.bad(key, "one of " + ", ".join(_HASHES), unexpected.quoted(name))
    return name


def _key(data: bytes, *, current: bool) -> public_key.PublicKey:
    """The realm's attestation key, P-384: a raw point in the first profile, a COSE_Key in the current one."""
    if not current:
        if len(data) != 97 or data[0] != 4:
            raise Malformed(
                "cca realm token: expected its key to be an uncompressed point of P-384", code="unknown-key"
            )
        return public_key.key_of_point("secp384r1", data[1:49], data[49:])
    source = cbor.Map(cbor.loads(data, "cca realm key"), "cca realm key")
    source.integer(1, low=2, high=2)  # EC2
    source.integer(-1, low=2, high=2)  # P-384
    x, y = source.data(-2, low=48, high=48), source.data(-3, low=48, high=48)
    source.done()
    return public_key.key_of_point("secp384r1", x, y)


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,  # noqa: ARG001 - nothing in a token has a time
) -> Claims:
    """Claims of a realm. Raises `EvidenceRefused`, or `Malformed` when a part does not parse."""
    # 1 parts
    _check_parts(evidence, endorsements)
    platform, realm = parse(evidence.parts[PART])
    key = public_key.key_of_spki(endorsements.parts[PLATFORM_KEY])
    # 2 root
    root = digest.sha256(endorsements.parts[PLATFORM_KEY])
    if root not in roots:
        raise EvidenceRefused(
            "root",
            expected="a platform key among " + ", ".join(sorted(roots)[:4]),
            got=root,
            hint="the contract names platform keys by their digest; there is no public root for CCA",
            source=_RMM,
        )
    # 3 platform.signature
    _check_signature("platform.signature", platform.signed, key)
    # 4 realm.key
    check_realm_key(platform, realm)
    # 5 realm.signature
    check_realm_signature(realm)
    # 6 binding
    expected = binding.value("report_data")
    if realm.challenge != expected:
        raise EvidenceRefused(
            "binding",
            expected=expected.hex(),
            got=realm.challenge.hex(),
            hint="the token is for another nonce, contract, key or audience: evidence cannot be used again",
            source="docs/verdicts.md, What evidence is bound to",
        )
    return _claims(platform, realm, root)


def _check_parts(evidence: Evidence, endorsements: Endorsements) -> None:
    if evidence.parts.keys() != {PART} or endorsements.parts.keys() != {PLATFORM_KEY}:
        raise EvidenceRefused(
            "parts",
            expected=f"{PART}, and the endorsement {PLATFORM_KEY}",
            got=", ".join(sorted((*evidence.parts, *endorsements.parts)))[:400] or "nothing",
            hint="a token's platform key comes from whoever vouches for the platform",
        )


def _check_signature(check: str, signed: cose.Sign1, key: public_key.PublicKey) -> None:
    try:
        cose.check(signed, key)
    except Refused as cause:
        raise EvidenceRefused(
            check, expected="a signature over the token by its key", got=cause.message, source=_RMM
        ) from None


def check_realm_key(platform: PlatformToken, realm: Realm) -> None:
    """The link between the tokens: raise `EvidenceRefused` unless the platform token is for the realm's key."""
    hashed = _HASHES[realm.key_algorithm](realm.key_bytes).digest()
    if platform.challenge != hashed:
        raise EvidenceRefused(
            "realm.key",
            expected=f"{realm.key_algorithm} of the realm's attestation key, {hashed.hex()}",
            got=platform.challenge.hex(),
            hint="the realm token and the platform token are of different platforms or boots",
            source=_RMM,
        )


def check_realm_signature(realm: Realm) -> None:
    """Raise `EvidenceRefused` unless the realm token is signed by the key that it names."""
    _check_signature("realm.signature", realm.signed, realm.key)


def _claims(platform: PlatformToken, realm: Realm, root: str) -> Claims:
    lifecycle = _LIFECYCLES.get(platform.lifecycle >> 8, "undefined")
    facts: dict[str, str | int | bool] = {
        "platform_profile": platform.profile,
        "realm_profile": realm.profile or "first",
        "lifecycle": platform.lifecycle,
        "lifecycle_state": lifecycle,
        "implementation_id": platform.implementation.hex(),
        "instance_id": platform.instance.hex(),
        "config": platform.config.hex(),
        "verification_service": platform.service,
        "platform_algorithm": platform.algorithm,
        "realm_algorithm": realm.algorithm,
        "realm_key_algorithm": realm.key_algorithm,
        "realm_key": digest.sha256(realm.key_bytes),
        "personalization": realm.personalization.hex(),
        "challenge": realm.challenge.hex(),
        "components": len(platform.components),
    }
    registers = {"rim": realm.initial.hex()}
    for index, value in enumerate(realm.extensible):
        facts[f"rem_{index}"] = value.hex()
        if any(value):
            registers[f"rem{index}"] = value.hex()
    for index, component in enumerate(platform.components):
        facts[f"component_{index}_type"] = component.kind
        facts[f"component_{index}_version"] = component.version
        facts[f"component_{index}_signer"] = component.signer.hex()
        facts[f"component_{index}_algorithm"] = component.algorithm or platform.algorithm
        registers[f"component{index}"] = component.measurement.hex()
    return Claims(
        tee=TEE,
        simulated=not pinned.is_hardware(TEE, root),
        root=root,
        machine=platform.instance.hex(),
        contract_digest=_contract(realm.personalization),
        registers=registers,
        # In any state but `secured` somebody may look into the platform, or the keys may be no secret.
        debug=lifecycle != _SECURED,
        memory_guard=False,
        facts=facts,
        not_checked=NOT_CHECKED,
    )


def _contract(personalization: bytes) -> ContractDigest | None:
    """The host's personalization value, where it is a digest and zeros: measured at the realm's creation."""
    head, rest = personalization[:32], personalization[32:]
    return ContractDigest(digest.text(head)) if any(head) and not any(rest) else None
