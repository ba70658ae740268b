"""SEV-SNP attestation reports, byte for byte: versions 2 to 5, parsed strictly, nothing believed.

Spec: AMD 56860, SEV Secure Nested Paging Firmware ABI, revision 1.58, section 7.3, table 23 (ATTESTATION_REPORT),
table 9 (guest policy), table 24 (PLATFORM_INFO), section 2.2 (TCB_VERSION), section 10 (signatures).
Reserved bytes and bits must be zero, the guest policy's bit 17 one. A bit that this file has no name for is
refused: nobody could say what accepting it means.

offset  field                       offset  field                       offset  field
000     VERSION u32                 050     REPORT_DATA 64              1E0     COMMITTED_TCB
004     GUEST_SVN u32               090     MEASUREMENT 48              1E8     CURRENT_BUILD, MINOR, MAJOR, 0
008     POLICY u64                  0C0     HOST_DATA 32                1EC     COMMITTED_BUILD, MINOR, MAJOR, 0
010     FAMILY_ID 16                0E0     ID_KEY_DIGEST 48            1F0     LAUNCH_TCB
020     IMAGE_ID 16                 110     AUTHOR_KEY_DIGEST 48        1F8     LAUNCH_MIT_VECTOR u64 (v5)
030     VMPL u32                    140     REPORT_ID 32                200     CURRENT_MIT_VECTOR u64 (v5)
034     SIGNATURE_ALGO u32          160     REPORT_ID_MA 32             208     zero
038     CURRENT_TCB                 180     REPORTED_TCB                2A0     R 72, little-endian
040     PLATFORM_INFO u64           188     CPUID family, model,        2E8     S 72, little-endian
048     key flags u32                       stepping (v3+), 21 zero     330     zero, to 4A0
04C     zero                        1A0     CHIP_ID 64
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 0x4A0
SIGNED = 0x2A0
VERSIONS = range(2, 6)
ECDSA_P384_SHA384 = 1
VCEK, VLEK = 0, 1

# Bits by name, as the claims say them. Everything above is reserved.
POLICY = ("smt", "", "migrate_ma", "debug", "single_socket", "cxl_allow", "mem_aes_256_xts", "rapl_dis",
          "ciphertext_hiding_dram", "page_swap_disable")  # fmt: skip
PLATFORM = ("smt_en", "tsme_en", "ecc_en", "rapl_dis", "ciphertext_hiding_dram_en", "alias_check_complete",
            "iommu_write_safe", "tio_en")  # fmt: skip
_POLICY_FIRST = 16  # below: the least ABI version, minor and major
_POLICY_ONE = 1 << 17
_POLICY_KNOWN = (1 << (_POLICY_FIRST + len(POLICY))) - 1
_PLATFORM_KNOWN = (1 << len(PLATFORM)) - 1
_FLAGS_KNOWN = 0x1F  # AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY (three bits)

_HEAD = struct.Struct("<IIQ16s16sII8sQII64s48s32s48s48s32s32s8sBBB21s64s8sBBBBBBBB8sQQ")
_COORDINATE = 48
_R, _S, _END = SIGNED, SIGNED + 72, SIGNED + 144
_ZERO = bytes(SIZE)


@dataclass(frozen=True, kw_only=True, slots=True)
class SnpReport:
    """A parsed report. TCB versions are their 8 raw bytes, since their layout is the product's.

    signed: what the signature is over. signature: r ‖ s, 48 bytes each, big-endian, not yet range-checked.
    family, model, stepping: CPUID's, combined with the extended parts; zero in version 2, which has none.
    mitigations_launch, mitigations_current: bit vectors of version 5, zero before.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    platform_info: int
    author_key_en: bool
    mask_chip_key: bool
    signing_key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    family: int
    model: int
    stepping: int
    chip_id: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    current_version: tuple[int, int, int]
    committed_version: tuple[int, int, int]
    mitigations_launch: int
    mitigations_current: int
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(data: bytes) -> SnpReport:
    """Parse one report without trailing bytes. Raises `Malformed`."""
    if len(data) != SIZE:
        raise Malformed(f"SNP report: {len(data)} bytes, expected {SIZE}", code="bad-length")
    (
        version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current_tcb, platform, flags, zero,
        report_data, measurement, host_data, id_key, author_key, report_id, report_id_ma, reported_tcb,
        family, model, stepping, zeros, chip_id, committed_tcb,
        build, minor, major, pad, committed_build, committed_minor, committed_major, committed_pad,
        launch_tcb, mitigations_launch, mitigations_current,
    ) = _HEAD.unpack_from(data)  # fmt: skip
    if version not in VERSIONS:
        raise Malformed(f"SNP report: version {version}, expected 2 to 5", code="unknown-version")
    if zero or pad or committed_pad or any(zeros) or data[_HEAD.size : SIGNED] != _ZERO[_HEAD.size : SIGNED]:
        raise _reserved("bytes")
    if version < 3 and (family or model or stepping):
        raise _reserved("bytes of version 2")
    if version < 5 and (mitigations_launch or mitigations_current):
        raise _reserved(f"bytes of version {version}")
    if policy & ~_POLICY_KNOWN or not policy & _POLICY_ONE:
        raise _reserved(f"bits of the guest policy ({policy:#x})")
    if platform & ~_PLATFORM_KNOWN:
        raise _reserved(f"bits of the platform information ({platform:#x})")
    if flags & ~_FLAGS_KNOWN:
        raise _reserved(f"bits of the key flags ({flags:#x})")
    return SnpReport(
        version=version, guest_svn=guest_svn, policy=policy, family_id=family_id, image_id=image_id, vmpl=vmpl,
        signature_algo=algorithm, platform_info=platform, author_key_en=bool(flags & 1),
        mask_chip_key=bool(flags & 2), signing_key=flags >> 2, report_data=report_data, measurement=measurement,
        host_data=host_data, id_key_digest=id_key, author_key_digest=author_key, report_id=report_id,
        report_id_ma=report_id_ma, family=family, model=model, stepping=stepping, chip_id=chip_id,
        current_tcb=current_tcb, reported_tcb=reported_tcb, committed_tcb=committed_tcb, launch_tcb=launch_tcb,
        current_version=(major, minor, build),
        committed_version=(committed_major, committed_minor, committed_build),
        mitigations_launch=mitigations_launch, mitigations_current=mitigations_current,
        signed=data[:SIGNED], signature=_signature(data),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def policy_facts(policy: int) -> Mapping[str, str | int | bool]:
    """The guest policy by name: the least firmware ABI, and each bit. Kept, hence read only."""
    facts: dict[str, str | int | bool] = {"policy.abi": f"{policy >> 8 & 0xFF}.{policy & 0xFF}"}
    bits = policy >> _POLICY_FIRST
    for place, name in enumerate(POLICY):
        if name:
            facts[f"policy.{name}"] = bool(bits >> place & 1)
    return MappingProxyType(facts)


@functools.lru_cache(maxsize=256)
def platform_facts(platform: int) -> Mapping[str, str | int | bool]:
    """The platform information by name. Kept, hence read only."""
    return MappingProxyType(
        {f"platform.{name}": bool(platform >> place & 1) for place, name in enumerate(PLATFORM)}
    )


def is_debug(policy: int) -> bool:
    """Whether the guest's policy lets the host debug it (bit 19)."""
    return bool(policy >> _POLICY_FIRST >> POLICY.index("debug") & 1)


def _signature(data: bytes) -> bytes:
    """R and S are 72 bytes each, of which P-384 fills 48; what follows them is reserved."""
    high = _ZERO[: 72 - _COORDINATE]
    if data[_R + _COORDINATE : _S] != high or data[_S + _COORDINATE : _END] != high:
        raise Malformed("SNP report: R or S is longer than 48 bytes", code="bad-value")
    if data[_END:] != _ZERO[_END:]:
        raise _reserved("bytes of the signature")
    return data[_R : _R + _COORDINATE][::-1] + data[_S : _S + _COORDINATE][::-1]


def _reserved(what: str) -> Malformed:
    return Malformed(
        f"SNP report: reserved {what} are not as the ABI fixes them: zero, and bit 17 of the guest policy one",
        code="reserved",
    )
