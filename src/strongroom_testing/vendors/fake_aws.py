"""AWS Nitro in memory, with an authority of its own: enclave and NitroTPM documents, whole or spoiled.

Everything is signed for real: the verifier accepts it given this authority's root, and refuses each `Fault` by the
check that `REFUSED_BY` names. The CBOR is as the hypervisor writes it, with maps of definite or indefinite length.
"""

from __future__ import annotations

import enum
import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import certificate_maker as maker

if TYPE_CHECKING:
    from strongroom.model.binding import Bound

P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)
ZERO = bytes(48)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
INSTANCE = "i-0123456789abcdef0"


def pcr(text: str) -> bytes:
    """A PCR value to stand for a measurement."""
    return hashlib.sha384(text.encode()).digest()


PCRS = {0: pcr("image"), 1: pcr("kernel"), 2: pcr("application")} | dict.fromkeys(range(3, 16), ZERO)


class Fault(enum.StrEnum):
    """One thing wrong with a document that is sound otherwise."""

    OTHER_ROOT = "other-root"
    ROOT_FORGED = "root-forged"
    ISSUER_FORGED = "issuer-forged"
    ISSUER_MISSING = "issuer-missing"
    LEAF_IS_CA = "leaf-is-ca"
    LEAF_ENDED = "leaf-ended"
    LEAF_NOT_YET = "leaf-not-yet"
    BAD_SIGNATURE = "bad-signature"
    OTHER_KEY = "other-key"
    R_ZERO = "r-zero"
    S_IS_ORDER = "s-is-order"
    ES256 = "es256"
    ES512 = "es512"
    ALGORITHM_UNPROTECTED = "algorithm-unprotected"
    FROM_THE_FUTURE = "from-the-future"
    OTHER_USER_DATA = "other-user-data"
    NO_USER_DATA = "no-user-data"
    OTHER_NONCE = "other-nonce"
    DIGEST_SHA256 = "digest-sha256"
    PCR_SHORT = "pcr-short"
    PCR_32 = "pcr-32"
    PCR_MISSING = "pcr-missing"
    DUPLICATE_KEY = "duplicate-key"
    UNKNOWN_KEY = "unknown-key"
    BOTH_PCRS = "both-pcrs"
    LONG_NONCE = "long-nonce"
    TRAILING_BYTE = "trailing-byte"
    TRAILING_PAYLOAD = "trailing-payload"
    OTHER_TAG = "other-tag"
    PART_ADDED = "part-added"


# Which check refuses each fault; `format` means that the document does not parse.
REFUSED_BY = {
    Fault.OTHER_ROOT: "chain.root",
    Fault.ROOT_FORGED: "chain.path",
    Fault.ISSUER_FORGED: "chain.path",
    Fault.ISSUER_MISSING: "chain.path",
    Fault.LEAF_IS_CA: "chain.path",
    Fault.LEAF_ENDED: "chain.validity",
    Fault.LEAF_NOT_YET: "chain.validity",
    Fault.BAD_SIGNATURE: "signature",
    Fault.OTHER_KEY: "signature",
    Fault.R_ZERO: "signature",
    Fault.S_IS_ORDER: "signature",
    Fault.ES256: "algorithm",
    Fault.ES512: "format",
    Fault.ALGORITHM_UNPROTECTED: "format",
    Fault.FROM_THE_FUTURE: "time",
    Fault.OTHER_USER_DATA: "binding",
    Fault.NO_USER_DATA: "binding",
    Fault.OTHER_NONCE: "binding",
    Fault.DIGEST_SHA256: "format",
    Fault.PCR_SHORT: "format",
    Fault.PCR_32: "format",
    Fault.PCR_MISSING: "format",
    Fault.DUPLICATE_KEY: "format",
    Fault.UNKNOWN_KEY: "format",
    Fault.BOTH_PCRS: "format",
    Fault.LONG_NONCE: "format",
    Fault.TRAILING_BYTE: "format",
    Fault.TRAILING_PAYLOAD: "format",
    Fault.OTHER_TAG: "format",
    Fault.PART_ADDED: "parts",
}


class FakeAws:
    """A region: a root, the two authorities below it, and an instance's. `now` is when documents are made."""

    def __init__(self, *, now: datetime) -> None:
        self.now = now.astimezone(UTC)
        self._names = ("Fake aws.nitro-enclaves", "Fake region", "Fake zone", f"Fake {INSTANCE}")
        self._keys = tuple(maker.new_key() for _ in self._names)
        self._leaf = maker.new_key()
        self.cabundle = self._authorities(self._keys)

    @property
    def root(self) -> str:
        """The digest that a contract names in `platforms[].roots`."""
        return maker.key_digest(self._keys[0])

    def evidence(
        self,
        binding: Bound,
        *,
        pcrs: dict[int, bytes] | None = None,
        nitrotpm: bool = False,
        indefinite: bool = False,
        tagged: bool = False,
        fault: Fault | None = None,
    ) -> Evidence:
        """A document with the binding's user_data and nonce. Defaults are a document as today's hypervisor makes it."""
        fields = self._fields(binding, dict(PCRS if pcrs is None else pcrs), fault, nitrotpm=nitrotpm)
        payload = _encode_map(fields, indefinite=indefinite)
        if fault is Fault.DUPLICATE_KEY:
            payload = bytes((payload[0] + 1,)) + payload[1:] + cbor2.dumps("nonce") + cbor2.dumps(None)
        if fault is Fault.TRAILING_PAYLOAD:
            payload += b"\0"
        document = self._sign(payload, fault, tagged=tagged)
        parts = {"document": document}
        if fault is Fault.PART_ADDED:
            parts["other"] = b"x"
        return Evidence(tee="nitro", parts=parts)

    def _fields(
        self, binding: Bound, pcrs: dict[int, bytes], fault: Fault | None, *, nitrotpm: bool
    ) -> dict[str, object]:
        made = self.now + 2 * HOUR if fault is Fault.FROM_THE_FUTURE else self.now
        certificate, cabundle = self._chain(fault)
        fields: dict[str, object] = {
            "module_id": f"{INSTANCE}-tpm0000000000000000" if nitrotpm else f"{INSTANCE}-enc0123456789abcdef",
            "digest": "SHA256" if fault is Fault.DIGEST_SHA256 else "SHA384",
            "timestamp": int(made.timestamp() * 1000),
            "nitrotpm_pcrs" if nitrotpm else "pcrs": pcrs,
            "certificate": certificate,
            "cabundle": cabundle,
            "public_key": None,
            "user_data": binding.value("user_data"),
            "nonce": binding.value("nonce"),
        }
        match fault:
            case Fault.OTHER_USER_DATA:
                fields["user_data"] = bytes(64)
            case Fault.NO_USER_DATA:
                fields["user_data"] = None
            case Fault.OTHER_NONCE:
                fields["nonce"] = bytes(32)
            case Fault.LONG_NONCE:
                fields["nonce"] = bytes(1025)
            case Fault.PCR_SHORT:
                pcrs[3] = bytes(47)
            case Fault.PCR_32:
                pcrs[32] = ZERO
            case Fault.PCR_MISSING:
                del pcrs[2]
            case Fault.UNKNOWN_KEY:
                fields["other"] = 1
            case Fault.BOTH_PCRS:
                fields["nitrotpm_pcrs"] = pcrs
            case _:
                pass
        return fields

    def _authorities(self, keys: tuple[ec.EllipticCurvePrivateKey, ...]) -> list[bytes]:
        """Root first, as documents have them."""
        out = []
        for level, (name, key) in enumerate(zip(self._names, keys, strict=True)):
            above = max(level - 1, 0)
            request = maker.Request(
                subject=name,
                key=key,
                begins=self.now - 30 * DAY,
                ends=self.now + 365 * DAY,
                ca=True,
                path_length=(None, 2, 1, 0)[level],
            )
            out.append(maker.issue(request, self._names[above], keys[above]))
        return out

    def _chain(self, fault: Fault | None) -> tuple[bytes, list[bytes]]:
        begins, ends, cabundle, ca = self.now - HOUR, self.now + 2 * HOUR, list(self.cabundle), False
        signer = self._keys[-1]
        match fault:
            case Fault.OTHER_ROOT:
                other = FakeAws(now=self.now)
                cabundle, signer = other.cabundle, other._keys[-1]
            case Fault.ROOT_FORGED:  # the pinned key in a certificate that this key never signed
                request = maker.Request(
                    subject=self._names[0],
                    key=self._keys[0],
                    begins=self.now - DAY,
                    ends=self.now + DAY,
                    ca=True,
                )
                cabundle[0] = maker.issue(request, self._names[0], maker.new_key())
            case Fault.ISSUER_FORGED:
                signer = maker.new_key()
            case Fault.ISSUER_MISSING:
                del cabundle[1]
            case Fault.LEAF_IS_CA:
                ca = True
            case Fault.LEAF_ENDED:
                begins, ends = self.now - 4 * HOUR, self.now - timedelta(seconds=1)
            case Fault.LEAF_NOT_YET:
                begins = self.now + timedelta(seconds=1)
            case Fault.FROM_THE_FUTURE:
                ends = self.now + 9 * HOUR
            case _:
                pass
        leaf = maker.Request(subject="Fake document", key=self._leaf, begins=begins, ends=ends, ca=ca)
        return maker.issue(leaf, self._names[-1], signer), cabundle

    def _sign(self, payload: bytes, fault: Fault | None, *, tagged: bool) -> bytes:
        algorithm = {Fault.ES256: -7, Fault.ES512: -36}.get(fault, -35) if fault else -35
        protected = b"" if fault is Fault.ALGORITHM_UNPROTECTED else cbor2.dumps({1: algorithm})
        unprotected = {1: -35} if fault is Fault.ALGORITHM_UNPROTECTED else {}
        size = 32 if fault is Fault.ES256 else 48
        key = maker.new_key() if fault is Fault.OTHER_KEY else self._leaf
        message = cbor2.dumps(["Signature1", protected, b"", payload])
        if fault is Fault.BAD_SIGNATURE:
            message += b"x"
        signature = raw_signature(key, message, size=48)[: 2 * size]
        if fault is Fault.R_ZERO:
            signature = bytes(48) + signature[48:]
        if fault is Fault.S_IS_ORDER:
            signature = signature[:48] + P384_ORDER.to_bytes(48, "big")
        document = cbor2.dumps([protected, unprotected, payload, signature])
        if fault is Fault.OTHER_TAG:
            document = b"\xd1" + document  # COSE_Mac0
        if fault is Fault.TRAILING_BYTE:
            document += b"\0"
        return b"\xd2" + document if tagged else document


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes, *, size: int) -> bytes:
    """r ‖ s, each of `size` bytes, with SHA-256 or SHA-384 as goes with that size."""
    over = hashes.SHA256() if size == 32 else hashes.SHA384()
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(over)))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _encode_map(fields: dict[str, object], *, indefinite: bool) -> bytes:
    if not indefinite:
        return cbor2.dumps(fields)
    return (
        b"\xbf" + b"".join(cbor2.dumps(key) + _indefinite(value) for key, value in fields.items()) + b"\xff"
    )


def _indefinite(value: object) -> bytes:
    if isinstance(value, dict):
        inner = b"".join(cbor2.dumps(key) + cbor2.dumps(one) for key, one in value.items())
        return b"\xbf" + inner + b"\xff"
    if isinstance(value, list):
        return b"\x9f" + b"".join(cbor2.dumps(one) for one in value) + b"\xff"
    return cbor2.dumps(value)
