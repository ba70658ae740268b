"""An Azure confidential VM in memory, over a fake AMD or a fake Intel: paravisor, HCL report and virtual TPM.

Everything is signed for real: the verifier accepts it given the fake vendor's root, and refuses each `Fault` by the
check that `REFUSED_BY` names. What the hardware's own report may have wrong is the vendor's fake's to make.
"""

from __future__ import annotations

import base64
import enum
import functools
import hashlib
import json
import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom.model.binding import Preset
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors.fake_amd import FakeAmd, Guest
from strongroom_testing.vendors.fake_intel import FakeIntel

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements

UNIQUE_ID = "0B5E5C0F-6C0C-4C55-9A3B-3A8C2F6F5E11"
USER_DATA = hashlib.sha512(b"guest").digest()
SETTINGS = {"console-enabled": True, "secure-boot": True, "tpm-enabled": True, "vmUniqueId": UNIQUE_ID}
ZERO = bytes(32)


class Fault(enum.StrEnum):
    """One thing wrong with evidence that is sound otherwise."""

    OTHER_NONCE = "other-nonce"
    OTHER_RUNTIME_DATA = "other-runtime-data"
    AK_SWAPPED = "ak-swapped"
    QUOTE_OF_OTHER_TPM = "quote-of-other-tpm"
    BAD_SIGNATURE = "bad-signature"
    PCR_VALUE = "pcr-value"
    PCR_MISSING = "pcr-missing"
    BOOT_PCRS_UNQUOTED = "boot-pcrs-unquoted"
    MAGIC_MISSING = "magic-missing"
    TWO_AKS = "two-aks"
    NO_AK = "no-ak"
    SMALL_AK = "small-ak"
    OTHER_EXPONENT = "other-exponent"
    DUPLICATE_KEY = "duplicate-key"
    NOT_JSON = "not-json"
    NO_HCLA = "no-hcla"
    HCL_VERSION_3 = "hcl-version-3"
    HCL_STATUS = "hcl-status"
    HCL_LENGTH = "hcl-length"
    HCL_TYPE = "hcl-type"
    HCL_HASH_TYPE = "hcl-hash-type"
    HCL_TRAILING = "hcl-trailing"
    REPORT_DATA_TAIL = "report-data-tail"
    REPORT_OF_OTHER_VM = "report-of-other-vm"
    OTHER_KIND = "other-kind"
    PART_ADDED = "part-added"
    PART_MISSING = "part-missing"


# Which check refuses each fault; `format` means that something does not parse.
REFUSED_BY = {
    Fault.OTHER_NONCE: "binding",
    Fault.OTHER_RUNTIME_DATA: "hcl",
    Fault.AK_SWAPPED: "hcl",
    Fault.QUOTE_OF_OTHER_TPM: "signature",
    Fault.BAD_SIGNATURE: "signature",
    Fault.PCR_VALUE: "pcr-values",
    Fault.BOOT_PCRS_UNQUOTED: "quote",
    Fault.REPORT_DATA_TAIL: "hcl",
    Fault.REPORT_OF_OTHER_VM: "hcl",
    Fault.OTHER_KIND: "parts",
    Fault.PART_ADDED: "parts",
    Fault.PART_MISSING: "parts",
}
REFUSED_BY |= {fault: "format" for fault in Fault if fault not in REFUSED_BY}


class FakeAzure:
    """One VM, over `hardware`. contract: what its PCR 12 is extended with, once and first. ak: names its TPM's key."""

    def __init__(
        self, *, hardware: FakeAmd | FakeIntel, contract: bytes | None = None, ak: str = "ak"
    ) -> None:
        self.hardware = hardware
        self._ak = _rsa_key(ak)
        self._pcrs = {index: hashlib.sha256(f"pcr {index}".encode()).digest() for index in range(8)}
        self._pcrs |= dict.fromkeys((*range(8, 17), 23), ZERO)
        self._pcrs |= dict.fromkeys(range(17, 23), b"\xff" * 32)
        if contract is not None:
            self._pcrs[12] = hashlib.sha256(ZERO + contract).digest()

    @classmethod
    def over(cls, kind: str, *, now: datetime, contract: bytes | None = None) -> FakeAzure:
        """A VM over `snp` or `tdx`."""
        return cls(hardware=FakeAmd(now=now) if kind == "snp" else FakeIntel(now=now), contract=contract)

    @property
    def root(self) -> str:
        """The vendor's root, as contracts name it."""
        return self.hardware.root if isinstance(self.hardware, FakeAmd) else self.hardware.root_digest

    @property
    def pcrs(self) -> dict[int, bytes]:
        """The values that are quoted."""
        return dict(self._pcrs)

    def endorsements(self) -> Endorsements:
        """The vendor's."""
        return self.hardware.endorsements()

    def evidence(
        self, binding: Bound, *, fault: Fault | None = None, guest: Guest | None = None, hash_type: int = 1
    ) -> Evidence:
        """Evidence bound to `binding` by the quote's extra data. hash_type: 1, 2 or 3, as HCL reports number them."""
        runtime = self._runtime(fault)
        name = {1: "sha256", 2: "sha384", 3: "sha512"}[hash_type]
        data = hashlib.new(name, runtime).digest().ljust(64, b"\0")
        if fault is Fault.REPORT_DATA_TAIL:
            data = data[:-1] + b"\1"
        if fault is Fault.REPORT_OF_OTHER_VM:
            data = hashlib.sha512(b"other").digest()
        parts = {"hcl-report": b""}
        if isinstance(self.hardware, FakeAmd):
            report, kind = self.hardware.report(data, guest=guest), 2
        else:
            quoted = self.hardware.evidence(Preset(values={"report_data": data}))
            parts["td-quote"] = quoted.parts["quote"]
            report, kind = (bytes(128) + data).ljust(1024, b"\0").ljust(1184, b"\0"), 4
        if fault is Fault.OTHER_KIND:
            parts = {"hcl-report": b""} if kind == 4 else {"hcl-report": b"", "td-quote": b"x"}
        if fault is Fault.OTHER_RUNTIME_DATA:
            runtime = runtime.replace(b'"secure-boot":true', b'"secure-boot":false')
        if fault is Fault.AK_SWAPPED:
            runtime = runtime.replace(_number(self._ak), _number(_rsa_key("other")))
        parts["hcl-report"] = _hcl(report, runtime, kind, hash_type, fault)
        parts["quote"] = self._quote(binding, fault)
        parts["signature"] = self._sign(parts["quote"], fault)
        values = b"".join(self._quoted(fault).values())
        if fault is Fault.PCR_VALUE:
            values = values[:-1] + bytes([values[-1] ^ 1])
        parts["pcrs"] = values[:-32] if fault is Fault.PCR_MISSING else values
        if fault is Fault.PART_ADDED:
            parts["other"] = b"x"
        if fault is Fault.PART_MISSING:
            del parts["signature"]
        return Evidence(tee="azure", parts=parts)

    def hcl_report(self, modulus: bytes, *, guest: Guest | None = None) -> bytes:
        """The HCL report of a VM over SEV-SNP whose TPM is real: `modulus` is that of its RSA attestation key.

        It names that key alone and has no zeros after it, since a software TPM's NV index holds 2048 bytes at most.
        """
        if not isinstance(self.hardware, FakeAmd):
            raise TypeError("over SEV-SNP")
        number = base64.urlsafe_b64encode(modulus).rstrip(b"=").decode()
        ak = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": number}
        runtime = json.dumps({"keys": [ak], "vm-configuration": SETTINGS}, separators=(",", ":")).encode()
        data = hashlib.sha256(runtime).digest().ljust(64, b"\0")
        return _hcl(self.hardware.report(data, guest=guest), runtime, 2, 1, None).rstrip(b"\0")

    def _runtime(self, fault: Fault | None) -> bytes:
        key = _rsa_key("small") if fault is Fault.SMALL_AK else self._ak
        ak = {
            "kid": "HCLAkPub",
            "key_ops": ["sign"],
            "kty": "RSA",
            "e": "AQAD" if fault is Fault.OTHER_EXPONENT else "AQAB",
            "n": _number(key).decode(),
        }
        keys = [ak, {**ak, "kid": "HCLEkPub", "key_ops": ["encrypt"]}]
        if fault is Fault.TWO_AKS:
            keys.append(ak)
        if fault is Fault.NO_AK:
            keys = keys[1:]
        runtime = {"keys": keys, "vm-configuration": SETTINGS, "user-data": USER_DATA.hex().upper()}
        text = json.dumps(runtime, separators=(",", ":")).encode()
        if fault is Fault.DUPLICATE_KEY:
            text = text[:-1] + b',"keys":[]}'
        return text[:-1] if fault is Fault.NOT_JSON else text

    def _quoted(self, fault: Fault | None) -> dict[int, bytes]:
        quoted = sorted(self._pcrs.items())
        return dict(quoted[7:] if fault is Fault.BOOT_PCRS_UNQUOTED else quoted)

    def _quote(self, binding: Bound, fault: Fault | None) -> bytes:
        extra = binding.value("extra_data")
        if fault is Fault.OTHER_NONCE:
            extra = hashlib.sha256(extra).digest()
        pcrs = self._quoted(fault)
        selection = sum(1 << index for index in pcrs).to_bytes(3, "little")
        values = hashlib.sha256(b"".join(pcrs.values())).digest()
        return b"".join(
            (
                b"\xff\x54\x43\x46" if fault is Fault.MAGIC_MISSING else b"\xff\x54\x43\x47",
                struct.pack(">HH", 0x8018, 34) + b"\x00\x0b" + bytes(32),
                struct.pack(">H", len(extra)) + extra,
                struct.pack(">QIIBQ", 5000, 1, 0, 1, 0x2020031200120003),
                struct.pack(">IHB", 1, 0x000B, 3) + selection,
                struct.pack(">H", len(values)) + values,
            )
        )

    def _sign(self, quote: bytes, fault: Fault | None) -> bytes:
        key = _rsa_key("other") if fault is Fault.QUOTE_OF_OTHER_TPM else self._ak
        message = quote + b"x" if fault is Fault.BAD_SIGNATURE else quote
        signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return struct.pack(">HHH", 0x0014, 0x000B, len(signature)) + signature


def _hcl(report: bytes, runtime: bytes, kind: int, hash_type: int, fault: Fault | None) -> bytes:
    version = 3 if fault is Fault.HCL_VERSION_3 else kind // 2
    if fault is Fault.HCL_TYPE:
        kind = 1
    if fault is Fault.HCL_HASH_TYPE:
        hash_type = 4
    size = 32 + 1184 + 20 + len(runtime)
    magic = b"HCLB" if fault is Fault.NO_HCLA else b"HCLA"
    whole = b"".join(
        (
            struct.pack("<4sIIII12x", magic, version, size, 2, fault is Fault.HCL_STATUS),
            report,
            struct.pack(
                "<IIIII",
                20 + len(runtime),
                1,
                kind,
                hash_type,
                len(runtime) + (fault is Fault.HCL_LENGTH),
            ),
            runtime,
        )
    ).ljust(2600, b"\0")
    return whole[:-1] + b"\1" if fault is Fault.HCL_TRAILING else whole


@functools.lru_cache(maxsize=8)
def _rsa_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=1024 if name == "small" else 2048)


def _number(key: rsa.RSAPrivateKey) -> bytes:
    number = key.public_key().public_numbers().n
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=")
