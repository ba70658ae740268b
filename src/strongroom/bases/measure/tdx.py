"""Intel TDX: MRTD and RTMR 0 to 3 predicted from firmware, kernel, initrd, command line and QEMU's options.

Specs: Intel TDX Module 1.5 ABI, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND (what a page adds to MRTD); Intel, "TDX Virtual
Firmware Design Guide" 1.01 (TD HOB; which events go where); EDK II, OvmfPkg and SecurityPkg (the events themselves);
QEMU, hw/i386/tdvf-hob.c (the TD HOB) and hw/i386/x86-common.c (how -kernel changes the kernel's header).

MRTD   the firmware's code, page by page in the order of its TDVF descriptor; and the addresses alone of the pages for
       configuration, HOB and temporary memory. Linux since 6.16 extends with each page as it adds it (`PageOrder.EACH`);
       KVM's earlier out-of-tree versions added a section's pages first and then extended (`SECTION`).
RTMR0  the firmware's configuration: TD HOB (memory size), configuration volume, secure boot's variables, the ACPI
       tables that QEMU generates, boot order and options.
RTMR1  the kernel as it was started, and that boot services ended.
RTMR2  command line and initrd, measured by the kernel's EFI stub.
RTMR3  nothing before the application: zeros.

QEMU's ACPI tables depend on its version, machine, processors and devices: they are given (three files of its fw_cfg),
or RTMR 0 is not predicted. Nothing is guessed.
"""

from __future__ import annotations

import enum
import hashlib
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.bases.formats import pe
from strongroom.bases.measure import direct_boot, ovmf, pcr, uki
from strongroom.errors import Malformed, Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.bases.measure.ovmf import Firmware

SIZE = 48
ZEROS = "0" * 2 * SIZE
MAX_MEMORY = 1 << 44

_CHUNK = 256
_HIGH = 1 << 32
# q35: memory below 4 GiB is all of it until it reaches the first, and from then on the second.
_LOW_MOST, _LOW_SPLIT = 0xB0000000, 0x80000000
_HOB_HANDOFF, _HOB_RESOURCE = 1, 3
_RESOURCE_MEMORY, _RESOURCE_UNACCEPTED = 0, 7
_RESOURCE_ATTRIBUTES = 0x7  # present, initialised, tested
_BANK = "sha384"
# The one boot option that there is before -kernel is started: the firmware's own menu (Boot0000).
_BOOT_ORDER = b"\0\0"
_UI_APP = (
    struct.pack("<IH", 0x109, 44)  # active, hidden, an application; the bytes of the path below
    + "UiApp\0".encode("utf-16-le")
    + struct.pack(
        "<BBH16s", 4, 7, 20, uuid.UUID("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1").bytes_le
    )  # DXE volume
    + struct.pack("<BBH16s", 4, 6, 20, uuid.UUID("462caa21-7614-4503-836e-8ab6f4662331").bytes_le)  # UiApp
    + struct.pack("<BBH", 0x7F, 0xFF, 4)
)


class PageOrder(enum.StrEnum):
    """When KVM extends MRTD with a page's content."""

    EACH = "each"
    SECTION = "section"


@dataclass(frozen=True, kw_only=True)
class Acpi:
    """QEMU's fw_cfg files etc/table-loader, etc/acpi/rsdp and etc/acpi/tables, whole."""

    loader: bytes
    rsdp: bytes
    tables: bytes


def mrtd(firmware: Firmware, order: PageOrder = PageOrder.EACH) -> bytes:
    """MRTD, 48 bytes. Raises `Malformed` where the firmware has no TDVF descriptor."""
    if not firmware.tdx:
        raise Malformed(
            "firmware: has no TDVF descriptor",
            code="no-tdx-metadata",
            hint="Debian 12's OVMF.fd has one, its 4M builds have not",
        )
    value = hashlib.sha384()
    for section in firmware.tdx:
        if section.augmented:
            continue  # not there at the start: the domain accepts it later
        pages = range(0, section.size, ovmf.PAGE)
        content = firmware.content(section)
        if order is PageOrder.EACH:
            for page in pages:
                value.update(_added(section, page))
                value.update(_extended(section, page, content))
        else:
            for page in pages:
                value.update(_added(section, page))
            for page in pages:
                value.update(_extended(section, page, content))
    return value.digest()


def _added(section: ovmf.TdxSection, page: int) -> bytes:
    return struct.pack("<16sQ104x", b"MEM.PAGE.ADD", section.address + page)


def _extended(section: ovmf.TdxSection, page: int, content: bytes) -> bytes:
    if not section.extends:
        return b""
    content = content[page : page + ovmf.PAGE].ljust(ovmf.PAGE, b"\0")
    return b"".join(
        struct.pack("<16sQ104x", b"MR.EXTEND", section.address + page + chunk)
        + content[chunk : chunk + _CHUNK]
        for chunk in range(0, ovmf.PAGE, _CHUNK)
    )


def td_hob(firmware: Firmware, memory: int) -> bytes:
    """The part of QEMU's TD HOB that the firmware measures: all but its end. Raises `Malformed`, `Misuse`."""
    taken = sorted(
        (section.address, section.size)
        for section in firmware.tdx
        if section.kind in (ovmf.TdxKind.HOB, ovmf.TdxKind.TEMPORARY) and section.size
    )
    base = next((section.address for section in firmware.tdx if section.kind is ovmf.TdxKind.HOB), None)
    if base is None:
        raise Malformed("firmware: its TDVF descriptor has no place for a TD HOB", code="no-tdx-metadata")
    low = below_4g(memory)
    out = bytearray(struct.pack("<HHIIIQQQQQ", _HOB_HANDOFF, 56, 0, 9, 0, 0, 0, 0, 0, 0))
    at = 0
    for start, size in taken:
        if start + size > low:
            raise Misuse(
                f"memory of {memory} bytes is too small for this firmware",
                code="bad-memory",
                hint="give more with --memory, like 2G",
            )
        if start > at:
            out += _resource(_RESOURCE_UNACCEPTED, at, start - at)
        out += _resource(_RESOURCE_MEMORY, start, size)
        at = start + size
    if low > at:
        out += _resource(_RESOURCE_UNACCEPTED, at, low - at)
    if memory > low:
        out += _resource(_RESOURCE_UNACCEPTED, _HIGH, memory - low)
    out[48:56] = struct.pack("<Q", base + len(out) + 8)
    return bytes(out)


def below_4g(memory: int) -> int:
    """How much of `memory` QEMU's q35 puts below 4 GiB. Raises `Misuse`."""
    if not 0 < memory <= MAX_MEMORY or memory % ovmf.PAGE:
        raise Misuse(
            f"memory of {memory} bytes: expected whole pages, at most 16 TiB",
            code="bad-memory",
            hint="give it with --memory, like 2G or 512M",
        )
    return memory if memory < _LOW_MOST else _LOW_SPLIT


def _resource(kind: int, start: int, size: int) -> bytes:
    return struct.pack("<HHI16xIIQQ", _HOB_RESOURCE, 48, 0, kind, _RESOURCE_ATTRIBUTES, start, size)


def rtmr0(firmware: Firmware, memory: int, acpi: Acpi) -> str:
    """RTMR 0 of edk2-stable202302 to 202502 (`edk2.Events.EDK2_202302`), started with -kernel, with secure boot off and
    no keys; hexadecimal. Raises as `td_hob`.
    """
    return pcr.extended(_BANK, map(_sha384, rtmr0_events(firmware, memory, acpi)))


def rtmr0_events(firmware: Firmware, memory: int, acpi: Acpi) -> Iterator[bytes]:
    """What RTMR 0 measures, in order."""
    volume = next((section for section in firmware.tdx if section.kind is ovmf.TdxKind.CONFIGURATION), None)
    if volume is None:
        raise Malformed("firmware: its TDVF descriptor has no configuration volume", code="no-tdx-metadata")
    yield td_hob(firmware, memory)
    yield firmware.content(volume)
    yield from pcr.secure_boot_variables(b"")
    yield pcr.SEPARATOR
    yield from (acpi.loader, acpi.rsdp, acpi.tables)
    yield from (_BOOT_ORDER, _UI_APP)


def rtmr1(kernel: bytes) -> str:
    """RTMR 1 of a kernel started with -kernel, as the firmware was given it; hexadecimal. Raises `Malformed`."""
    return _started(pe.authenticode(kernel, _BANK))


def _started(authenticode: bytes) -> str:
    events = (pcr.BOOT_ATTEMPT, pcr.SEPARATOR, *pcr.EXIT_BOOT_SERVICES)
    return pcr.extended(_BANK, (authenticode, *map(_sha384, events)))


def rtmr2(*, cmdline: bytes, initrd: bytes) -> str:
    """RTMR 2 of a kernel whose EFI stub extends it with its options and its initrd; hexadecimal. Raises `Malformed`."""
    return uki.kernel_inputs(cmdline + direct_boot.INITRD_OPTION, initrd, _BANK)


def _sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()
