"""Guests that boot as a machine with UEFI would, with a real software TPM, and let the test talk to that TPM.

The guest is a real base's kernel and initrd with another `/init` appended: it hands TPM commands and the firmware's event
log through, and decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.agent.tpm import Tpm
from strongroom.crypto import public_key
from strongroom.encoding import tpm2
from strongroom.node.vtpm import provision, swtpm
from tests.e2e import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OVMF = "/usr/share/ovmf/OVMF.fd"
CMDLINE = b"quiet loglevel=0 panic=-1 audit=0 cryptomgr.notests 8250.nr_uarts=0"
INIT = r"""
busybox mount -t securityfs none /sys/kernel/security
exec 4<>/dev/tpmrm0
hex() { busybox xxd -p | busybox tr -d '\n'; echo; }
echo ready >&3
while read -r verb rest <&3; do
  case $verb in
    tpm) echo $rest | busybox xxd -r -p >/command
      busybox dd if=/command bs=8192 count=1 2>/dev/null >&4
      busybox dd bs=8192 count=1 2>/dev/null <&4 | hex >&3 ;;
    bank) busybox tr A-F a-f </sys/class/tpm/tpm0/pcr-$rest >&3 ;;
    log) hex </sys/kernel/security/tpm0/binary_bios_measurements >&3 ;;
  esac
done
"""


def missing() -> str:
    """Why nothing can be booted here; empty when it can."""
    for program in ("qemu-system-x86_64", "swtpm"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return "" if Path(OVMF).exists() else "ovmf is not installed"


def qemu_version() -> tuple[int, int]:
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    major, minor = said.stdout.split("version ")[1].split(".")[:2]
    return int(major), int(minor)


def initrd(base: Path) -> bytes:
    """The base's initrd, whose `/init` is the one above."""
    head = tiny.HEAD.partition("control() {")[0].replace("MODULES", tiny.MODULES)
    archive = tiny.Cpio()
    archive.file("init", (head + INIT).encode(), 0o755)
    return (base / "initrd").read_bytes() + archive.done()


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A TPM's state with an attestation key in it and the banks SHA-256 and SHA-384 on, and that key's public half."""

    state: bytes
    key: public_key.PublicKey


def chip() -> Chip:
    keys: list[public_key.PublicKey] = []

    def certify(tpm: provision.TpmClient) -> None:
        created = tpm.run(tpm2.create_ak(tpm2.ENDORSEMENT), handles=1)
        x, y = tpm2.read_p256_point(tpm2.read_sized(created.parameters))
        tpm.run(tpm2.evict_control(created.handles[0], provision.AK_HANDLE))
        tpm.run(tpm2.flush_context(created.handles[0]))
        keys.append(public_key.key_of_point("secp256r1", x, y))

    return Chip(state=provisioned(certify), key=keys[0])


def provisioned(equip: Callable[[provision.TpmClient], None]) -> bytes:
    """A fresh TPM's state, the banks SHA-256 and SHA-384 on, after `equip`."""
    fd = os.memfd_create("tpm-state")
    banks = {0x04: 0, 0x0B: 0xFFFFFF, 0x0C: 0xFFFFFF, 0x0D: 0}  # SHA-1, 256, 384, 512: every bank costs time
    chosen = b"".join(struct.pack(">HB", bank, 3) + pcrs.to_bytes(3, "big") for bank, pcrs in banks.items())
    try:
        with provision._running(fd) as tpm:
            allocate = struct.pack(">I", len(banks)) + chosen
            tpm.run(tpm2.command(0x12B, (tpm2.PLATFORM,), allocate, authorised=1))
        with provision._running(fd) as tpm:  # the banks change with the next start
            equip(tpm)
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


@dataclass(kw_only=True)
class Guest:
    """A booted guest. seconds: from QEMU's start to the guest's first word."""

    link: socket.socket
    seconds: float

    def ask(self, line: str) -> bytes:
        self.link.sendall(line.encode() + b"\n")
        return bytes.fromhex(_line(self.link))

    def exchange(self, command: bytes) -> bytes:
        return self.ask(f"tpm {command.hex()}")

    @property
    def tpm(self) -> Tpm:
        return Tpm(self)

    def pcrs(self, *indices: int) -> dict[int, bytes]:
        return {index: self.tpm.read_pcr(index) for index in indices}

    def bank(self, name: str, index: int) -> bytes:
        """A PCR of another bank, as the kernel reads it."""
        return self.ask(f"bank {name}/{index}")

    def log(self) -> bytes:
        return self.ask("log")


@contextlib.contextmanager
def booted(state: bytes, *machine: str, memory: int = 512) -> Iterator[Guest]:
    """Boot a machine with a TPM of that state. machine: the rest of QEMU's command line."""
    started = time.monotonic()
    with started_machine(state, *machine, memory=memory) as link:
        assert _line(link) == "ready"
        yield Guest(link=link, seconds=time.monotonic() - started)


@contextlib.contextmanager
def started_machine(state: bytes, *machine: str, memory: int) -> Iterator[socket.socket]:
    """A machine that boots, and the host's end of its channel."""
    fd = os.memfd_create("tpm-state")
    os.write(fd, state)
    control, control_end = socket.socketpair()
    link, link_end = socket.socketpair()
    tpm = qemu = None
    try:
        tpm = subprocess.Popen(
            swtpm.arguments(fd, control_end.fileno()),
            pass_fds=(fd, control_end.fileno()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        qemu = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-M", "q35,smm=off", "-accel", "tcg,thread=multi,tb-size=256"),
                # QEMU 7.2 emulates CMPXCHG16B wrongly: Debian's 6.12, which relies on it, dies at random places.
                *("-cpu", "max,cx16=off", "-m", str(memory), "-nodefaults", "-no-user-config", "-no-reboot"),
                *("-display", "none"),
                *("-chardev", f"socket,id=tpm,fd={control.fileno()}", "-tpmdev", "emulator,id=t,chardev=tpm"),
                *("-device", "tpm-crb,tpmdev=t", "-chardev", f"socket,id=relay,fd={link_end.fileno()}"),
                *("-device", "virtio-serial-pci,max_ports=2"),
                *("-device", "virtserialport,chardev=relay,name=strongroom", *machine),
            ],
            pass_fds=(control.fileno(), link_end.fileno()),
            stdin=subprocess.DEVNULL,
        )
        link_end.close()
        link.settimeout(240)
        yield link
    finally:
        for child in (qemu, tpm):
            if child is not None:
                child.kill()
                child.wait()
        for one in (control, control_end, link, link_end):
            one.close()
        os.close(fd)


def direct(folder: Path, *, firmware: str = OVMF) -> tuple[str, ...]:
    """Kernel, initrd and command line given to the machine. folder: a base's."""
    return (
        *("-bios", firmware, "-kernel", str(folder / "bzImage"), "-initrd", str(folder / "initrd")),
        *("-append", (folder / "cmdline").read_text()),
    )


def from_disk(image: Path, *, firmware: str = OVMF) -> tuple[str, ...]:
    """A bootable disk."""
    return (
        *("-bios", firmware, "-drive", f"file={image},if=none,id=disk,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
    )


def further_disk(path: Path, serial: str) -> tuple[str, ...]:
    """A sealed disk beside it, as a node gives it."""
    drive = f"file={path},if=none,id={serial},format=raw,readonly=on"
    return ("-drive", drive, "-device", f"virtio-blk-pci,drive={serial},serial={serial}")


def _line(link: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n"):
        piece = link.recv(1 << 16)
        if not piece:
            raise AssertionError(f"the guest ended; it had said {data[:200]!r}")
        data += piece
    return data.decode().strip()
