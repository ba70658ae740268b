"""The command line of a room's QEMU: a pure function of the room.

No network card, no serial port, no monitor, no display, no default device. What the room has:
a TPM (tpm-crb over swtpm) or a TEE of the processor's (`tee`), one virtio-serial port to the relay, and read-only
virtio-blk disks that the agent knows by their serials. Files and sockets are inherited descriptors, so that no path
can be swapped under them. The firmware is named, so that the one which was measured is the one that runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Malformed
from strongroom.model.room import channel
from strongroom.node.launch_record import MACHINE

if TYPE_CHECKING:
    from pathlib import Path

QEMU = "qemu-system-x86_64"
# What the kernel, the agent and the page tables take; the contract's memory is the program's.
OVERHEAD_MIB = 192
MAX_DISKS = 128
_FIRST_DISK_SLOT = 0x08
_FUNCTIONS = 8
_CLOCK = re.compile(r"utc|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)
# Devices of the board that nobody needs: no way in, and less to emulate.
_LEFT_OUT = "smm=off,sata=off,smbus=off,vmport=off"
_ACCELERATORS = {"tcg": "tcg,thread=multi,tb-size=256", "kvm": "kvm"}
# "Fast" string instructions are emulated byte by byte: without them kernel and C library copy words at a time. A fifth
# level of page tables, protection keys and bounds registers make each walk and each change of process longer.
_PROCESSORS = {"tcg": "max,erms=off,fsrm=off,la57=off,pku=off,mpx=off", "kvm": "max"}
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, kw_only=True)
class Drive:
    """One read-only disk. `serial` is what the agent looks for: at most 20 bytes (virtio-blk)."""

    serial: str
    path: Path


class Tee(Protocol):
    """A TEE of the processor's: what it adds to the command line (`tee`)."""

    @property
    def machine(self) -> str:
        """Options of -machine, after the board's."""
        ...

    @property
    def processor(self) -> str:
        """The model for -cpu."""
        ...

    def objects(self, memory_mib: int) -> list[str]:
        """-object options: the TEE and its memory."""
        ...


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A room as QEMU sees it.

    kernel, initrd, firmware, tpm, channel: inherited file descriptors; tpm is None where `tee` stands in its place.
    memory_mib, processors: the contract's.
    clock: what the guest's clock starts at (`utc`, or a date as `2030-01-31T00:00:00`).
    serial: a descriptor for the guest's serial port, for debugging only: what the guest writes there
    is for everybody to read.
    """

    accelerator: str
    memory_mib: int
    firmware: int
    kernel: int
    initrd: int
    cmdline: bytes
    tpm: int | None
    channel: int
    drives: tuple[Drive, ...]
    processors: int = 1
    clock: str = "utc"
    serial: int | None = None
    tee: Tee | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What QEMU must inherit."""
        inherited = (self.firmware, self.kernel, self.initrd, self.tpm, self.channel, self.serial)
        return tuple(descriptor for descriptor in inherited if descriptor is not None)


def arguments(machine: Machine) -> list[str]:
    """The whole command line. Raises `Malformed` for what QEMU could not carry."""
    if len(machine.drives) > MAX_DISKS:
        raise Malformed(f"room: {len(machine.drives)} disks, at most {MAX_DISKS} allowed", code="too-many")
    if _CLOCK.fullmatch(machine.clock) is None:
        raise Malformed(
            f"the room's clock: {machine.clock[:40]!r} is neither utc nor YYYY-MM-DDTHH:MM:SS",
            code="bad-clock",
        )
    tee, memory_mib = machine.tee, machine.memory_mib + OVERHEAD_MIB
    line = [
        QEMU,
        *("-name", "strongroom"),
        *("-machine", f"{MACHINE},{_LEFT_OUT}" + ("" if tee is None else f",{tee.machine}")),
        *("-accel", _ACCELERATORS[machine.accelerator]),
        *("-cpu", _PROCESSORS[machine.accelerator] if tee is None else tee.processor),
        *([] if tee is None else tee.objects(memory_mib)),
        *("-m", f"{memory_mib}M"),
        *([] if machine.processors == 1 else ["-smp", str(machine.processors)]),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-sandbox", _SANDBOX),
        *("-rtc", f"base={machine.clock}"),
        *("-bios", f"/dev/fd/{machine.firmware}"),
        *("-kernel", f"/dev/fd/{machine.kernel}"),
        *("-initrd", f"/dev/fd/{machine.initrd}"),
        *("-append", machine.cmdline.decode("ascii")),
        *([] if machine.tpm is None else _tpm(machine.tpm)),
        *("-chardev", f"socket,id=relay,fd={machine.channel}"),
        *("-device", "virtio-serial-pci,max_ports=2"),
        *("-device", f"virtserialport,chardev=relay,name={channel.PORT_NAME}"),
    ]
    for index, drive in enumerate(machine.drives):
        line += _disk(index, drive)
    if machine.serial is not None:
        line += ["-add-fd", f"fd={machine.serial},set=1", "-serial", "file:/dev/fdset/1"]
    return line


def _tpm(control: int) -> list[str]:
    return [
        *("-chardev", f"socket,id=tpm-control,fd={control}"),
        *("-tpmdev", "emulator,id=tpm,chardev=tpm-control"),
        *("-device", "tpm-crb,tpmdev=tpm"),
    ]


def _disk(index: int, drive: Drive) -> list[str]:
    if len(drive.serial.encode()) > 20:
        raise Malformed(f"room: the disk serial {drive.serial!r} is longer than 20 bytes", code="too-large")
    # JSON, because file names may hold commas and equal signs. The room verifies every block it reads,
    # so that nobody else's lock on the file matters.
    block = {
        "driver": "raw",
        "node-name": f"disk{index}",
        "read-only": True,
        "file": {"driver": "file", "filename": str(drive.path), "locking": "off"},
    }
    slot, function = divmod(index, _FUNCTIONS)
    place = f"addr={_FIRST_DISK_SLOT + slot:#x}.{function},multifunction=on"
    return [
        *("-blockdev", json.dumps(block)),
        *("-device", f"virtio-blk-pci,drive=disk{index},serial={drive.serial},{place}"),
    ]
