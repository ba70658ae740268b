"""An Arm CCA platform in memory: tokens of realms, whole or spoiled, under a platform key of its own.

Everything is signed for real: the verifier accepts it given this platform's key, and refuses each `Fault` by the
check that `REFUSED_BY` names. Both profiles of the claims can be made.
"""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING

import cbor2

from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import certificate_maker as maker
from strongroom_testing.vendors.fake_aws import raw_signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from strongroom.model.binding import Bound

PLATFORM, REALM = 44234, 44241
SECURED = 0x3000


def measured(text: str) -> bytes:
    """A measurement to stand for something."""
    return hashlib.sha256(text.encode()).digest()


COMPONENTS = (("BL1", "1.0"), ("RMM", "2.3.1"))
RIM = measured("realm")


class Fault(enum.StrEnum):
    """One thing wrong with a token that is sound otherwise."""

    OTHER_PLATFORM_KEY = "other-platform-key"
    BAD_PLATFORM_SIGNATURE = "bad-platform-signature"
    BAD_REALM_SIGNATURE = "bad-realm-signature"
    OTHER_REALM_KEY = "other-realm-key"
    OTHER_KEY_ALGORITHM = "other-key-algorithm"
    OTHER_CHALLENGE = "other-challenge"
    SHORT_CHALLENGE = "short-challenge"
    POINT_OFF_CURVE = "point-off-curve"
    UNKNOWN_PROFILE = "unknown-profile"
    UNKNOWN_CLAIM = "unknown-claim"
    UNKNOWN_HASH = "unknown-hash"
    UNPROTECTED = "unprotected"
    THREE_REMS = "three-rems"
    SHORT_RIM = "short-rim"
    NO_COMPONENTS = "no-components"
    INSTANCE_TYPE = "instance-type"
    NO_REALM = "no-realm"
    THIRD_TOKEN = "third-token"
    OTHER_TAG = "other-tag"
    TRAILING_BYTE = "trailing-byte"
    PART_ADDED = "part-added"
    NO_KEY = "no-key"


# Which check refuses each fault; `format` means that a part does not parse.
REFUSED_BY = dict.fromkeys(Fault, "format") | {
    Fault.OTHER_PLATFORM_KEY: "root",
    Fault.BAD_PLATFORM_SIGNATURE: "platform.signature",
    Fault.BAD_REALM_SIGNATURE: "realm.signature",
    Fault.OTHER_REALM_KEY: "realm.key",
    Fault.OTHER_KEY_ALGORITHM: "realm.key",
    Fault.OTHER_CHALLENGE: "binding",
    Fault.PART_ADDED: "parts",
    Fault.NO_KEY: "parts",
}


class FakeCca:
    """One platform. current: tokens in the current profile (a COSE_Key), else in the first one (a raw point)."""

    def __init__(self, *, current: bool = True, platform_curve: ec.EllipticCurve | None = None) -> None:
        self._current = current
        self._platform = maker.new_key(platform_curve)
        self._realm = maker.new_key()
        self.instance = b"\x01" + measured("instance")

    @property
    def root(self) -> str:
        """The digest that a contract names in `platforms[].roots`."""
        return maker.key_digest(self._platform)

    def endorsements(self, fault: Fault | None = None) -> Endorsements:
        """The platform's key."""
        if fault is Fault.NO_KEY:
            return Endorsements(parts={})
        key = maker.new_key() if fault is Fault.OTHER_PLATFORM_KEY else self._platform
        return Endorsements(parts={"platform-key": maker.spki(key)})

    def evidence(
        self,
        binding: Bound,
        *,
        lifecycle: int = SECURED,
        rems: tuple[bytes, ...] = (bytes(32),) * 4,
        personalization: bytes = bytes(64),
        wrapped: bool = True,
        fault: Fault | None = None,
    ) -> Evidence:
        """A realm's token. wrapped: the two tokens as byte strings, else in place."""
        key = self._key(fault)
        realm = self._realm_claims(binding, key, rems, personalization, fault)
        platform = self._platform_claims(key, lifecycle, fault)
        tokens = {
            PLATFORM: self._sign(
                self._platform, platform, spoiled=fault is Fault.BAD_PLATFORM_SIGNATURE, fault=fault
            ),
            REALM: self._sign(self._realm, realm, spoiled=fault is Fault.BAD_REALM_SIGNATURE, fault=None),
        }
        if fault is Fault.NO_REALM:
            del tokens[REALM]
        if fault is Fault.THIRD_TOKEN:
            tokens[44242] = tokens[REALM]
        collection = {number: cbor2.dumps(one) if wrapped else one for number, one in tokens.items()}
        token = cbor2.dumps(cbor2.CBORTag(398 if fault is Fault.OTHER_TAG else 399, collection))
        parts = {"token": token + b"\0" if fault is Fault.TRAILING_BYTE else token}
        if fault is Fault.PART_ADDED:
            parts["other"] = b"x"
        return Evidence(tee="cca", parts=parts)

    def _key(self, fault: Fault | None) -> bytes:
        """The realm's key as the claim has it."""
        numbers = self._realm.public_key().public_numbers()
        x, y = numbers.x.to_bytes(48, "big"), numbers.y.to_bytes(48, "big")
        if fault is Fault.POINT_OFF_CURVE:
            y = bytes(48)
        if self._current:
            return cbor2.dumps({1: 2, -1: 2, -2: x, -3: y})
        return b"\x04" + x + y

    def _realm_claims(
        self, binding: Bound, key: bytes, rems: tuple[bytes, ...], personalization: bytes, fault: Fault | None
    ) -> dict[int, object]:
        claims: dict[int, object] = {
            10: binding.value("report_data"),
            44235: personalization,
            44236: "sha-256",
            44237: key,
            44238: RIM,
            44239: list(rems),
            44240: "sha-256",
        }
        if self._current:
            claims[265] = "tag:arm.com,2023:realm#1.0.0"
        match fault:
            case Fault.OTHER_CHALLENGE:
                claims[10] = bytes(64)
            case Fault.SHORT_CHALLENGE:
                claims[10] = bytes(63)
            case Fault.OTHER_KEY_ALGORITHM:
                claims[44240] = "sha-512"
            case Fault.UNKNOWN_HASH:
                claims[44240] = "sha-1"
            case Fault.THREE_REMS:
                claims[44239] = list(rems[:3])
            case Fault.SHORT_RIM:
                claims[44238] = RIM[:31]
            case Fault.UNKNOWN_CLAIM:
                claims[44299] = 1
            case _:
                pass
        return claims

    def _platform_claims(self, key: bytes, lifecycle: int, fault: Fault | None) -> dict[int, object]:
        components = [
            {1: name, 2: measured(name), 4: version, 5: measured("signer")} for name, version in COMPONENTS
        ]
        profile = "tag:arm.com,2023:cca_platform#1.0.0" if self._current else "http://arm.com/CCA-SSD/1.0.0"
        return {
            265: "tag:arm.com,2099:other" if fault is Fault.UNKNOWN_PROFILE else profile,
            10: measured("other") if fault is Fault.OTHER_REALM_KEY else hashlib.sha256(key).digest(),
            2396: measured("implementation"),
            256: b"\x02" + self.instance[1:] if fault is Fault.INSTANCE_TYPE else self.instance,
            2401: b"config",
            2395: lifecycle,
            2399: [] if fault is Fault.NO_COMPONENTS else components,
            2400: "https://verifier.example/",
            2402: "sha-256",
        }

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        claims: dict[int, object],
        *,
        spoiled: bool,
        fault: Fault | None,
    ) -> cbor2.CBORTag:
        size = 48 if key.curve.name == "secp384r1" else 32
        protected = b"" if fault is Fault.UNPROTECTED else cbor2.dumps({1: -35 if size == 48 else -7})
        payload = cbor2.dumps(claims)
        message = cbor2.dumps(["Signature1", protected, b"", payload]) + (b"x" if spoiled else b"")
        return cbor2.CBORTag(18, [protected, {}, payload, raw_signature(key, message, size=size)])
