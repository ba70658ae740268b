"""AMD SEV-SNP: the launch digest (the report's MEASUREMENT) predicted from firmware, kernel, initrd and command line.

Specs: AMD 56860 rev 1.58, SNP_LAUNCH_UPDATE (PAGE_INFO: what one page adds to the digest); AMD 24593 (APM volume 2),
table B-4 (the VMSA page, a processor's first state); QEMU, "SEV hashes" (target/i386/sev.c: the page of digests that
OVMF compares kernel, initrd and command line with).

The digest begins as zeros and becomes SHA-384(digest ‖ content's SHA-384 ‖ u16 0x70 ‖ type ‖ 0 ‖ permissions ‖ address)
with every page that the host adds, in this order: the firmware; the sections of its SEV metadata in their order; one
VMSA page for each virtual processor. So it depends on what `LaunchInputs` holds and on nothing else: not on memory size,
devices, ACPI tables, host data, guest policy or the processor underneath.
"""

from __future__ import annotations

import enum
import hashlib
import re
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.bases.measure import ovmf
from strongroom.errors import Malformed, Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.bases.measure.ovmf import Firmware

REGISTER = "measurement"
MAX_VCPUS = 1024
SIZE = 48

_PAGE_NORMAL, _PAGE_VMSA, _PAGE_ZERO, _PAGE_UNMEASURED, _PAGE_SECRETS, _PAGE_CPUID = range(1, 7)
_VMSA_ADDRESS = 0xFFFFFFFFF000  # the highest page that an address can name
_FIRST_RESET = 0xFFFFFFF0
_ZERO = bytes(SIZE)
# SubjectPublicKeyInfo (RFC 5480) of an uncompressed point on P-384, up to the point's coordinates.
_P384 = bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004")
_TABLE = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_CMDLINE = uuid.UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD = uuid.UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL = uuid.UUID("4de79437-abd2-427f-b835-d5b172d2045b")
# Family, model and stepping of QEMU's processor models; the versions of a model share them.
_MODELS = {
    "EPYC": (0x17, 0x01, 2),
    "EPYC-IBPB": (0x17, 0x01, 2),
    "EPYC-Rome": (0x17, 0x31, 0),
    "EPYC-Milan": (0x19, 0x01, 1),
    "EPYC-Genoa": (0x19, 0x11, 0),
    "EPYC-Turin": (0x1A, 0x00, 0),
}
_VERSION = re.compile(r"-v[1-9]", re.ASCII)


class Vmm(enum.StrEnum):
    """Whose hypervisor starts the guest: they differ in the processors' first state, and in the metadata's pages."""

    QEMU = "qemu"
    EC2 = "ec2"
    GCE = "gce"


@dataclass(frozen=True, kw_only=True)
class DirectBoot:
    """What QEMU loads with -kernel, -initrd and -append: whole files, and the line without its NUL."""

    kernel: bytes
    initrd: bytes
    cmdline: bytes


@dataclass(frozen=True, kw_only=True)
class LaunchInputs:
    """All that the launch digest depends on.

    signature: what CPUID function 1 answers in EAX (`signature` of a model). features: SEV_FEATURES of the VMSA,
    1 where nothing but SNP is on. kernel None: the firmware boots from a disk, and the digest says nothing of it.
    """

    firmware: Firmware
    vcpus: int
    signature: int
    features: int = 1
    vmm: Vmm = Vmm.QEMU
    kernel: DirectBoot | None = None


def signature(model: str) -> int:
    """The CPUID signature of a processor model of QEMU's ("EPYC-Milan", "EPYC-Milan-v2"). Raises `Misuse`."""
    name = model[:-3] if _VERSION.fullmatch(model[-3:]) else model
    if name not in _MODELS:
        raise Misuse(
            f"--vcpu-type {model[:40]!r}: no processor that is known here",
            code="bad-vcpu-type",
            hint=f"one of {', '.join(_MODELS)}, each with or without -v1 to -v9, or a signature like 0x00a00f11",
        )
    family, low_model, stepping = _MODELS[name]
    base, extended = min(family, 0xF), max(family - 0xF, 0)
    return extended << 20 | low_model >> 4 << 16 | base << 8 | (low_model & 0xF) << 4 | stepping


def digest(launch: LaunchInputs) -> bytes:
    """The launch digest, 48 bytes. Raises `Malformed` where the firmware cannot be started so."""
    if not 1 <= launch.vcpus <= MAX_VCPUS:
        raise Misuse(
            f"{launch.vcpus} virtual processors: expected 1 to {MAX_VCPUS}",
            code="bad-vcpus",
            hint=f"give --vcpus from 1 to {MAX_VCPUS}",
        )
    if not launch.firmware.sev:
        raise Malformed(
            "firmware: has no SEV metadata",
            code="no-sev-metadata",
            hint="Debian 12's OVMF.fd has it, its 4M builds have not",
        )
    value = _ZERO
    for kind, address, content in _pages(launch):
        # Types that the firmware fills itself count by their address alone.
        value = hashlib.sha384(value + content + struct.pack("<HBB4xQ", 0x70, kind, 0, address)).digest()
    return value


def hashes(kernel: DirectBoot) -> bytes:
    """QEMU's table of digests: command line (with its NUL), initrd, kernel; padded to 16 bytes."""
    entries = b""
    for name, content in (
        (_CMDLINE, kernel.cmdline + b"\0"),
        (_INITRD, kernel.initrd),
        (_KERNEL, kernel.kernel),
    ):
        entries += struct.pack("<16sH", name.bytes_le, 50) + hashlib.sha256(content).digest()
    table = struct.pack("<16sH", _TABLE.bytes_le, 18 + len(entries)) + entries
    return table + bytes(-len(table) % 16)


def key_digest(spki: bytes) -> str:
    """How a report names an ID or author key (`id_key_digest`, `author_key_digest`): SHA-384 of it in AMD's layout.

    spki: the public key (DER), of P-384. Raises `Malformed`.
    """
    point = spki[len(_P384) :]
    if spki[: len(_P384)] != _P384 or len(point) != 96:
        raise Malformed("ID key: expected a public key on P-384", code="bad-key")
    x, y = point[:48][::-1], point[48:][::-1]
    return hashlib.sha384(struct.pack("<I72s72s880x", 2, x, y)).hexdigest()


def _pages(launch: LaunchInputs) -> Iterator[tuple[int, int, bytes]]:
    """(type, address, SHA-384 of the content or zeros) of every page, in order."""
    firmware = launch.firmware
    for offset in range(0, len(firmware.data), ovmf.PAGE):
        content = hashlib.sha384(firmware.data[offset : offset + ovmf.PAGE]).digest()
        yield _PAGE_NORMAL, firmware.address + offset, content
    page = None if launch.kernel is None else _hashes_page(firmware, launch.kernel)
    last = []
    for section in firmware.sev:
        added = list(_section(section, page, launch.vmm))
        if launch.vmm is Vmm.EC2 and section.kind is ovmf.SevKind.CPUID:
            last += added
        else:
            yield from added
    yield from last
    for index in range(launch.vcpus):
        if index and firmware.reset is None:
            raise Malformed("firmware: does not say where further processors start", code="no-reset-block")
        start = firmware.reset if index and firmware.reset is not None else _FIRST_RESET
        yield _PAGE_VMSA, _VMSA_ADDRESS, hashlib.sha384(_vmsa(launch, start)).digest()


def _section(
    section: ovmf.SevSection, hashes_page: bytes | None, vmm: Vmm
) -> Iterator[tuple[int, int, bytes]]:
    kind, content = _PAGE_ZERO, _ZERO
    if section.kind is ovmf.SevKind.ZEROS and vmm is Vmm.GCE:
        kind = _PAGE_UNMEASURED
    elif section.kind is ovmf.SevKind.SECRETS:
        kind = _PAGE_SECRETS
    elif section.kind is ovmf.SevKind.CPUID:
        kind = _PAGE_CPUID
    elif section.kind is ovmf.SevKind.KERNEL_HASHES and hashes_page is not None:
        kind, content = _PAGE_NORMAL, hashlib.sha384(hashes_page).digest()
    for offset in range(0, section.size, ovmf.PAGE):
        yield kind, section.address + offset, content


def _hashes_page(firmware: Firmware, kernel: DirectBoot) -> bytes:
    """The page that holds the table of digests. Raises `Malformed` where the firmware has no place for it."""
    places = [section for section in firmware.sev if section.kind is ovmf.SevKind.KERNEL_HASHES]
    if firmware.hashes is None or len(places) != 1:
        raise Malformed(
            "firmware: has no place for the digests of kernel, initrd and command line",
            code="no-kernel-hashes",
            hint="it would boot any kernel; take a build for it, like Debian's ovmf-amdsev",
        )
    table = hashes(kernel)
    offset = firmware.hashes[0] - places[0].address
    if (
        places[0].size != ovmf.PAGE
        or not 0 <= offset <= ovmf.PAGE - len(table)
        or firmware.hashes[1] < len(table)
    ):
        raise Malformed("firmware: its table of digests lies outside its page", code="no-kernel-hashes")
    return (bytes(offset) + table).ljust(ovmf.PAGE, b"\0")


def _vmsa(launch: LaunchInputs, start: int) -> bytes:
    """A processor's first state. Amazon's and Google's hypervisors leave other values than KVM with QEMU does."""
    page = bytearray(ovmf.PAGE)
    code, stack, task = 0x9B, 0x93, 0x8B
    pat, rdx, mxcsr, fcw = 0x7040600070406, launch.signature, 0x1F80, 0x37F
    if launch.vmm is not Vmm.QEMU:
        rdx, mxcsr, fcw = 0x600, 0, 0
    if launch.vmm is Vmm.EC2:
        code, stack, task = (0x9A if start == _FIRST_RESET else 0x9B), 0x92, 0x83
    if launch.vmm is Vmm.GCE:
        pat = 0x70106
    segments = (
        (0x00, 0, 0x93, 0xFFFF, 0),  # ES
        (0x10, 0xF000, code, 0xFFFF, start & 0xFFFF0000),
        (0x20, 0, stack, 0xFFFF, 0),
        *((offset, 0, 0x93, 0xFFFF, 0) for offset in (0x30, 0x40, 0x50)),  # DS, FS, GS
        (0x60, 0, 0, 0xFFFF, 0),  # GDTR
        (0x70, 0, 0x82, 0xFFFF, 0),  # LDTR
        (0x80, 0, 0, 0xFFFF, 0),  # IDTR
        (0x90, 0, task, 0xFFFF, 0),
    )
    for offset, *values in segments:
        struct.pack_into("<HHIQ", page, offset, *values)
    words = (
        (0x0D0, 0x1000),  # EFER: SVME
        (0x148, 0x40),  # CR4: MCE
        (0x158, 0x10),  # CR0: ET
        (0x160, 0x400),  # DR7
        (0x168, 0xFFFF0FF0),  # DR6
        (0x170, 0x2),  # RFLAGS
        (0x178, start & 0xFFFF),  # RIP
        (0x268, pat),
        (0x310, rdx),
        (0x3B0, launch.features),
        (0x3E8, 0x1),  # XCR0
    )
    for offset, value in words:
        struct.pack_into("<Q", page, offset, value)
    struct.pack_into("<I", page, 0x408, mxcsr)
    struct.pack_into("<H", page, 0x410, fcw)
    return bytes(page)
