"""NVIDIA GPUs and NVSwitches in memory, with an authority of their own: reports, whole or spoiled.

Everything is signed for real: the verifier accepts it given this authority's root, and refuses each `Fault` by the
check that `REFUSED_BY` names. Two models of opaque data can be made: without and with NVIDIA's header. `endorsements` are the
issuers' OCSP answers about a chain; each `Doubt` of theirs is refused by `chain.revocation`, or does not parse.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.crypto.pki import x509 as own_x509
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import certificate_maker as maker
from strongroom_testing.vendors.fake_aws import P384_ORDER, raw_signature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.model.binding import Bound

DAY = timedelta(days=1)
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
FWID_OIDS = {
    "GH100": "2.23.133.5.4.1",
    "LS_10": "2.23.133.5.4.1",
    "GB100": "2.23.133.5.4.1.1",
    "GB20X": "2.23.133.5.4.1.1",
}


def measured(text: str) -> bytes:
    """A measurement to stand for something."""
    return hashlib.sha384(text.encode()).digest()


FWID = measured("firmware")
OPAQUE = {
    6: bytes.fromhex("005e009601000000"),
    14: bytes.fromhex("b1030000"),
    15: b"882\0",
    16: b"0\0",
    17: b"1010\0",
    18: b"0200\0",
    19: b"\0\0",
    3: b"570.86.10\0",
    11: b"\x55",
    20: FWID,
    21: b"\xaa",
    34: b"\x01\x00",
}


class Fault(enum.StrEnum):
    """One thing wrong with evidence that is sound otherwise."""

    OTHER_ROOT = "other-root"
    ROOT_FORGED = "root-forged"
    LEAF_FORGED = "leaf-forged"
    ISSUER_MISSING = "issuer-missing"
    LEAF_ENDED = "leaf-ended"
    NO_MODEL = "no-model"
    BAD_SIGNATURE = "bad-signature"
    OTHER_KEY = "other-key"
    R_ZERO = "r-zero"
    S_IS_ORDER = "s-is-order"
    P256_LEAF = "p256-leaf"
    OTHER_NONCE = "other-nonce"
    OTHER_FWID = "other-fwid"
    NO_CERTIFIED_FWID = "no-certified-fwid"
    SPDM_1_2 = "spdm-1-2"
    ONE_MEASUREMENT = "one-measurement"
    NOT_SIGNED = "not-signed"
    BLOCKS_SWAPPED = "blocks-swapped"
    BLOCK_TWICE = "block-twice"
    NOT_DMTF = "not-dmtf"
    RECORD_LONG = "record-long"
    OPAQUE_TWICE = "opaque-twice"
    OPAQUE_CUT = "opaque-cut"
    OPAQUE_VERSION = "opaque-version"
    TRAILING_BYTE = "trailing-byte"
    PART_MISSING = "part-missing"


# Which check refuses each fault; `format` means that a part does not parse.
REFUSED_BY = dict.fromkeys(Fault, "format") | {
    Fault.OTHER_ROOT: "chain.root",
    Fault.ROOT_FORGED: "chain.path",
    Fault.LEAF_FORGED: "chain.path",
    Fault.ISSUER_MISSING: "chain.path",
    Fault.LEAF_ENDED: "chain.validity",
    Fault.NO_MODEL: "chain.model",
    Fault.BAD_SIGNATURE: "signature",
    Fault.OTHER_KEY: "signature",
    Fault.R_ZERO: "signature",
    Fault.S_IS_ORDER: "signature",
    Fault.P256_LEAF: "signature",
    Fault.OTHER_NONCE: "binding",
    Fault.OTHER_FWID: "fwid",
    Fault.NO_CERTIFIED_FWID: "fwid",
    Fault.PART_MISSING: "parts",
}


class Doubt(enum.StrEnum):
    """One thing wrong with the issuers' word on a chain that is sound otherwise."""

    REVOKED = "revoked"
    ON_HOLD = "on-hold"
    UNKNOWN = "unknown"
    ENDED = "ended"
    NOT_YET = "not-yet"
    OTHER_SERIAL = "other-serial"
    OTHER_ISSUER = "other-issuer"
    FORGED = "forged"
    BY_A_STRANGER = "by-a-stranger"
    BY_AN_UNMARKED_ONE = "by-an-unmarked-one"
    BY_ANOTHER_LEVEL = "by-another-level"
    BY_THE_DEVICE = "by-the-device"
    WITHOUT_END = "without-end"
    NOT_ANSWERED = "not-answered"
    ONE_MISSING = "one-missing"
    ONE_TOO_MANY = "one-too-many"
    SWAPPED = "swapped"


class Authority:
    """NVIDIA's part of the chain: root, product authority, provisioner."""

    def __init__(self, *, now: datetime) -> None:
        self.now = now.astimezone(UTC)
        self.names = ("Fake Device Identity CA", "Fake Identity", "Fake Provisioner ICA 1")
        self.keys = tuple(maker.new_key() for _ in self.names)
        self.certificates = tuple(
            self.issue(
                maker.Request(subject=name, key=key, begins=now - DAY, ends=FOREVER, ca=True),
                max(level - 1, 0),
            )
            for level, (name, key) in enumerate(zip(self.names, self.keys, strict=True))
        )

    @property
    def root(self) -> str:
        """The digest that a contract names in `platforms[].roots`."""
        return maker.key_digest(self.keys[0])

    def issue(self, request: maker.Request, level: int = 2) -> bytes:
        """A certificate by the authority at `level`, 0 being the root."""
        return maker.issue(request, self.names[level], self.keys[level])

    def responder(self, level: int, *, marked: bool = True) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        """A responder of the authority at `level`: its certificate and its key."""
        key = maker.new_key()
        purpose = ExtendedKeyUsageOID.OCSP_SIGNING if marked else ExtendedKeyUsageOID.CLIENT_AUTH
        request = maker.Request(
            subject=f"Fake OCSP responder {level}",
            key=key,
            begins=self.now - DAY,
            ends=FOREVER,
            extensions=(x509.ExtendedKeyUsage([purpose]),),
        )
        return self.issue(request, level), key


class FakeGpu:
    """One device. model: GH100, GB100, GB20X, LS_10, or a name of nobody's. debug: the flag that a GB100's certificate has for it."""

    def __init__(
        self, *, now: datetime, authority: Authority | None = None, model: str = "GH100", debug: bool = False
    ) -> None:
        self._debug = debug
        self._now = now.astimezone(UTC)
        self.authority = authority or Authority(now=now)
        self._model = model
        self._identity = maker.new_key()
        self._device = maker.new_key()
        self.machine = maker.key_digest(self._identity)

    @property
    def root(self) -> str:
        """The digest that a contract names in `platforms[].roots`."""
        return self.authority.root

    def evidence(
        self,
        binding: Bound,
        *,
        opaque: dict[int, bytes] | None = None,
        header: bool = False,
        blocks: int = 64,
        fault: Fault | None = None,
    ) -> Evidence:
        """A report that answers the binding's nonce. header: opaque data with NVIDIA's header."""
        nonce = bytes(32) if fault is Fault.OTHER_NONCE else binding.value("nonce")
        signed = _request(nonce, fault) + _response(
            _record(blocks, fault),
            _opaque(dict(OPAQUE if opaque is None else opaque), fault, header=header),
            fault,
        )
        leaf_key = maker.new_key(ec.SECP256R1()) if fault is Fault.P256_LEAF else self._device
        report = signed + self._sign(signed, fault)
        if fault is Fault.TRAILING_BYTE:
            report += b"\0"
        parts = {"report": report, "certificates": b"".join(self._chain(leaf_key, fault))}
        if fault is Fault.PART_MISSING:
            del parts["certificates"]
        return Evidence(tee="nvgpu", parts=parts)

    def endorsements(
        self, evidence: Evidence, *, doubt: Doubt | None = None, delegated: bool = True
    ) -> Endorsements:
        """What the issuers of that evidence's chain say of it. delegated: by responders of theirs."""
        chain = split(evidence.parts["certificates"])
        parts = {
            f"ocsp-{place}": self._answer(chain, place, doubt if place == 1 else None, delegated=delegated)
            for place in range(1, len(chain) - 1)
        }
        if doubt is Doubt.ONE_MISSING:
            del parts["ocsp-1"]
        if doubt is Doubt.ONE_TOO_MANY:
            parts[f"ocsp-{len(chain) - 1}"] = parts["ocsp-1"]
        if doubt is Doubt.SWAPPED:
            parts["ocsp-1"], parts["ocsp-2"] = parts["ocsp-2"], parts["ocsp-1"]
        return Endorsements(parts=parts)

    def _answer(
        self, chain: list[x509.Certificate], place: int, doubt: Doubt | None, *, delegated: bool
    ) -> bytes:
        if doubt is Doubt.NOT_ANSWERED:
            failed = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
            return failed.public_bytes(serialization.Encoding.DER)
        level = len(chain) - 2 - place  # of the issuer: 0 is the root
        subject, issuer = chain[place], chain[place + 1]
        if doubt is Doubt.OTHER_SERIAL:
            subject = chain[place + 1]
        if doubt is Doubt.OTHER_ISSUER:
            issuer = chain[place + 2]
        status = {
            Doubt.REVOKED: ocsp.OCSPCertStatus.REVOKED,
            Doubt.ON_HOLD: ocsp.OCSPCertStatus.REVOKED,
            Doubt.UNKNOWN: ocsp.OCSPCertStatus.UNKNOWN,
        }.get(doubt or Doubt.SWAPPED, ocsp.OCSPCertStatus.GOOD)
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        hold = (
            x509.ReasonFlags.certificate_hold if doubt is Doubt.ON_HOLD else x509.ReasonFlags.key_compromise
        )
        begins = self._now + DAY if doubt is Doubt.NOT_YET else self._now - timedelta(hours=1)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=subject,
            issuer=issuer,
            algorithm=hashes.SHA384() if delegated else hashes.SHA1(),
            cert_status=status,
            this_update=begins,
            next_update=None
            if doubt is Doubt.WITHOUT_END
            else self._now
            if doubt is Doubt.ENDED
            else begins + DAY,
            revocation_time=self._now - DAY if revoked else None,
            revocation_reason=hold if revoked else None,
        )
        responder, key = self._responder(chain, place, level, doubt, delegated=delegated)
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
        if delegated:
            builder = builder.certificates([responder])
        made = builder.sign(key, hashes.SHA384())
        der = made.public_bytes(serialization.Encoding.DER)
        if doubt is Doubt.FORGED:
            # Signatures differ in length by a byte or two; another length would be another DER.
            others = iter(lambda: key.sign(b"other", ec.ECDSA(hashes.SHA384())), b"")
            return der.replace(made.signature, next(one for one in others if len(one) == len(made.signature)))
        return der

    def _responder(
        self, chain: list[x509.Certificate], place: int, level: int, doubt: Doubt | None, *, delegated: bool
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if doubt is Doubt.BY_THE_DEVICE:
            return chain[0], self._device
        if not delegated:
            return chain[place + 1], self.authority.keys[level]
        authority = Authority(now=self._now) if doubt is Doubt.BY_A_STRANGER else self.authority
        der, key = authority.responder(
            level - 1 if doubt is Doubt.BY_ANOTHER_LEVEL else level,
            marked=doubt is not Doubt.BY_AN_UNMARKED_ONE,
        )
        return x509.load_der_x509_certificate(der), key

    def _sign(self, signed: bytes, fault: Fault | None) -> bytes:
        key = maker.new_key() if fault is Fault.OTHER_KEY else self._device
        signature = raw_signature(key, signed + b"x" if fault is Fault.BAD_SIGNATURE else signed, size=48)
        if fault is Fault.R_ZERO:
            return bytes(48) + signature[48:]
        if fault is Fault.S_IS_ORDER:
            return signature[:48] + P384_ORDER.to_bytes(48, "big")
        return signature

    @property
    def _identity_name(self) -> str:
        return f"{self._model} A01 GSP BROM"

    @functools.cached_property
    def _certified(self) -> bytes:
        """The chip's identity certificate, which it has from its maker and keeps."""
        return self.authority.issue(self._request())

    def _request(self) -> maker.Request:
        return maker.Request(
            subject=self._identity_name, key=self._identity, begins=self._now - DAY, ends=FOREVER, ca=True
        )

    def _chain(self, leaf_key: ec.EllipticCurvePrivateKey, fault: Fault | None) -> list[bytes]:
        """Leaf first, root last."""
        stranger = Authority(now=self._now) if fault is Fault.OTHER_ROOT else None
        authority = stranger or self.authority
        model = "0" if fault is Fault.NO_MODEL else self._model
        leaf = maker.Request(
            subject=f"{model} A01 GSP FMC LF",
            key=leaf_key,
            begins=self._now - DAY,
            ends=self._now - timedelta(seconds=1) if fault is Fault.LEAF_ENDED else FOREVER,
            extensions=() if fault is Fault.NO_CERTIFIED_FWID else (self._fwid(leaf_key, fault),),
        )
        signer = maker.new_key() if fault is Fault.LEAF_FORGED else self._identity
        identity = self._certified if stranger is None else stranger.issue(self._request())
        chain = [maker.issue(leaf, self._identity_name, signer), identity]
        chain.extend(reversed(authority.certificates))
        if fault is Fault.ROOT_FORGED:
            root = maker.Request(
                subject=authority.names[0],
                key=authority.keys[0],
                begins=self._now - DAY,
                ends=FOREVER,
                ca=True,
            )
            chain[-1] = maker.issue(root, authority.names[0], maker.new_key())
        if fault is Fault.ISSUER_MISSING:
            del chain[2]
        return chain

    def _fwid(self, key: ec.EllipticCurvePrivateKey, fault: Fault | None) -> x509.UnrecognizedExtension:
        """Hopper: SEQUENCE { 1, SubjectPublicKeyInfo, FWID }. Blackwell: a TcbInfo with FWIDs and flags."""
        fwid = bytes.fromhex("303d06096086480165030402020430") + measured(
            "other" if fault is Fault.OTHER_FWID else "firmware"
        )
        body = b"\x02\x01\x01" + maker.spki(key) + fwid
        if self._model.startswith("GB"):
            flags = b"\x87\x02\x04" + (b"\x90" if self._debug else b"\x80")
            body = b"\x80\x06NVIDIA\x83\x01\x01\xa6" + bytes((len(fwid),)) + fwid + flags + b"\x88\x01\xc0"
        head = b"\x30\x81" if len(body) >= 128 else b"\x30"
        return x509.UnrecognizedExtension(
            x509.ObjectIdentifier(FWID_OIDS.get(self._model, FWID_OIDS["GH100"])),
            head + bytes((len(body),)) + body,
        )


def endorsements(attached: Iterable[tuple[FakeGpu, Evidence]]) -> Endorsements:
    """Those of a room with these devices, in that order."""
    return Endorsements(
        parts={
            f"device-{place}.{name}": data
            for place, (gpu, evidence) in enumerate(attached)
            for name, data in gpu.endorsements(evidence).parts.items()
        }
    )


def split(certificates: bytes) -> list[x509.Certificate]:
    """The certificates that stand one after the other."""
    return [x509.load_der_x509_certificate(der) for der in own_x509.split(certificates)]


def _request(nonce: bytes, fault: Fault | None) -> bytes:
    version = 0x12 if fault is Fault.SPDM_1_2 else 0x11
    attributes = 0 if fault is Fault.NOT_SIGNED else 1
    operation = 1 if fault is Fault.ONE_MEASUREMENT else 0xFF
    return struct.pack("<BBBB32sB", version, 0xE0, attributes, operation, nonce, 0)


def _record(blocks: int, fault: Fault | None) -> list[bytes]:
    specification = 0 if fault is Fault.NOT_DMTF else 1
    out = [
        struct.pack("<BBHBH", index, specification, 51, 1, 48) + measured(f"measurement {index}")
        for index in range(1, blocks + 1)
    ]
    if fault is Fault.BLOCKS_SWAPPED:
        out[0], out[1] = out[1], out[0]
    if fault is Fault.BLOCK_TWICE:
        out[1] = out[0]
    return out


def _response(record: list[bytes], opaque: bytes, fault: Fault | None) -> bytes:
    body = b"".join(record) + (b"\0" if fault is Fault.RECORD_LONG else b"")
    head = struct.pack("<BBBBB", 0x11, 0x60, 0, 0, len(record)) + len(body).to_bytes(3, "little")
    return head + body + measured("responder")[:32] + len(opaque).to_bytes(2, "little") + opaque


def _opaque(fields: dict[int, bytes], fault: Fault | None, *, header: bool) -> bytes:
    if fault is Fault.OPAQUE_VERSION:
        fields[34] = b"\x02\x00"
    out = b"NVDAOD" + struct.pack("<HBB2s", 0, 1, 0, b"") if header else b""
    for number, value in fields.items():
        kind = struct.pack("<H", 0) if header else b""
        out += struct.pack("<H", number) + kind + struct.pack("<H", len(value)) + value
    if fault is Fault.OPAQUE_TWICE:
        out += struct.pack("<HH", 3, 0)
    return out[:-1] if fault is Fault.OPAQUE_CUT else out
