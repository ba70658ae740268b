"""A kernel that QEMU hands to OVMF beside initrd and command line ("direct boot"): its PCRs, predicted from the files.

Specs: as in `uki.py`; Linux x86 boot protocol (setup header); QEMU, `x86_load_linux`. Proved by booting, likewise:

    PCR 4   ← the kernel (Authenticode), boot attempt, separator
    PCR 5   ← separator, two events as the kernel takes over
    PCR 9   ← the command line with " initrd=initrd" behind it, and the initrd

QEMU before 10.0, or OVMF before 2025.02, measures the kernel after QEMU has written into its setup header where things
lie in memory: PCR 4 then depends on the machine's memory and the initrd's size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from strongroom.bases.formats import pe
from strongroom.bases.measure import pcr, uki
from strongroom.errors import Malformed

INITRD_OPTION = b" initrd=initrd"  # OVMF adds it
# The setup header's fields, by their place in the kernel's file.
_MAGIC, _LOADER, _FLAGS, _RAMDISK, _HEAP_END, _CMDLINE = 0x202, 0x210, 0x211, 0x218, 0x224, 0x228
_QEMU = 0xB0
_CAN_USE_HEAP = 0x80
_REAL_MODE, _CMDLINE_ADDRESS = 0x10000, 0x20000
_TABLES = 0x28000  # what QEMU leaves free for ACPI at the end of low memory
_MIB = 1 << 20
# q35: from 2.75 GiB on, low memory ends at 2 GiB.
_SPLIT, _LOW = 0xB0000000, 0x80000000


@dataclass(frozen=True, kw_only=True)
class DirectBootRegisters:
    """Hexadecimal. pcr12 is before the agent extends anything."""

    bank: str
    pcr4: str
    pcr5: str
    pcr7_without_secure_boot: tuple[str, str]
    pcr9: str
    pcr11: str
    pcr12: str

    def reference(self) -> dict[str, str]:
        """What the files decide (and, with an older QEMU, the memory), by the names that claims give registers."""
        return {"pcr4": self.pcr4, "pcr9": self.pcr9}


def measure(
    *,
    kernel: bytes,
    initrd: bytes,
    cmdline: bytes,
    patched_for_mib: int | None = None,
    bank: str = "sha256",
) -> DirectBootRegisters:
    """The registers. patched_for_mib: the machine's memory, where QEMU (q35) is older than 10.0. Raises `Malformed`."""
    booted = kernel if patched_for_mib is None else patched(kernel, len(initrd), patched_for_mib)
    events = [pe.authenticode(booted, bank)]
    events += [pcr.digest(bank, pcr.BOOT_ATTEMPT), pcr.digest(bank, pcr.SEPARATOR)]
    zero = pcr.extended(bank, ())
    return DirectBootRegisters(
        bank=bank,
        pcr4=pcr.extended(bank, events),
        pcr5=uki.partitions(None, bank),
        pcr7_without_secure_boot=pcr.no_secure_boot(bank),
        pcr9=uki.kernel_inputs(cmdline + INITRD_OPTION, initrd, bank),
        pcr11=zero,
        pcr12=zero,
    )


def patched(kernel: bytes, initrd_size: int, memory_mib: int) -> bytes:
    """The kernel as QEMU 7.2 hands it over. Raises `Malformed`."""
    out = bytearray(kernel)
    if out[_MAGIC : _MAGIC + 4] != b"HdrS" or len(out) < _CMDLINE + 4:
        raise Malformed("kernel: no setup header of Linux for x86", code="bad-header")
    memory = memory_mib * _MIB
    low = min(memory, _LOW if memory >= _SPLIT else _SPLIT)
    initrd_at = (low - _TABLES - 1 - initrd_size) & ~0xFFF
    if initrd_at <= 0:
        raise Malformed(f"direct boot: the initrd does not fit into {memory_mib} MiB", code="bad-size")
    out[_LOADER] = _QEMU
    out[_FLAGS] |= _CAN_USE_HEAP
    struct.pack_into("<H", out, _HEAP_END, _CMDLINE_ADDRESS - _REAL_MODE - 0x200)
    struct.pack_into("<I", out, _CMDLINE, _CMDLINE_ADDRESS)
    struct.pack_into("<II", out, _RAMDISK, initrd_at, initrd_size)
    return bytes(out)
