"""Evidence as it stands, by its first bytes and its size: one table, in which each kind has its least and its most.

A few letters of magic are in many a file; a piece is of a kind only where it may be a whole one, so that no short text
hides the evidence beside it. Nothing is verified, and damage within is no reason not to recognise: `evidence show`
tells of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from strongroom.evidence import cca, nitro
from strongroom.evidence.formats import azure_hcl, dcap_quote, nvgpu_spdm, tpm_quote
from strongroom.evidence.wrappings import trees
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    Kind = tuple[str, str, str, int, int, Callable[[bytes], bytes | None]]

_SNP_REPORT = 1184
_SNP_VERSIONS = range(2, 6)
_SNP_ANSWER = 32  # the head of MSG_REPORT_RSP: status, size, zeros
_MAX_ANSWER = 8192
_DCAP_HEAD = struct.Struct("<HHI4s16s")
_QE_INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_DCAP_SIGNED = 4 + 64 + 64  # bytes: the size of what follows, a signature and a key
# Header and body, by version of the quote and kind of TEE: Intel SGX and TDX DCAP Quoting Library API, appendix A.
_DCAP = {
    (3, 0): 48 + 384,
    (4, 0): 48 + 384,
    (5, 0): 48 + 6 + 384,
    (4, 0x81): 48 + 584,
    (5, 0x81): 48 + 6 + 584,
}
_TEES = {0: "sgx", 0x81: "tdx"}
# Least sizes of what has no fixed one. A Nitro document and a CCA token carry two or more signatures, certificates or
# keys; a TPM's quote has at least one bank of PCRs and their digest.
_LEAST_NITRO, _LEAST_CCA, _LEAST_TPM = 512, 256, 79
_LEAST_SPDM = 37 + 8 + 32 + 2 + 96
_CCA_HEAD = b"\xd9\x01\x8f"
_CCA_PLATFORM, _CCA_REALM = b"\x19\xac\xca", b"\x19\xac\xd1"


def recognise(data: bytes) -> tuple[str, Evidence, str] | None:
    """Kind, evidence, and what was taken off behind it (""), of the first kind in the table that `data` is."""
    for kind, tee, part, least, most, matches in KINDS:
        if least <= len(data):
            content = matches(data)
            if content is not None and len(content) <= most:
                room = len(data) - len(content) if part == "quote" and tee != "tpm" else 0
                remark = f"a buffer with {room} zero bytes left after it" if room else ""
                return kind, Evidence(tee=tee, parts={part: content}), remark
    return None


def _snp(data: bytes) -> bytes | None:
    return data if len(data) == _SNP_REPORT and _is_snp(data) else None


def _snp_answer(data: bytes) -> bytes | None:
    """The guest driver's answer: status 0, the size of a report, then the report, perhaps with room left after it."""
    if len(data) > _MAX_ANSWER:
        return None
    status, size = struct.unpack_from("<II", data)
    report = data[_SNP_ANSWER : _SNP_ANSWER + _SNP_REPORT]
    zeros = data[8:_SNP_ANSWER] + data[_SNP_ANSWER + _SNP_REPORT :]
    return report if status == 0 and size == _SNP_REPORT and not any(zeros) and _is_snp(report) else None


def _is_snp(data: bytes) -> bool:
    return int.from_bytes(data[:4], "little") in _SNP_VERSIONS and data[0x34:0x38] == b"\x01\0\0\0"


def _hcl(data: bytes) -> bytes | None:
    return data if data.startswith(b"HCLA") else None


def _nitro(data: bytes) -> bytes | None:
    return data if data[:1] in (b"\x84", b"\xd2") and b"module_id" in data[:512] else None


def _cca(data: bytes) -> bytes | None:
    is_token = data.startswith(_CCA_HEAD) and _CCA_PLATFORM in data and _CCA_REALM in data
    return data if is_token else None


def _spdm(data: bytes) -> bytes | None:
    """A GET_MEASUREMENTS request of SPDM 1.1, 37 bytes, and its response."""
    return data if data[:2] == b"\x11\xe0" and data[37:39] == b"\x11\x60" else None


def _tpm(data: bytes) -> bytes | None:
    return data if data.startswith(b"\xff\x54\x43\x47\x80\x18") else None


def _dcap(version: int, tee_type: int) -> Callable[[bytes], bytes | None]:
    """A quote of that version and TEE, out of the buffer that it stands in."""

    def _matches(data: bytes) -> bytes | None:
        head_version, _, kind, _, vendor = _DCAP_HEAD.unpack_from(data)
        return (
            trees.without_room(data)
            if (head_version, kind, vendor) == (version, tee_type, _QE_INTEL)
            else None
        )

    return _matches


KINDS: tuple[Kind, ...] = (
    ("SNP report", "snp", "report", _SNP_REPORT, _SNP_REPORT, _snp),
    (
        "SNP report in the driver's answer",
        "snp",
        "report",
        _SNP_ANSWER + _SNP_REPORT,
        _SNP_REPORT,
        _snp_answer,
    ),
    ("HCL report of an Azure VM", "azure", "hcl-report", azure_hcl.MIN_BYTES, azure_hcl.MAX_BYTES, _hcl),
    ("Nitro attestation document", "nitro", "document", _LEAST_NITRO, nitro.MAX_DOCUMENT, _nitro),
    ("CCA token", "cca", "token", _LEAST_CCA, cca.MAX_TOKEN, _cca),
    (
        "SPDM measurements of an NVIDIA device",
        "nvgpu",
        "report",
        _LEAST_SPDM,
        nvgpu_spdm.MAX_REPORT,
        _spdm,
    ),
    ("TPM quote", "tpm", "quote", _LEAST_TPM, tpm_quote.MAX_QUOTE, _tpm),
    *(
        (
            f"{_TEES[tee_type].upper()} quote, version {version}",
            _TEES[tee_type],
            "quote",
            size + _DCAP_SIGNED,
            dcap_quote.MAX_QUOTE,
            _dcap(version, tee_type),
        )
        for (version, tee_type), size in _DCAP.items()
    ),
)
