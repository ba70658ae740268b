"""A parent instance of Nitro enclaves, played by QEMU: it starts the very image file that AWS would, and listens by Unix sockets.

What differs from an enclave: a TPM stands for the security module, so that the room is a local one to those who judge it;
devices sit on PCI, for which one word of the command line goes; QEMU's memory is nobody's secret. All else is the product's:
the image's kernel, driver, ramdisks and agent, which speaks by vsock and reads its disks by NBD, and the node's side of both.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from strongroom.bases import document, profile
from strongroom.bases.formats import eif
from strongroom.node import launch_record, room
from strongroom.node.nitro import cli
from strongroom.node.nitro import room as nitro_room
from strongroom.node.qemu import machine
from strongroom.node.vtpm import hcrtm, swtpm
from tests.e2e import vsock_device

ENCLAVE = "i-0123456789abcdef0-enc0123456789abcde"


def unpack(nitro_base: Path, out: Path) -> Path:
    """What that base's image starts as the parts of a local room, with their document: a contract can name them."""
    image = eif.parse((nitro_base / cli.EIF).read_bytes())
    parts = {
        document.KERNEL: image.kernel,
        document.INITRD: b"".join(image.ramdisks),  # one behind the other, as an enclave's memory has them
        document.CMDLINE: image.cmdline.replace(b"pci=off ", b""),
        document.DISK: (nitro_base / document.DISK).read_bytes(),
        document.PACKAGES: (nitro_base / document.PACKAGES).read_bytes(),
    }
    described = document.describe(
        parts,
        firmware=launch_record.FIRMWARE.read_bytes(),
        packages=parts[document.PACKAGES],
        profile=profile.LOCAL,
    )
    out.mkdir()
    for name, content in (parts | {document.BASE: described.encode()}).items():
        (out / name).write_bytes(content)
    return out


@dataclass(kw_only=True)
class Instance:
    """`nitro-cli` and the vsock of one parent instance. parts: of `unpack`."""

    parts: Path
    state: bytes
    folder: Path
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    ran: list[str] = field(default_factory=list)

    def listen(self, port: int) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(self.folder / str(port)))
        made.listen()
        return made

    @staticmethod
    def cid_of(address: object) -> int:
        """Who connects: the name that `_connect` gave its end."""
        return int(Path(str(address)).name.partition("-")[0])

    def ask(self, line: list[str]) -> str:
        """One command of `nitro-cli`'s, and what it prints."""
        self.ran.append(line[1])
        if line[1] == "terminate-enclave":
            self.stack.close()
            return "{}"
        words = dict(zip(line[2::2], line[3::2], strict=True))
        cid = int(words["--enclave-cid"])
        self._start(cid, int(words["--memory"]))
        return f"Started enclave\n{json.dumps({'EnclaveID': ENCLAVE, 'EnclaveCID': cid})}"

    def record(self) -> bytes:
        with launch_record.opened(self.parts) as parts:
            return parts.record(memory_guard=False).encode()

    def _connect(self, cid: int, port: int, guests: int) -> socket.socket | None:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.bind(str(self.folder / f"{cid}-{guests}"))
            made.connect(str(self.folder / str(port)))
        except OSError:
            made.close()
            return None
        return made

    def _start(self, cid: int, memory_mib: int) -> None:
        stack = self.stack
        state = os.memfd_create("tpm-state")
        stack.callback(os.close, state)
        os.write(state, self.state)
        to_swtpm, swtpm_control = socket.socketpair()
        to_qemu, qemu_control = socket.socketpair()
        to_device, qemu_device = socket.socketpair()
        measurer = hcrtm.LaunchMeasurer(to_qemu, to_swtpm, self.record)
        stack.callback(measurer.stop)
        device = vsock_device.Device(
            cid=cid, connect=lambda port, guests: self._connect(cid, port, guests)
        ).start(to_device)
        stack.callback(device.join, 20)
        with swtpm_control, qemu_control, qemu_device:
            self._child(swtpm.arguments(state, swtpm_control.fileno()), state, swtpm_control.fileno())
            line = self._machine(memory_mib, qemu_control.fileno(), qemu_device.fileno())
            self._child(line, qemu_control.fileno(), qemu_device.fileno())
        measurer.start()

    def _child(self, line: list[str], *descriptors: int) -> None:
        child = subprocess.Popen(line, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        self.stack.callback(child.wait)
        self.stack.callback(child.kill)

    def _machine(self, memory_mib: int, tpm: int, device: int) -> list[str]:
        parts = self.parts
        return [
            *(
                machine.QEMU,
                "-M",
                f"{launch_record.MACHINE},smm=off,memory-backend=memory",
                "-m",
                f"{memory_mib}M",
            ),
            *("-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on"),
            # QEMU 7.2 emulates CMPXCHG16B wrongly: Debian's 6.12, which relies on it, dies at random places.
            *("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,cx16=off"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-bios", str(launch_record.FIRMWARE), "-kernel", str(parts / launch_record.KERNEL)),
            *(
                "-initrd",
                str(parts / launch_record.INITRD),
                "-append",
                (parts / launch_record.CMDLINE).read_text(),
            ),
            *(
                "-chardev",
                f"socket,id=tpm-control,fd={tpm}",
                "-tpmdev",
                "emulator,id=tpm,chardev=tpm-control",
            ),
            *("-device", "tpm-crb,tpmdev=tpm"),
            *("-chardev", f"socket,id=vsock,fd={device}", "-device", "vhost-user-vsock-pci,chardev=vsock"),
        ]


class EnclaveRoom(nitro_room.NitroRoom):
    """The node's room for enclaves, which hands on what the TPM needs beside: an enclave's module needs nothing."""

    instance: Instance

    def _launch(self, stack: contextlib.ExitStack) -> room.Launched:
        launched = super()._launch(stack)
        assert self.order.node is not None
        return replace(launched, record=self.instance.record, issuers=self.order.node.issuers)


def run(order: room.Order, parts: Path, folder: Path, phases: list[str]) -> room.RoomResult:
    """Run it. order.base: the base for Nitro."""
    assert order.node is not None
    folder.mkdir()
    instance = Instance(parts=parts, state=order.node.tpm_state(), folder=folder)
    made = EnclaveRoom(
        order=order,
        listen=instance.listen,
        cid_of=instance.cid_of,
        ask=instance.ask,
        on_phase=lambda name, _moment: phases.append(name),
    )
    made.instance = instance
    try:
        return made.run()
    finally:
        instance.stack.close()
        shutil.rmtree(folder)
