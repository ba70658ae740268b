"""A Google instance's virtual TPM in memory, with an authority of its own: quotes, certificates, UEFI event logs.

Everything is signed for real: the verifier accepts it given this authority's root, and refuses each `Fault` by the
check that `REFUSED_BY` names. Keys are ECDSA P-256, P-384 or RSA (PKCS#1 or PSS), banks SHA-256 or SHA-384.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import certificate_maker as maker

if TYPE_CHECKING:
    from strongroom.model.binding import Bound

INSTANCE_OID = "1.3.6.1.4.1.11129.2.1.21"
DAY = timedelta(days=1)
ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}
_CURVES = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1()}
_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
_IDS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C}
_SIZES = {"sha1": 20, "sha256": 32, "sha384": 48}
_GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_SECURITY = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
KERNEL = b"the kernel"
CMDLINE = b"root=/dev/sda1 ro"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Event = tuple[int, int, bytes, bytes]
"""PCR, type, what is measured, and what the log says."""


class Fault(enum.StrEnum):
    """One thing wrong with evidence that is sound otherwise."""

    OTHER_ROOT = "other-root"
    ROOT_FORGED = "root-forged"
    ISSUER_MISSING = "issuer-missing"
    AK_FORGED = "ak-forged"
    AK_EXPIRED = "ak-expired"
    AK_NOT_YET_VALID = "ak-not-yet-valid"
    AK_IS_CA = "ak-is-ca"
    NO_INSTANCE = "no-instance"
    INSTANCE_MALFORMED = "instance-malformed"
    BAD_SIGNATURE = "bad-signature"
    OTHER_KEY = "other-key"
    OTHER_NONCE = "other-nonce"
    NO_NONCE = "no-nonce"
    MAGIC_MISSING = "magic-missing"
    NOT_A_QUOTE = "not-a-quote"
    SHA1_BANK = "sha1-bank"
    NOTHING_SELECTED = "nothing-selected"
    PCR_VALUE = "pcr-value"
    PCR_MISSING = "pcr-missing"
    PCR_ADDED = "pcr-added"
    LOG_EVENT_MISSING = "log-event-missing"
    LOG_EVENT_ADDED = "log-event-added"
    LOG_EVENT_CHANGED = "log-event-changed"
    LOG_ORDER = "log-order"
    LOG_CUT = "log-cut"
    SEPARATOR_TWICE = "separator-twice"
    FIRMWARE_FAILED = "firmware-failed"
    PART_MISSING = "part-missing"
    PART_ADDED = "part-added"
    TRAILING_BYTE = "trailing-byte"


# Which check refuses each fault; `format` means that a part does not parse.
REFUSED_BY = {
    Fault.OTHER_ROOT: "chain.root",
    Fault.ROOT_FORGED: "chain.path",
    Fault.ISSUER_MISSING: "chain.path",
    Fault.AK_FORGED: "chain.path",
    Fault.AK_EXPIRED: "chain.validity",
    Fault.AK_NOT_YET_VALID: "chain.validity",
    Fault.AK_IS_CA: "chain.path",
    Fault.NO_INSTANCE: "instance",
    Fault.INSTANCE_MALFORMED: "format",
    Fault.BAD_SIGNATURE: "signature",
    Fault.OTHER_KEY: "signature",
    Fault.OTHER_NONCE: "binding",
    Fault.NO_NONCE: "binding",
    Fault.MAGIC_MISSING: "format",
    Fault.NOT_A_QUOTE: "format",
    Fault.SHA1_BANK: "format",
    Fault.NOTHING_SELECTED: "format",
    Fault.PCR_VALUE: "pcr-values",
    Fault.PCR_MISSING: "format",
    Fault.PCR_ADDED: "format",
    Fault.LOG_EVENT_MISSING: "event-log.pcr-7",
    Fault.LOG_EVENT_ADDED: "event-log.pcr-7",
    Fault.LOG_EVENT_CHANGED: "event-log.pcr-7",
    Fault.LOG_ORDER: "event-log.pcr-7",
    Fault.LOG_CUT: "format",
    Fault.SEPARATOR_TWICE: "event-log.separator",
    Fault.FIRMWARE_FAILED: "event-log.separator",
    Fault.PART_MISSING: "parts",
    Fault.PART_ADDED: "parts",
    Fault.TRAILING_BYTE: "format",
}


def said(pcr: int, kind: int, data: bytes) -> Event:
    """An event whose data are what was measured."""
    return pcr, kind, data, data


def variable(guid: bytes, name: str, value: bytes, *, pcr: int = 7) -> Event:
    """The event of a UEFI variable."""
    data = guid + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value
    return said(pcr, 0x80000001, data)


def uki(section: str, content: bytes, *, pcr: int = 11) -> tuple[Event, Event]:
    """The two events of a unified kernel image's section, described in UTF-16."""
    label = (section + "\0").encode("utf-16-le")
    return (pcr, 0xD, section.encode() + b"\0", label), (pcr, 0xD, content, label)


def boot(*, secure: bool = True, technology: int = 3) -> list[Event]:
    """What an instance measures: firmware, secure boot, shim and GRUB, a kernel, a unified kernel image."""
    return [
        said(0, 0x8, "GCE Virtual Firmware v2\0".encode("utf-16-le")),
        said(0, 0x11, b"GCE NonHostInfo\0" + bytes([technology]) + bytes(15)),
        variable(_GLOBAL, "SecureBoot", b"\x01" if secure else b"\0"),
        variable(_GLOBAL, "PK", b"platform key"),
        variable(_GLOBAL, "KEK", b"exchange keys"),
        variable(_SECURITY, "db", b"good"),
        variable(_SECURITY, "dbx", b"bad"),
        said(7, 0x4, bytes(4)),
        said(4, 0x80000007, b"Calling EFI Application from Boot Option"),
        *(said(index, 0x4, bytes(4)) for index in range(7)),
        (4, 0x80000003, b"shim", b"where shim was loaded"),
        (8, 0xD, b"linux /vmlinuz", b"grub_cmd: linux /vmlinuz\0"),
        (9, 0xD, KERNEL, b"/vmlinuz\0"),
        (8, 0xD, CMDLINE, b"kernel_cmdline: " + CMDLINE + b"\0"),
        *uki(".linux", KERNEL),
        *uki(".cmdline", CMDLINE),
        said(5, 0x80000007, b"Exit Boot Services Returned with Success"),
    ]


def replay(events: list[Event], bank: str, *, locality: int = 0) -> dict[int, bytes]:
    """The values of all 24 PCRs after `events`."""
    size = _SIZES[bank]
    values = {
        index: (b"\xff" if 17 <= index <= 22 else b"\0") * size for index in range(24)
    }  # as a TPM starts
    values[0] = bytes(size - 1) + bytes([locality])
    for pcr, kind, measured, _ in events:
        if kind != 3:
            values[pcr] = _hash(bank, values[pcr] + _hash(bank, measured))
    return values


def encode_log(events: list[Event], banks: tuple[str, ...] = ("sha1", "sha256", "sha384")) -> bytes:
    """A crypto-agile log of `events`."""
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 3, 2, len(banks))
    spec += b"".join(struct.pack("<HH", _IDS[bank], _SIZES[bank]) for bank in banks) + b"\0"
    return struct.pack("<II20sI", 0, 3, b"", len(spec)) + spec + encode_events(events, banks)


def encode_events(events: list[Event], banks: tuple[str, ...]) -> bytes:
    """The events alone, as a table of final events has them after its head."""
    out = []
    for pcr, kind, measured, data in events:
        out.append(struct.pack("<III", pcr, kind, len(banks)))
        out += [struct.pack("<H", _IDS[bank]) + _hash(bank, measured) for bank in banks]
        out.append(struct.pack("<I", len(data)) + data)
    return b"".join(out)


def instance_extension(*, production: bool = True, name: str = "instance-1") -> bytes:
    """Google's extension for one instance."""
    flags = [(0, b"\x02\x01\x02"), (1, b"\x01\x01" + (b"\xff" if production else b"\0"))]
    flags += [(number, b"\x01\x01\0") for number in (4, 5)]
    security = _der(0x30, b"".join(_der(0xA0 + number, value) for number, value in flags))
    return _der(
        0x30,
        _der(0x0C, b"europe-west4-a")
        + b"\x02\x04\x12\x34\x56\x78"
        + _der(0x0C, b"a-project")
        + b"\x02\x08\x0f\x23\x45\x67\x89\xab\xcd\xef"
        + _der(0x0C, name.encode())
        + _der(0xA0, security),
    )


class FakeGoogle:
    """One instance. algorithm: secp256r1, secp384r1, rsa or rsapss. hash: of the signatures. bank: of the PCRs."""

    def __init__(
        self,
        *,
        now: datetime,
        algorithm: str = "secp256r1",
        hash: str = "sha256",
        bank: str = "sha256",
        production: bool = True,
    ) -> None:
        self.now = now.astimezone(UTC)
        self.bank, self._hash, self._pss = bank, hash, algorithm == "rsapss"
        self._authorities = [maker.new_key() for _ in range(2)]
        self._names = ("Fake EK/AK CA Root", "Fake EK/AK CA Intermediate")
        self._ak = _new_key(algorithm)
        self._order = ORDERS.get(algorithm, 0)
        self.extension: bytes | None = instance_extension(production=production)
        self.root = maker.key_digest(self._authorities[0])
        self.issuers = self._certify_authorities(self._authorities)
        self._leaf = self._certify(self._ak, self.extension)
        self.machine = "sha256:" + hashlib.sha256(_spki(self._ak)).hexdigest()

    def evidence(
        self,
        binding: Bound,
        *,
        events: list[Event] | None = None,
        selection: tuple[int, ...] = tuple(range(24)),
        extend: tuple[tuple[int, bytes], ...] = (),
        logged: bool = True,
        fault: Fault | None = None,
    ) -> Evidence:
        """Evidence of an instance that booted through `events`, and whose system then extended PCRs by `extend`."""
        events = boot() if events is None else events
        pcrs = replay(events, self.bank)
        for index, digest in extend:
            pcrs[index] = _hash(self.bank, pcrs[index] + digest)
        if fault in (Fault.SEPARATOR_TWICE, Fault.FIRMWARE_FAILED):
            events = spoil_log(events, fault)
            pcrs = replay(events, self.bank)
        extra = binding.value("extra_data")
        extra = {Fault.OTHER_NONCE: bytes(32), Fault.NO_NONCE: b""}.get(fault, extra) if fault else extra
        quote = self.quote(extra, selection, pcrs, fault)
        leaf, issuers = self._chain(fault)
        parts = {
            "quote": quote,
            "signature": self.sign(quote, fault),
            "ak-certificate": leaf,
            "issuers": issuers,
            "pcrs": b"".join(pcrs[index] for index in selection),
        }
        if logged:
            parts["event-log"] = encode_log(spoil_log(events, fault))
        _spoil_parts(parts, _SIZES[self.bank], fault)
        return Evidence(tee="gcp", parts=parts)

    def quote(
        self, extra: bytes, selection: tuple[int, ...], pcrs: dict[int, bytes], fault: Fault | None = None
    ) -> bytes:
        """TPMS_ATTEST bytes."""
        bitmap = sum(1 << index for index in selection if fault is not Fault.NOTHING_SELECTED)
        digest = _hash(self._hash, b"".join(pcrs[index] for index in selection))
        bank = "sha1" if fault is Fault.SHA1_BANK else self.bank
        return b"".join(
            (
                b"\xff\x54\x43\x46" if fault is Fault.MAGIC_MISSING else b"\xff\x54\x43\x47",
                struct.pack(">HH", 0x8017 if fault is Fault.NOT_A_QUOTE else 0x8018, 34)
                + b"\0\x0b"
                + bytes.fromhex(self.machine[7:]),
                struct.pack(">H", len(extra)) + extra,
                struct.pack(">QIIBQ", 4711, 15, 0, 1, 0x2016051100162800),
                struct.pack(">IHB", 1, _IDS[bank], 3) + bitmap.to_bytes(3, "little"),
                struct.pack(">H", len(digest)) + digest,
            )
        )

    def sign(self, quote: bytes, fault: Fault | None = None) -> bytes:
        """TPMT_SIGNATURE bytes."""
        message = quote + b"x" if fault is Fault.BAD_SIGNATURE else quote
        over, number = _HASHES[self._hash], _IDS[self._hash]
        if isinstance(self._ak, rsa.RSAPrivateKey):
            scheme: padding.AsymmetricPadding = padding.PKCS1v15()
            if self._pss:
                scheme = padding.PSS(mgf=padding.MGF1(over), salt_length=padding.PSS.MAX_LENGTH)
            signature = self._ak.sign(message, scheme, over)
            return struct.pack(">HHH", 0x0016 if self._pss else 0x0014, number, len(signature)) + signature
        return self.ecdsa(*decode_dss_signature(self._ak.sign(message, ec.ECDSA(over))))

    def ecdsa(self, r: int, s: int) -> bytes:
        """TPMT_SIGNATURE bytes of any two numbers."""
        size = (self._order.bit_length() + 7) // 8
        sized = b"".join(struct.pack(">H", size) + one.to_bytes(size, "big") for one in (r, s))
        return struct.pack(">HH", 0x0018, _IDS[self._hash]) + sized

    @property
    def order(self) -> int:
        """The order of the AK's curve."""
        return self._order

    def _chain(self, fault: Fault | None) -> tuple[bytes, bytes]:
        leaf, issuers, now = self._leaf, self.issuers, self.now
        match fault:
            case Fault.OTHER_ROOT:
                other = FakeGoogle(now=now)
                leaf, issuers = other._certify(self._ak, self.extension), other.issuers
            case Fault.ROOT_FORGED:  # the trusted key in a certificate that this key never signed
                intermediate, _ = self._split()
                request = self._authority(0, self._authorities[0])
                issuers = intermediate + maker.issue(request, self._names[0], maker.new_key())
            case Fault.ISSUER_MISSING:
                issuers = self._split()[1]
            case Fault.AK_FORGED:
                leaf = self._certify(self._ak, self.extension, signer=maker.new_key())
            case Fault.AK_EXPIRED:
                leaf = self._certify(self._ak, self.extension, begins=now - 9 * DAY, ends=now - DAY)
            case Fault.AK_NOT_YET_VALID:
                leaf = self._certify(self._ak, self.extension, begins=now + DAY, ends=now + 9 * DAY)
            case Fault.AK_IS_CA:
                leaf = self._certify(self._ak, self.extension, ca=True)
            case Fault.NO_INSTANCE:
                leaf = self._certify(self._ak, None)
            case Fault.INSTANCE_MALFORMED:
                leaf = self._certify(self._ak, instance_extension() + b"\0")
            case Fault.OTHER_KEY:
                leaf = self._certify(_new_key("secp256r1"), self.extension)
            case _:
                pass
        return leaf, issuers

    def _split(self) -> tuple[bytes, bytes]:
        size = 4 + int.from_bytes(self.issuers[2:4], "big")
        return self.issuers[:size], self.issuers[size:]

    def _authority(self, level: int, key: ec.EllipticCurvePrivateKey) -> maker.Request:
        return maker.Request(
            subject=self._names[level],
            key=key,
            begins=self.now - 30 * DAY,
            ends=self.now + 365 * DAY,
            ca=True,
        )

    def _certify_authorities(self, keys: list[ec.EllipticCurvePrivateKey]) -> bytes:
        """The intermediate, then the root."""
        made = [
            maker.issue(self._authority(level, key), self._names[0], keys[0])
            for level, key in enumerate(keys)
        ]
        return b"".join(reversed(made))

    def certify(self, key: Key) -> bytes:
        """The certificate of an attestation key that lives elsewhere; only its public half is asked for."""
        return self._certify(key, self.extension)

    def _certify(
        self,
        key: Key,
        extension: bytes | None,
        *,
        begins: datetime | None = None,
        ends: datetime | None = None,
        ca: bool = False,
        signer: ec.EllipticCurvePrivateKey | None = None,
    ) -> bytes:
        oid = x509.ObjectIdentifier(INSTANCE_OID)
        request = maker.Request(
            subject="3444874180353627024",
            key=key,
            begins=begins or self.now - DAY,
            ends=ends or self.now + 30 * DAY,
            ca=ca,
            extensions=() if extension is None else (x509.UnrecognizedExtension(oid, extension),),
        )
        return maker.issue(request, self._names[1], signer or self._authorities[1])


def spoil_log(events: list[Event], fault: Fault | None) -> list[Event]:
    """What the log says, where it lies, or where the firmware misbehaved."""
    out = list(events)
    secure = next((index for index, event in enumerate(out) if event[0] == 7), 0)
    match fault:
        case Fault.LOG_EVENT_MISSING:
            del out[secure]
        case Fault.LOG_EVENT_ADDED:
            out.insert(secure, said(7, 0x80000007, b"nothing"))
        case Fault.LOG_EVENT_CHANGED:
            out[secure] = variable(_GLOBAL, "SecureBoot", b"\x02")
        case Fault.LOG_ORDER:
            out[secure], out[secure + 1] = out[secure + 1], out[secure]
        case Fault.SEPARATOR_TWICE:
            out.append(said(7, 0x4, bytes(4)))
        case Fault.FIRMWARE_FAILED:
            out = [said(event[0], 4, b"\1\0\0\0") if event[1] == 4 else event for event in out]
        case _:
            pass
    return out


def _spoil_parts(parts: dict[str, bytes], size: int, fault: Fault | None) -> None:
    match fault:
        case Fault.PCR_VALUE:
            parts["pcrs"] = bytes([parts["pcrs"][0] ^ 1]) + parts["pcrs"][1:]
        case Fault.PCR_MISSING:
            parts["pcrs"] = parts["pcrs"][:-size]
        case Fault.PCR_ADDED:
            parts["pcrs"] += bytes(size)
        case Fault.LOG_CUT:
            parts["event-log"] = parts["event-log"][:-1]
        case Fault.PART_MISSING:
            del parts["pcrs"]
        case Fault.PART_ADDED:
            parts["note"] = b"trust me"
        case Fault.TRAILING_BYTE:
            parts["quote"] += b"\0"
        case _:
            pass


def _new_key(algorithm: str) -> Key:
    if algorithm in ("rsa", "rsapss"):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return maker.new_key(_CURVES[algorithm])


def _spki(key: Key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _der(tag: int, body: bytes) -> bytes:
    length = bytes([len(body)]) if len(body) < 0x80 else b"\x81" + bytes([len(body)])
    return bytes([tag]) + length + body


def _hash(bank: str, data: bytes) -> bytes:
    return hashlib.new(bank, data).digest()
