"""Intel DCAP quotes, the format: header, report body, signature, and what certifies the attestation key.

Specs: Intel SGX ECDSA Quote Library API 1.22, appendix A.4 (quote version 3); Intel TDX DCAP Quoting Library API,
appendix A.3 (versions 4 and 5); Intel SDM volume 3D, chapter "SGX data structures" (REPORT); Intel TDX
Module 1.5 ABI specification, TDREPORT_STRUCT (TD reports 1.0 and 1.5).

    version 3, 4   header ‖ body ‖ size ‖ signature data           body: an SGX report or a TD report 1.0, by TEE type
    version 5      header ‖ type ‖ size ‖ body ‖ size ‖ signature data
    version 3      signature data = signature ‖ attestation key ‖ QE report ‖ its signature ‖ QE authentication data ‖
                   certification data
    version 4, 5   signature data = signature ‖ attestation key ‖ certification data of type 6 around those last four

Everything is little-endian and has one length: what is left over after a quote is refused, and so is padding.
Only `Malformed` is raised. Nothing here is verified.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_QUOTE = 64 * 1024
TEE_SGX = 0x00000000
TEE_TDX = 0x00000081
BODY_SGX, BODY_TD10, BODY_TD15 = 1, 2, 3
QE_VENDOR_INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
ECDSA_P256 = 2
# Certification data: a chain of PCK certificates in PEM, and a QE report with certification data of its own.
PCK_CHAIN = 5
QE_REPORT = 6
# Names the platform by encrypted PPID (two ciphers) or in plain; its PCK certificate has to come with the endorsements.
PLATFORM_NAMED = {1: 34, 2: 276, 3: 404}

_HEADER = struct.Struct("<HHIHH16s20s")
_V5_BODY = struct.Struct("<HI")
_SIZE = struct.Struct("<I")
_U16 = struct.Struct("<H")
_TYPED = struct.Struct("<HI")
_SIGNATURE = 64
_KEY = 64
_REPORT = struct.Struct("<16s4s12s16s16s32s32s32s32s64sHHH42s16s64s")
_TD10 = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD15_MORE = struct.Struct("<16s48s")
BODY_SIZES = {
    BODY_SGX: _REPORT.size,
    BODY_TD10: _TD10.size,
    BODY_TD15: _TD10.size + _TD15_MORE.size,
}
_ZERO = {size: bytes(size) for size in (12, 32, 42)}


@dataclass(frozen=True, slots=True)
class SgxReport:
    """An SGX REPORT body. Byte strings are as they stand in memory."""

    cpu_svn: bytes
    misc_select: bytes
    isv_ext_prod_id: bytes
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes


@dataclass(frozen=True, slots=True)
class TdReport:
    """A TD report. The last two are of version 1.5, None in version 1.0."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None


@dataclass(frozen=True, slots=True)
class DcapQuote:
    """A quote taken apart. signed: header and body, which `signature` (r ‖ s) is over.

    certified: everything from the attestation key to the end, which changes with the platform's quoting enclave
    and its certificates, not with the quote; `certification` takes it apart.
    """

    version: int
    tee_type: int
    body_type: int
    qe_svn: int
    pce_svn: int
    user_data: bytes
    body: bytes
    signed: bytes
    signature: bytes
    certified: bytes


@dataclass(frozen=True, slots=True)
class Certification:
    """What vouches for the attestation key. `qe_report` is the raw report, which `qe_signature` (r ‖ s) is over.

    kind: `PCK_CHAIN`, and then `data` is PEM; or one of `PLATFORM_NAMED`.
    """

    attestation_key: bytes
    qe_report: bytes
    qe_signature: bytes
    authentication_data: bytes
    kind: int
    data: bytes


def parse(data: bytes) -> DcapQuote:
    """Take a quote apart, down to its signature data. Raises `Malformed`."""
    if not _HEADER.size < len(data) <= MAX_QUOTE:
        raise Malformed(
            f"quote: {len(data)} bytes, expected {_HEADER.size + 1} to {MAX_QUOTE}", code="too-large"
        )
    version, key_type, tee_type, qe_svn, pce_svn, vendor, user_data = _HEADER.unpack_from(data)
    if key_type != ECDSA_P256:
        raise Malformed(f"quote: attestation key type {key_type}, expected {ECDSA_P256} (ECDSA P-256)")
    if vendor != QE_VENDOR_INTEL:
        raise Malformed(f"quote: QE vendor {vendor.hex()}, expected Intel's {QE_VENDOR_INTEL.hex()}")
    start, body_type = _body(data, version, tee_type)
    end = start + BODY_SIZES[body_type]
    if len(data) < end + _SIZE.size + _SIGNATURE:
        raise Malformed("quote: cut short", code="truncated")
    (size,) = _SIZE.unpack_from(data, end)
    at = end + _SIZE.size
    if size != len(data) - at:
        raise Malformed(
            f"quote: {size} bytes of signature data announced, {len(data) - at} there",
            code="truncated" if size > len(data) - at else "trailing-bytes",
        )
    return DcapQuote(
        version,
        tee_type,
        body_type,
        qe_svn,
        pce_svn,
        user_data,
        data[start:end],
        data[:end],
        data[at : at + _SIGNATURE],
        data[at + _SIGNATURE :],
    )


def _body(data: bytes, version: int, tee_type: int) -> tuple[int, int]:
    """Where the body begins, and its type."""
    if version == 3:
        if tee_type != TEE_SGX:
            raise Malformed(f"quote: version 3 with {tee_type:#x} where reserved bytes are zero")
        return _HEADER.size, BODY_SGX
    by_tee = {TEE_SGX: (BODY_SGX,), TEE_TDX: (BODY_TD10, BODY_TD15)}.get(tee_type)
    if by_tee is None:
        raise Malformed(f"quote: TEE type {tee_type:#x}, expected SGX (0x0) or TDX (0x81)")
    if version == 4:
        return _HEADER.size, by_tee[0]
    if version != 5:
        raise Malformed(f"quote: version {version}, expected 3, 4 or 5", code="unknown-version")
    if len(data) < _HEADER.size + _V5_BODY.size:
        raise Malformed("quote: cut short", code="truncated")
    kind, size = _V5_BODY.unpack_from(data, _HEADER.size)
    if kind not in by_tee:
        raise Malformed(f"quote: body type {kind} does not belong to TEE type {tee_type:#x}")
    if size != BODY_SIZES[kind]:
        raise Malformed(f"quote: body type {kind} of {size} bytes, expected {BODY_SIZES[kind]}")
    return _HEADER.size + _V5_BODY.size, kind


def certification(version: int, data: bytes) -> Certification:
    """Take apart what follows the quote's signature. Raises `Malformed`."""
    key, at = data[:_KEY], _KEY
    if version >= 4:
        kind, size = _unpack(_TYPED, data, at)
        at += _TYPED.size
        if kind != QE_REPORT:
            raise Malformed(f"quote: certification data of type {kind}, expected {QE_REPORT} (QE report)")
        if size != len(data) - at:
            raise Malformed(
                f"quote: {size} bytes of certification data with the QE report announced, {len(data) - at} there"
            )
    report = data[at : at + _REPORT.size]
    at += _REPORT.size
    signature = data[at : at + _SIGNATURE]
    at += _SIGNATURE
    (size,) = _unpack(_U16, data, at)
    at += _U16.size
    authentication = data[at : at + size]
    at += size
    kind, size = _unpack(_TYPED, data, at)
    at += _TYPED.size
    if kind not in {PCK_CHAIN, *PLATFORM_NAMED}:
        raise Malformed(f"quote: certification data of type {kind}, expected 1 to 3 or {PCK_CHAIN}")
    if size != len(data) - at or PLATFORM_NAMED.get(kind, size) != size:
        raise Malformed(
            f"quote: {size} bytes of certification data of type {kind} announced, {len(data) - at} there"
        )
    return Certification(key, report, signature, authentication, kind, data[at:])


def _unpack(layout: struct.Struct, data: bytes, at: int) -> tuple[int, ...]:
    if len(data) < at + layout.size:
        raise Malformed("quote: cut short", code="truncated")
    return layout.unpack_from(data, at)


def sgx_report(body: bytes) -> SgxReport:
    """An SGX report, whose reserved bytes must be zero. Raises `Malformed`."""
    if len(body) != _REPORT.size:
        raise Malformed(f"SGX report: {len(body)} bytes, expected {_REPORT.size}")
    (
        cpu,
        misc,
        r1,
        ext,
        attributes,
        enclave,
        r2,
        signer,
        r3,
        config,
        product,
        svn,
        config_svn,
        r4,
        family,
        data,
    ) = _REPORT.unpack(body)
    if r1 != _ZERO[12] or r2 != _ZERO[32] or r3 != _ZERO[32] or r4 != _ZERO[42]:
        raise Malformed("SGX report: reserved bytes are not zero", code="reserved-bytes")
    return SgxReport(
        cpu, misc, ext, attributes, enclave, signer, config, product, svn, config_svn, family, data
    )


def td_report(body_type: int, body: bytes) -> TdReport:
    """A TD report of either version. Raises `Malformed`."""
    if len(body) != BODY_SIZES.get(body_type) or body_type == BODY_SGX:
        raise Malformed(
            f"TD report: {len(body)} bytes, expected {BODY_SIZES.get(body_type)} in a body of type {body_type}"
        )
    (svn, seam, signer, seam_bits, bits, xfam, td, config, owner, owner_config, r0, r1, r2, r3, data) = (
        _TD10.unpack_from(body)
    )
    more: tuple[bytes | None, bytes | None] = (None, None)
    if body_type == BODY_TD15:
        more = _TD15_MORE.unpack_from(body, _TD10.size)
    return TdReport(
        svn,
        seam,
        signer,
        seam_bits,
        bits,
        xfam,
        td,
        config,
        owner,
        owner_config,
        (r0, r1, r2, r3),
        data,
        *more,
    )


def describe(data: bytes, *, line: Callable[[str, str, str], None]) -> None:
    """Tell `line` (name, value, meaning) of every field of a quote, for people. Raises `Malformed`."""
    quote = parse(data)
    line("version", str(quote.version), "")
    line("TEE type", f"{quote.tee_type:#x}", "TDX" if quote.tee_type == TEE_TDX else "SGX")
    line("QE SVN", str(quote.qe_svn), "as the header says; the QE report is what counts")
    line("PCE SVN", str(quote.pce_svn), "as the header says; the PCK certificate is what counts")
    line("user data", quote.user_data.hex(), "the quoting enclave's name for the platform")
    report = sgx_report(quote.body) if quote.body_type == BODY_SGX else td_report(quote.body_type, quote.body)
    for name in report.__slots__:
        value = getattr(report, name)
        if isinstance(value, tuple):
            for index, register in enumerate(value):
                line(f"rtmr{index}", register.hex(), "")
        elif value is not None:
            line(name, value.hex() if isinstance(value, bytes) else str(value), "")
    certified = certification(quote.version, quote.certified)
    line("attestation key", certified.attestation_key.hex(), "of the quoting enclave, P-256, x ‖ y")
    line("QE report", certified.qe_report.hex(), "its report data: SHA-256 of key ‖ authentication data")
    line("QE authentication data", certified.authentication_data.hex() or "-", "")
    line(
        "certification data",
        f"type {certified.kind}, {len(certified.data)} bytes",
        "5: PCK certificates, PEM",
    )
