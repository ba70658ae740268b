"""AMD SEV-SNP in memory: a chip (or a provider) of one product line, AMD's keys above it, and AMD's list.

Everything is signed for real: the verifier accepts it given this AMD's root key, and refuses each `Fault` by the
check that `REFUSED_BY` names. RSA keys of 4096 bits are slow to make, so that all fakes of a process share two.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from strongroom.crypto import der
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from strongroom.model.binding import Bound

DAY = timedelta(days=1)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
CSP_ID = "CN=cloud.example"
CHIP_ID = hashlib.sha512(b"chip").digest()
MEASUREMENT = hashlib.sha384(b"guest").digest()
ASK_SERIAL, ARK_SERIAL = 65537, 65536

# REPORTED_TCB by line, in the report's order of bytes, and the extensions that certify each byte.
TCB = {
    "Milan": bytes([4, 0, 0, 0, 0, 0, 24, 219]),
    "Genoa": bytes([10, 0, 0, 0, 0, 0, 23, 84]),
    "Turin": bytes([1, 1, 1, 4, 0, 0, 0, 81]),
}
LAYOUT = {
    "Milan": (1, 2, 4, 5, 6, 7, 3, 8),
    "Genoa": (1, 2, 4, 5, 6, 7, 3, 8),
    "Turin": (9, 1, 2, 3, 5, 6, 7, 8),
}
CPUID = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}
PRODUCT_NAME = {"Milan": "Milan-B0", "Genoa": "Genoa", "Turin": "Turin"}
HWID_BYTES = {"Milan": 64, "Genoa": 64, "Turin": 8}

_PSS_ALGORITHM = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402020500"
    "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
)
_ARC = bytes.fromhex("2b060104019c7801")


class Fault(enum.StrEnum):
    """One thing wrong with evidence or endorsements that are sound otherwise."""

    OTHER_REPORT_DATA = "other-report-data"
    BAD_SIGNATURE = "bad-signature"
    R_ZERO = "r-zero"
    S_IS_ORDER = "s-is-order"
    R_TOO_LONG = "r-too-long"
    OTHER_ALGORITHM = "other-algorithm"
    KEY_MASKED = "key-masked"
    NO_KEY = "no-key"
    VERSION_1 = "version-1"
    VERSION_6 = "version-6"
    CPUID_IN_VERSION_2 = "cpuid-in-version-2"
    MITIGATIONS_IN_VERSION_3 = "mitigations-in-version-3"
    RESERVED_BYTE = "reserved-byte"
    RESERVED_AFTER_SIGNATURE = "reserved-after-signature"
    RESERVED_TCB_BYTE = "reserved-tcb-byte"
    RESERVED_POLICY_BIT = "reserved-policy-bit"
    POLICY_BIT_17 = "policy-bit-17"
    RESERVED_PLATFORM_BIT = "reserved-platform-bit"
    RESERVED_FLAG = "reserved-flag"
    TRAILING_BYTE = "trailing-byte"
    CUT_SHORT = "cut-short"
    UNKNOWN_CPU = "unknown-cpu"
    OTHER_CPU = "other-cpu"
    OTHER_REPORTED_TCB = "other-reported-tcb"
    CHIP_MASKED = "chip-masked"
    OTHER_CHIP = "other-chip"
    VEK_FORGED = "vek-forged"
    VEK_EXPIRED = "vek-expired"
    VEK_NOT_YET_VALID = "vek-not-yet-valid"
    VEK_OF_OTHER_KIND = "vek-of-other-kind"
    VEK_UNDER_OTHER_ISSUER = "vek-under-other-issuer"
    VEK_OF_OTHER_LINE = "vek-of-other-line"
    VEK_OF_UNKNOWN_PRODUCT = "vek-of-unknown-product"
    EXTENSION_MISSING = "extension-missing"
    EXTENSION_TWICE = "extension-twice"
    EXTENSION_CRITICAL = "extension-critical"
    EXTENSION_OF_OTHER_LINE = "extension-of-other-line"
    OTHER_ROOT = "other-root"
    ISSUER_MISSING = "issuer-missing"
    ISSUER_EXPIRED = "issuer-expired"
    ISSUER_IS_NO_CA = "issuer-is-no-ca"
    ISSUER_OF_OTHER_LINE = "issuer-of-other-line"
    ISSUER_SIGNED_WITHOUT_PSS = "issuer-signed-without-pss"
    ROOT_OF_UNKNOWN_LINE = "root-of-unknown-line"
    CRL_MISSING = "crl-missing"
    CRL_STALE = "crl-stale"
    CRL_FROM_TOMORROW = "crl-from-tomorrow"
    CRL_FORGED = "crl-forged"
    CRL_OF_ISSUER = "crl-of-issuer"
    ISSUER_REVOKED = "issuer-revoked"
    EVIDENCE_PART_ADDED = "evidence-part-added"
    ENDORSEMENT_ADDED = "endorsement-added"
    VEK_MISSING = "vek-missing"


# Which check refuses each fault; `format` means that something does not parse.
REFUSED_BY = {
    Fault.OTHER_REPORT_DATA: "binding",
    Fault.BAD_SIGNATURE: "signature",
    Fault.R_ZERO: "signature",
    Fault.S_IS_ORDER: "signature",
    Fault.OTHER_ALGORITHM: "report.signature_algo",
    Fault.KEY_MASKED: "report.signing_key",
    Fault.NO_KEY: "report.signing_key",
    Fault.UNKNOWN_CPU: "product",
    Fault.OTHER_CPU: "product",
    Fault.OTHER_REPORTED_TCB: "vek.tcb",
    Fault.CHIP_MASKED: "vek.chip",
    Fault.OTHER_CHIP: "vek.chip",
    Fault.VEK_FORGED: "chain.path",
    Fault.VEK_EXPIRED: "chain.validity",
    Fault.VEK_NOT_YET_VALID: "chain.validity",
    Fault.VEK_OF_OTHER_KIND: "chain.path",
    Fault.VEK_UNDER_OTHER_ISSUER: "chain.path",
    Fault.VEK_OF_OTHER_LINE: "product",
    Fault.VEK_OF_UNKNOWN_PRODUCT: "product",
    Fault.OTHER_ROOT: "chain.root",
    Fault.ISSUER_MISSING: "chain.path",
    Fault.ISSUER_EXPIRED: "chain.validity",
    Fault.ISSUER_IS_NO_CA: "chain.path",
    Fault.ISSUER_OF_OTHER_LINE: "chain.path",
    Fault.ISSUER_SIGNED_WITHOUT_PSS: "chain.path",
    Fault.ROOT_OF_UNKNOWN_LINE: "product",
    Fault.CRL_MISSING: "revocation",
    Fault.CRL_STALE: "revocation",
    Fault.CRL_FROM_TOMORROW: "revocation",
    Fault.CRL_FORGED: "revocation",
    Fault.CRL_OF_ISSUER: "revocation",
    Fault.ISSUER_REVOKED: "revocation",
    Fault.EVIDENCE_PART_ADDED: "parts",
    Fault.ENDORSEMENT_ADDED: "parts",
    Fault.VEK_MISSING: "parts",
}
REFUSED_BY |= {fault: "format" for fault in Fault if fault not in REFUSED_BY}


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What a report says. `policy` without its ABI version; TCBs default to the line's own."""

    version: int = 5
    guest_svn: int = 3
    policy: int = 0x30000
    vmpl: int = 0
    platform_info: int = 0x25
    measurement: bytes = MEASUREMENT
    host_data: bytes = bytes(32)
    flags: int = 0
    mitigations: tuple[int, int] = (0, 0)
    committed_tcb: bytes = b""
    launch_tcb: bytes = b""
    current_tcb: bytes = b""
    firmware: tuple[int, int, int] = field(default=(1, 55, 40))


class FakeAmd:
    """One chip of `line` with its VCEK, or with a provider's VLEK where `vlek`, at the time `now`."""

    def __init__(self, *, now: datetime, line: str = "Milan", vlek: bool = False) -> None:
        self._now = now.astimezone(UTC)
        self.line, self.vlek = line, vlek
        self._vek = ec.generate_private_key(ec.SECP384R1())
        self._kind = "SEV-VLEK" if vlek else "SEV-VCEK"
        self._issuer = f"SEV-VLEK-{line}" if vlek else f"SEV-{line}"
        self._root_name = f"ARK-{line}"
        self.tcb = TCB[line]
        self.chip_id = bytes(64) if vlek else CHIP_ID[: HWID_BYTES[line]].ljust(64, b"\0")

    @property
    def root(self) -> str:
        """The digest of the ARK's key, as contracts name it."""
        return _key_digest(_rsa_key("ark"))

    def evidence(self, binding: Bound, *, guest: Guest | None = None, fault: Fault | None = None) -> Evidence:
        """Evidence of a guest, its report data as `binding` states."""
        data = binding.value("report_data")
        if fault is Fault.OTHER_REPORT_DATA:
            data = hashlib.sha512(data).digest()
        parts = {"report": self.report(data, guest=guest or Guest(), fault=fault)}
        if fault is Fault.EVIDENCE_PART_ADDED:
            parts["other"] = b"x"
        return Evidence(tee="snp", parts=parts)

    def report(self, report_data: bytes, *, guest: Guest | None = None, fault: Fault | None = None) -> bytes:
        """The 1184 bytes of a report."""
        signed = bytearray(self._fields(report_data, guest or Guest(), fault))
        _spoil_fields(signed, fault)
        message = bytes(signed) + b"x" if fault is Fault.BAD_SIGNATURE else bytes(signed)
        r, s = decode_dss_signature(self._vek.sign(message, ec.ECDSA(hashes.SHA384())))
        r = 0 if fault is Fault.R_ZERO else r
        s = ORDER if fault is Fault.S_IS_ORDER else s
        if fault is Fault.R_TOO_LONG:
            r += 1 << 384
        signature = (r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(512, b"\0")
        if fault is Fault.RESERVED_AFTER_SIGNATURE:
            signature = signature[:-1] + b"\1"
        whole = bytes(signed) + signature
        if fault is Fault.TRAILING_BYTE:
            whole += b"\0"
        return whole[:-1] if fault is Fault.CUT_SHORT else whole

    def _fields(self, report_data: bytes, guest: Guest, fault: Fault | None) -> bytes:
        versions: dict[Fault | None, int] = {
            Fault.VERSION_1: 1,
            Fault.VERSION_6: 6,
            Fault.CPUID_IN_VERSION_2: 2,
        }
        version = versions.get(fault, guest.version)
        mitigations = guest.mitigations
        if fault is Fault.MITIGATIONS_IN_VERSION_3:
            version, mitigations = 3, (1, 1)
        family, model, stepping = CPUID[self.line]
        if version == 2 and fault is not Fault.CPUID_IN_VERSION_2:
            family = model = stepping = 0
        if fault is Fault.UNKNOWN_CPU:
            family = 0x1B
        if fault is Fault.OTHER_CPU:
            family, model, _ = CPUID["Genoa" if self.line == "Milan" else "Milan"]
        flags = guest.flags | (4 if self.vlek else 0)
        reported = self.tcb
        if fault is Fault.OTHER_REPORTED_TCB:
            reported = reported[:-1] + bytes([reported[-1] + 1])
        chip = self.chip_id
        if fault is Fault.CHIP_MASKED:
            chip = bytes(64)
        if fault is Fault.OTHER_CHIP:
            chip = hashlib.sha512(chip).digest()
        major, minor, build = guest.firmware
        firmware = bytes([build, minor, major, 0])
        return b"".join(
            (
                struct.pack("<IIQ", version, guest.guest_svn, guest.policy),
                bytes(32),
                struct.pack("<II", guest.vmpl, 1),
                guest.current_tcb or self.tcb,
                struct.pack("<QII", guest.platform_info, flags, 0),
                report_data,
                guest.measurement,
                guest.host_data,
                bytes(96),
                hashlib.sha256(b"report").digest(),
                b"\xff" * 32,
                reported,
                bytes([family, model, stepping]).ljust(24, b"\0"),
                chip,
                guest.committed_tcb or self.tcb,
                firmware + firmware,
                guest.launch_tcb or self.tcb,
                struct.pack("<QQ", *mitigations),
            )
        ).ljust(0x2A0, b"\0")

    def endorsements(self, *, fault: Fault | None = None) -> Endorsements:
        """The VEK certificate, ASK (or ASVK) and ARK, and the ARK's list."""
        parts = {"vek": self._certificate(fault), "issuers": self._issuers(fault), "crl": self.crl(fault)}
        if fault is Fault.CRL_MISSING:
            del parts["crl"]
        if fault is Fault.VEK_MISSING:
            del parts["vek"]
        if fault is Fault.ENDORSEMENT_ADDED:
            parts["other"] = b"x"
        return Endorsements(parts=parts)

    def _certificate(self, fault: Fault | None) -> bytes:
        kind, issuer = self._kind, self._issuer
        begins, ends = self._now - 30 * DAY, self._now + 2000 * DAY
        extensions = self._extensions(fault)
        if fault is Fault.VEK_OF_OTHER_KIND:
            kind = "SEV-VCEK" if self.vlek else "SEV-VLEK"
            extensions[-1:] = (
                [_extension("5", b"\x16\x02CN")] if kind == "SEV-VLEK" else [_extension("4", bytes(64))]
            )
        if fault is Fault.VEK_UNDER_OTHER_ISSUER:
            issuer = f"SEV-{self.line}" if self.vlek else f"SEV-VLEK-{self.line}"
        if fault is Fault.VEK_EXPIRED:
            begins, ends = self._now - 9 * DAY, self._now - DAY
        if fault is Fault.VEK_NOT_YET_VALID:
            begins = self._now + DAY
        signer = _rsa_key("ark" if fault is Fault.VEK_FORGED else "ask")
        body = der.wrap(
            der.SEQUENCE,
            der.wrap(der.CONTEXT | der.CONSTRUCTED, b"\x02\x01\x02"),
            b"\x02\x01\x00",  # serial 0, as AMD's are
            _PSS_ALGORITHM,
            _name(issuer).public_bytes(),
            der.wrap(der.SEQUENCE, _time(begins), _time(ends)),
            _name(kind).public_bytes(),
            self._vek.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            der.wrap(der.CONTEXT | der.CONSTRUCTED | 3, der.wrap(der.SEQUENCE, *extensions)),
        )
        signature = signer.sign(body, PSS, hashes.SHA384())
        return der.wrap(der.SEQUENCE, body, _PSS_ALGORITHM, der.wrap(der.BIT_STRING, b"\0" + signature))

    def _extensions(self, fault: Fault | None) -> list[bytes]:
        product = PRODUCT_NAME[self.line]
        if fault is Fault.VEK_OF_OTHER_LINE:
            product = "Genoa" if self.line == "Milan" else "Milan"
        if fault is Fault.VEK_OF_UNKNOWN_PRODUCT:
            product = "Venice"
        out = [
            _extension("1", _integer(1 if self.line == "Turin" else 0)),
            _extension("2", b"\x16" + bytes([len(product)]) + product.encode()),
        ]
        for place, value in zip(LAYOUT[self.line], self.tcb, strict=True):
            out.append(_extension(f"3.{place}", _integer(value), critical=fault is Fault.EXTENSION_CRITICAL))
        if fault is Fault.EXTENSION_MISSING:
            out.pop()
        if fault is Fault.EXTENSION_TWICE:
            out.append(out[-1])
        if fault is Fault.EXTENSION_OF_OTHER_LINE:
            out.append(_extension("3.4" if self.line == "Turin" else "3.9", _integer(1)))
        if self.vlek:
            out.append(_extension("5", b"\x16" + bytes([len(CSP_ID)]) + CSP_ID.encode()))
        else:
            out.append(_extension("4", CHIP_ID[: HWID_BYTES[self.line]]))
        return out

    def _issuers(self, fault: Fault | None) -> bytes:
        ark, ask = _rsa_key("ark"), _rsa_key("ask")
        root_name, issuer = self._root_name, self._issuer
        if fault is Fault.OTHER_ROOT:
            ark = ask
        if fault is Fault.ROOT_OF_UNKNOWN_LINE:
            root_name = "ARK-Venice"
        if fault is Fault.ISSUER_OF_OTHER_LINE:
            root_name = "ARK-Genoa" if self.line == "Milan" else "ARK-Milan"
        ends = self._now + 3000 * DAY
        middle = self._authority(
            issuer,
            ask,
            root_name,
            ark,
            serial=ASK_SERIAL,
            ends=self._now - DAY if fault is Fault.ISSUER_EXPIRED else ends,
            ca=fault is not Fault.ISSUER_IS_NO_CA,
            pss=fault is not Fault.ISSUER_SIGNED_WITHOUT_PSS,
        )
        root = self._authority(root_name, ark, root_name, ark, serial=ARK_SERIAL, ends=ends)
        return root if fault is Fault.ISSUER_MISSING else middle + root

    def _authority(
        self,
        name: str,
        key: rsa.RSAPrivateKey,
        issuer: str,
        signer: rsa.RSAPrivateKey,
        *,
        serial: int,
        ends: datetime,
        ca: bool = True,
        pss: bool = True,
    ) -> bytes:
        root = name == issuer
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(self._now - 1000 * DAY)
            .not_valid_after(ends)
            .add_extension(
                x509.BasicConstraints(ca=ca, path_length=None if root or not ca else 0), critical=True
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=root,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(signer, hashes.SHA384(), rsa_padding=PSS if pss else None)
            .public_bytes(serialization.Encoding.DER)
        )

    def crl(self, fault: Fault | None = None) -> bytes:
        """The ARK's revocation list, with nothing on it unless `fault` says so."""
        begins, ends = self._now - DAY, self._now + 300 * DAY
        name, signer, named = self._root_name, _rsa_key("ark"), _rsa_key("ark")
        if fault is Fault.CRL_STALE:
            begins, ends = self._now - 300 * DAY, self._now - timedelta(seconds=1)
        if fault is Fault.CRL_FROM_TOMORROW:
            begins = self._now + DAY
        if fault is Fault.CRL_FORGED:
            signer = _rsa_key("ask")
        if fault is Fault.CRL_OF_ISSUER:
            name, signer, named = self._issuer, _rsa_key("ask"), _rsa_key("ask")
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(name))
            .last_update(begins)
            .next_update(ends)
            .add_extension(x509.CRLNumber(3), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(named.public_key()), critical=False
            )
        )
        if fault is Fault.ISSUER_REVOKED:
            revoked = (
                x509.RevokedCertificateBuilder().serial_number(ASK_SERIAL).revocation_date(begins).build()
            )
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(signer, hashes.SHA384(), rsa_padding=PSS).public_bytes(serialization.Encoding.DER)


def _spoil_fields(signed: bytearray, fault: Fault | None) -> None:
    """Flip one bit of the signed part, where a fault asks for it."""
    places = {
        Fault.OTHER_ALGORITHM: (0x34, 0x02),
        Fault.KEY_MASKED: (0x48, 0x02),
        Fault.NO_KEY: (0x48, 0x18),
        Fault.RESERVED_BYTE: (0x29F, 0x01),
        Fault.RESERVED_TCB_BYTE: (0x1F0 + 4, 0x01),
        Fault.RESERVED_POLICY_BIT: (0x08 + 4, 0x01),
        Fault.POLICY_BIT_17: (0x08 + 2, 0x02),
        Fault.RESERVED_PLATFORM_BIT: (0x40 + 1, 0x01),
        Fault.RESERVED_FLAG: (0x48, 0x20),
    }
    if fault in places:
        offset, bits = places[fault]
        signed[offset] ^= bits


@functools.lru_cache(maxsize=2)
def _rsa_key(_name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=4096)


def _key_digest(key: rsa.RSAPrivateKey) -> str:
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def _name(common: str) -> x509.Name:
    """As AMD writes names: the common name last, hence first in text."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Fake Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _time(when: datetime) -> bytes:
    return der.wrap(0x17, f"{when:%y%m%d%H%M%SZ}".encode())


def _integer(value: int) -> bytes:
    return der.wrap(der.INTEGER, value.to_bytes(1 if value < 0x80 else 2, "big"))


def _extension(name: str, value: bytes, *, critical: bool = False) -> bytes:
    oid = der.wrap(der.OBJECT_IDENTIFIER, _ARC + bytes(int(number) for number in name.split(".")))
    return der.wrap(
        der.SEQUENCE, oid, b"\x01\x01\xff" if critical else b"", der.wrap(der.OCTET_STRING, value)
    )
