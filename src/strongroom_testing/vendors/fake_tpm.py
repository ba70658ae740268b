"""A TPM 2.0 in memory, with a certificate authority of its own: evidence as a local room gives it.

Everything is signed for real, so that the product's verifier accepts it given this authority's root,
and refuses each `Fault` by the check that `REFUSED_BY` names. Fast enough for benchmarks.
The event log is the one that SeaBIOS 1.16 writes on QEMU's q35 (see tests/vectors/tpm).
"""

from __future__ import annotations

import enum
import hashlib
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from strongroom.model.evidence import Evidence
from strongroom.model.room.launch import LaunchRecord

if TYPE_CHECKING:
    from strongroom.model.binding import Binding

AK_PURPOSE = "2.23.133.8.3"  # tcg-kp-AIKCertificate
EK_PURPOSE = "2.23.133.8.1"  # tcg-kp-EKCertificate
DAY = timedelta(days=1)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ZERO = bytes(32)


def digest(text: str) -> str:
    """A digest to stand for a file."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


RECORD = LaunchRecord(
    firmware=digest("firmware"),
    kernel=digest("kernel"),
    initrd=digest("initrd"),
    cmdline=digest("cmdline"),
    machine="q35",
    memory_guard=True,
)


class Fault(enum.StrEnum):
    """One thing wrong with evidence that is sound otherwise."""

    OTHER_NONCE = "other-nonce"
    OTHER_ROOT = "other-root"
    OTHER_KEY = "other-key"
    BAD_SIGNATURE = "bad-signature"
    R_ZERO = "r-zero"
    S_IS_ORDER = "s-is-order"
    AK_EXPIRED = "ak-expired"
    AK_NOT_YET_VALID = "ak-not-yet-valid"
    AK_NOT_RESTRICTED = "ak-not-restricted"
    AK_IS_CA = "ak-is-ca"
    AK_FORGED = "ak-forged"
    ISSUER_IS_NO_CA = "issuer-is-no-ca"
    ISSUER_MISSING = "issuer-missing"
    MAGIC_MISSING = "magic-missing"
    FEWER_PCRS = "fewer-pcrs"
    PCR_VALUE = "pcr-value"
    CONTRACT_OTHER = "contract-other"
    CONTRACT_MISSING = "contract-missing"
    CONTRACT_TWICE = "contract-twice"
    RECORD_OTHER = "record-other"
    NO_H_CRTM = "no-h-crtm"
    LOG_EVENT_MISSING = "log-event-missing"
    LOG_EVENT_ADDED = "log-event-added"
    SEPARATOR_MISSING = "separator-missing"
    AFTER_SEPARATOR = "after-separator"
    FOREIGN_PCR_LOGGED = "foreign-pcr-logged"
    PCR_8_EXTENDED = "pcr-8-extended"
    IMA_EXTENDED = "ima-extended"
    PCR_11_EXTENDED = "pcr-11-extended"
    PART_MISSING = "part-missing"
    PART_ADDED = "part-added"
    TRAILING_BYTE = "trailing-byte"


# Which check refuses each fault; `format` means that a part does not parse.
REFUSED_BY = {
    Fault.OTHER_NONCE: "binding",
    Fault.OTHER_ROOT: "chain.root",
    Fault.OTHER_KEY: "signature",
    Fault.BAD_SIGNATURE: "signature",
    Fault.R_ZERO: "signature",
    Fault.S_IS_ORDER: "signature",
    Fault.AK_EXPIRED: "chain.validity",
    Fault.AK_NOT_YET_VALID: "chain.validity",
    Fault.AK_NOT_RESTRICTED: "chain.purpose",
    Fault.AK_IS_CA: "chain.path",
    Fault.AK_FORGED: "chain.path",
    Fault.ISSUER_IS_NO_CA: "chain.path",
    Fault.ISSUER_MISSING: "chain.path",
    Fault.MAGIC_MISSING: "format",
    Fault.FEWER_PCRS: "quote",
    Fault.PCR_VALUE: "pcr-values",
    Fault.CONTRACT_OTHER: "contract",
    Fault.CONTRACT_MISSING: "contract",
    Fault.CONTRACT_TWICE: "contract",
    Fault.RECORD_OTHER: "launch.pcr-0",
    Fault.NO_H_CRTM: "launch.pcr-0",
    Fault.LOG_EVENT_MISSING: "launch.pcr-2",
    Fault.LOG_EVENT_ADDED: "launch.pcr-2",
    Fault.SEPARATOR_MISSING: "launch.event-log",
    Fault.AFTER_SEPARATOR: "launch.event-log",
    Fault.FOREIGN_PCR_LOGGED: "launch.event-log",
    Fault.PCR_8_EXTENDED: "launch.pcr-8",
    Fault.IMA_EXTENDED: "launch.pcr-10",
    Fault.PCR_11_EXTENDED: "launch.pcr-11",
    Fault.PART_MISSING: "parts",
    Fault.PART_ADDED: "parts",
    Fault.TRAILING_BYTE: "format",
}

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Events = list[tuple[int, int, bytes]]

# How often the contract goes into PCR 12; once is right.
_CONTRACT_EXTENDED: dict[Fault | None, int] = {Fault.CONTRACT_MISSING: 0, Fault.CONTRACT_TWICE: 2}
SEPARATOR = b"\xff\xff\xff\xff"
FIRMWARE_EVENTS: Events = [
    (1, 6, struct.pack("<II", 1, 20) + hashlib.sha256(b"smbios").digest()[:20]),
    (2, 5, b"Start Option ROM Scan"),
    (2, 6, struct.pack("<III", 7, 24, 0) + hashlib.sha256(b"linuxboot").digest()[:20]),
    (4, 5, b"Calling INT 19h"),
    *((index, 4, SEPARATOR) for index in range(8)),
]


class Authority:
    """A certificate authority: a root, and an intermediate below it when `depth` is 2."""

    def __init__(self, now: datetime, *, name: str = "Fake TPM", depth: int = 1) -> None:
        self._now = now
        self._keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(depth)]
        self._names = [_name(f"{name} authority {level}") for level in range(depth)]
        certificates = []
        for level, key in enumerate(self._keys):
            above = max(level - 1, 0)
            issued = _certificate(
                subject=self._names[level],
                issuer=self._names[above],
                key=key.public_key(),
                signer=self._keys[above],
                begins=now - 30 * DAY,
                ends=now + 365 * DAY,
                ca=True,
            )
            certificates.append(issued)
        self.certificates = tuple(reversed(certificates))  # the issuer of leaves first, the root last

    @property
    def issuers(self) -> bytes:
        """The `issuers` part of evidence."""
        return b"".join(self.certificates)

    @property
    def root(self) -> str:
        """The root's digest, as contracts name it."""
        return "sha256:" + hashlib.sha256(self.certificates[-1]).hexdigest()

    def certify(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        *,
        begins: datetime | None = None,
        ends: datetime | None = None,
        purpose: str = AK_PURPOSE,
        ca: bool = False,
    ) -> bytes:
        """A leaf certificate (DER)."""
        return _certificate(
            subject=_name("Fake AK"),
            issuer=self._names[-1],
            key=key,
            signer=self._keys[-1],
            begins=begins or self._now - DAY,
            ends=ends or self._now + 30 * DAY,
            purpose=purpose,
            ca=ca,
        )


class FakeTpm:
    """One machine's TPM. `now` is when its certificates are made; they count for 30 days from then.

    authority: share one among several machines. algorithm: "ecdsa" (P-256) or "rsa" (2048).
    """

    def __init__(
        self, *, now: datetime, authority: Authority | None = None, algorithm: str = "ecdsa"
    ) -> None:
        self._now = now.astimezone(UTC)
        self.authority = authority or Authority(self._now)
        self._ak = _new_key(algorithm)
        self.ak_certificate = self.authority.certify(self._ak.public_key())
        self._clock = 1000
        spki = self._ak.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.machine = "sha256:" + hashlib.sha256(spki).hexdigest()  # as `platforms[].machines` names it

    @property
    def issuers(self) -> bytes:
        """The `issuers` part: what the node hands to the room at its start."""
        return self.authority.issuers

    @property
    def root(self) -> str:
        """The digest that a contract names in `platforms[].roots`."""
        return self.authority.root

    def evidence(
        self, binding: Binding, *, record: LaunchRecord = RECORD, fault: Fault | None = None
    ) -> Evidence:
        """Evidence of a room that was launched as `record` says, bound to `binding`.

        A fault that only shows in appraisal is made with another `record` (a changed initrd, the
        memory guard off) or with another `FakeTpm` (another machine, another root).
        """
        contract = bytes.fromhex(binding.contract_digest.removeprefix("sha256:"))
        pcrs, log = _boot(record, contract, fault)
        extra = hashlib.sha256(binding.digest()).digest()
        if fault is Fault.OTHER_NONCE:
            extra = hashlib.sha256(replace(binding, nonce=bytes(32)).digest()).digest()
        quote = self._quote(pcrs, extra, fault)
        leaf, issuers = self._chain(fault)
        parts = {
            "quote": quote,
            "signature": self._sign(quote, fault),
            "ak-certificate": leaf,
            "issuers": issuers,
            "pcrs": b"".join(pcrs),
            "event-log": log,
            "launch-record": record.encode(),
        }
        _spoil_parts(parts, record, fault)
        return Evidence(tee="tpm", parts=parts)

    def sign(self, quote: bytes) -> bytes:
        """The `signature` part for the bytes of a quote."""
        return self._sign(quote, None)

    def _quote(self, pcrs: list[bytes], extra: bytes, fault: Fault | None) -> bytes:
        self._clock += 1
        count = 12 if fault is Fault.FEWER_PCRS else 13
        selection = ((1 << count) - 1).to_bytes(3, "little")
        values = hashlib.sha256(b"".join(pcrs[:count])).digest()
        if fault is Fault.PCR_VALUE:
            values = hashlib.sha256(values).digest()
        return b"".join(
            (
                b"\xff\x54\x43\x46" if fault is Fault.MAGIC_MISSING else b"\xff\x54\x43\x47",
                struct.pack(">HH", 0x8018, 34) + b"\x00\x0b" + bytes.fromhex(self.machine[7:]),
                struct.pack(">H", len(extra)) + extra,
                struct.pack(">QIIBQ", self._clock, 3, 0, 1, 0x2022021100000000),
                struct.pack(">IHB", 1, 0x000B, 3) + selection,
                struct.pack(">H", len(values)) + values,
            )
        )

    def _sign(self, quote: bytes, fault: Fault | None) -> bytes:
        message = quote + b"x" if fault is Fault.BAD_SIGNATURE else quote
        if isinstance(self._ak, rsa.RSAPrivateKey):
            signature = self._ak.sign(message, padding.PKCS1v15(), hashes.SHA256())
            return struct.pack(">HHH", 0x0014, 0x000B, len(signature)) + signature
        r, s = decode_dss_signature(self._ak.sign(message, ec.ECDSA(hashes.SHA256())))
        r = 0 if fault is Fault.R_ZERO else r
        s = P256_ORDER if fault is Fault.S_IS_ORDER else s
        sized = b"".join(struct.pack(">H", 32) + one.to_bytes(32, "big") for one in (r, s))
        return struct.pack(">HH", 0x0018, 0x000B) + sized

    def _chain(self, fault: Fault | None) -> tuple[bytes, bytes]:
        """The `ak-certificate` and `issuers` parts."""
        key = self._ak.public_key()
        certify, now = self.authority.certify, self._now
        leaf, issuers = self.ak_certificate, self.issuers
        match fault:
            case Fault.OTHER_ROOT:
                other = Authority(now, name="Other")
                leaf, issuers = other.certify(key), other.issuers
            case Fault.OTHER_KEY:
                leaf = certify(_new_key("ecdsa").public_key())
            case Fault.AK_EXPIRED:
                leaf = certify(key, begins=now - 9 * DAY, ends=now - DAY)
            case Fault.AK_NOT_YET_VALID:
                leaf = certify(key, begins=now + DAY, ends=now + 9 * DAY)
            case Fault.AK_NOT_RESTRICTED:
                leaf = certify(key, purpose=EK_PURPOSE)
            case Fault.AK_IS_CA:
                leaf = certify(key, ca=True)
            case Fault.AK_FORGED:
                leaf = Authority(now).certify(key)  # the right names, another authority's key
            case Fault.ISSUER_IS_NO_CA:
                leaf, issuers = self._below_a_leaf()
            case Fault.ISSUER_MISSING:
                leaf = Authority(now, name="Middle").certify(key)
        return leaf, issuers

    def _below_a_leaf(self) -> tuple[bytes, bytes]:
        """The classic shortcut: somebody who has a leaf certificate plays authority with it."""
        middle = ec.generate_private_key(ec.SECP256R1())
        leaf = _certificate(
            subject=_name("Forged AK"),
            issuer=_name("Fake AK"),
            key=self._ak.public_key(),
            signer=middle,
            begins=self._now - DAY,
            ends=self._now + DAY,
            purpose=AK_PURPOSE,
        )
        return leaf, self.authority.certify(middle.public_key()) + self.issuers


def _boot(record: LaunchRecord, contract: bytes, fault: Fault | None) -> tuple[list[bytes], bytes]:
    """The values of PCRs 0 to 12 after boot, and the firmware's log."""
    measured, logged = _events(fault)
    pcrs = [ZERO] * 13
    if fault is not Fault.NO_H_CRTM:
        pcrs[0] = _hash(bytes(31) + b"\x04" + _hash(record.encode()))
    for index, _, data in measured:
        pcrs[index] = _hash(pcrs[index] + _hash(data))
    if fault is Fault.PCR_8_EXTENDED:
        pcrs[8] = _hash(pcrs[8] + _hash(b"other"))
    pcrs[10] = _hash(ZERO + _boot_aggregate(pcrs))
    if fault is Fault.IMA_EXTENDED:
        pcrs[10] = _hash(pcrs[10] + _hash(b"/usr/bin/other"))
    if fault is Fault.PCR_11_EXTENDED:
        pcrs[11] = _hash(pcrs[11] + _hash(b"other"))
    if fault is Fault.CONTRACT_OTHER:
        contract = _hash(contract)
    for _ in range(_CONTRACT_EXTENDED.get(fault, 1)):
        pcrs[12] = _hash(pcrs[12] + contract)
    return pcrs, encode_log(logged)


def _events(fault: Fault | None) -> tuple[Events, Events]:
    """What the firmware measured, and what its log says that it did."""
    measured, logged = list(FIRMWARE_EVENTS), list(FIRMWARE_EVENTS)
    extra = (2, 5, b"Something else")
    match fault:
        case Fault.LOG_EVENT_MISSING:
            measured.insert(1, extra)
        case Fault.LOG_EVENT_ADDED:
            logged.insert(1, extra)
        case Fault.SEPARATOR_MISSING:
            measured.pop()
            logged.pop()
        case Fault.AFTER_SEPARATOR:
            measured.append(extra)
            logged.append(extra)
        case Fault.FOREIGN_PCR_LOGGED:
            logged.append((12, 5, b"Something else"))
        case _:
            pass
    return measured, logged


def encode_log(events: Events) -> bytes:
    """A crypto-agile event log with a SHA-256 bank over `events` (PCR, type, data)."""
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBIHHB", 0, 0, 2, 2, 2, 1, 0x000B, 32, 0)
    out = [struct.pack("<II20sI", 0, 3, b"", len(spec)), spec]
    for pcr, kind, data in events:
        out.append(struct.pack("<IIIH", pcr, kind, 1, 0x000B) + _hash(data))
        out.append(struct.pack("<I", len(data)) + data)
    return b"".join(out)


def _spoil_parts(parts: dict[str, bytes], record: LaunchRecord, fault: Fault | None) -> None:
    match fault:
        case Fault.RECORD_OTHER:
            parts["launch-record"] = replace(record, memory_guard=not record.memory_guard).encode()
        case Fault.PART_MISSING:
            del parts["event-log"]
        case Fault.PART_ADDED:
            parts["note"] = b"trust me"
        case Fault.TRAILING_BYTE:
            parts["quote"] += b"\0"


def _boot_aggregate(pcrs: list[bytes]) -> bytes:
    """Digest of Linux's first IMA entry, template `ima-sig`."""
    fields = (b"sha256:\0" + _hash(b"".join(pcrs[:10])), b"boot_aggregate\0", b"")
    return _hash(b"".join(struct.pack("<I", len(one)) + one for one in fields))


def _certificate(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    signer: Key,
    begins: datetime,
    ends: datetime,
    purpose: str = "",
    ca: bool = False,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(_usage(ca=ca), critical=True)
    )
    if purpose:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), critical=False
        )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "SIMULATED"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _new_key(algorithm: str) -> Key:
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
