"""Rooms in the processor's own TEE: QEMU alone, with the contract's digest in the register that hardware attests.

There is no TPM and no launch record: what was started is in the launch digest, which the processor measures and signs.
The memory guard has no part here either, since the guest's memory is encrypted for everybody on the host.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.node import children, launch_record, room
from strongroom.node.qemu import machine as qemu

if TYPE_CHECKING:
    import contextlib


@dataclass(kw_only=True)
class TeeRoom(room.Room):
    """One run of an order by SEV-SNP or TDX. `order.firmware` is the build of OVMF for it."""

    tee: qemu.Tee

    def _launch(self, stack: contextlib.ExitStack) -> room.Launched:
        order = self.order
        parts = stack.enter_context(launch_record.opened(order.base, firmware=order.firmware))
        link, qemu_link = socket.socketpair()
        stack.callback(link.close)
        serial = None
        if order.serial is not None:
            serial = os.open(order.serial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, serial)
        machine = qemu.Machine(
            accelerator="kvm",
            memory_mib=order.terms.memory_mib,
            firmware=parts.firmware,
            kernel=parts.kernel,
            initrd=parts.initrd,
            cmdline=parts.cmdline,
            tpm=None,
            channel=qemu_link.fileno(),
            drives=(qemu.Drive(serial=room.SERIAL_BASE, path=parts.disk.absolute()), *order.drives),
            clock=order.clock,
            serial=serial,
            tee=self.tee,
        )
        with qemu_link:
            line = qemu.arguments(machine)
            self.qemu = children.start(line, descriptors=machine.descriptors, guarded=False)
        stack.callback(self.qemu.stop)
        return room.Launched(link=link, watched=self._qemu_watched())
