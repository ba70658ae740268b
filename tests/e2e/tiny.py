"""A base whose agent is a few lines of shell: it speaks the channel, and reports what it sees as phases.

Made of a real base: its kernel, its modules, and its initrd with another `/init` appended (the kernel
unpacks concatenated archives, later files over earlier ones).
"""

from __future__ import annotations

import io
import os
import shutil
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CMDLINE = b"quiet loglevel=0 panic=-1 audit=0 8250.nr_uarts=0"
MODULES = (
    "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console virtio_blk"
)

HEAD = r"""#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc; busybox mount -t sysfs sys /sys; busybox mount -t devtmpfs dev /dev
for module in MODULES; do busybox insmod /lib/modules/*/$module.ko; done
until [ -e /dev/vport0p1 ] || [ -e /dev/vport1p1 ] || [ -e /dev/vport2p1 ]; do busybox sleep 0.01; done
exec 3<>$(echo /dev/vport*p1)
control() {
  length=$(busybox printf '%08x' ${#1})
  busybox printf "\\x01\\x00\\x00\\x00\\x00\\x${length:0:2}\\x${length:2:2}\\x${length:4:2}\\x${length:6:2}%s" "$1" >&3
}
phase() { control "{\"kind\":\"phase\",\"milliseconds\":1,\"name\":\"$1\"}"; }
control '{"kind":"hello"}'
"""
REPORT = r"""
phase "pcr0-$(busybox tr A-F a-f </sys/class/tpm/tpm0/pcr-sha256/0 | busybox cut -c 1-32)"
phase "pcr0-$(busybox tr A-F a-f </sys/class/tpm/tpm0/pcr-sha256/0 | busybox cut -c 33-64)"
for disk in /sys/block/vd*; do phase "disk-$(busybox cat $disk/serial)-ro$(busybox cat $disk/ro)"; done
phase "date-$(busybox date +%Y)"
phase "net-$(busybox ls /sys/class/net | busybox tr '\n' '-')end"
"""
DONE = 'control \'{"kind":"done"}\'\nbusybox sleep 100\n'


def build(folder: Path, base: Path, script: str = REPORT + DONE) -> Path:
    """Write a base folder after the real one in `base`."""
    folder.mkdir()
    shutil.copy(base / "bzImage", folder)
    (folder / "cmdline").write_bytes(CMDLINE)
    (folder / "base.disk").write_bytes(bytes(4096))
    archive = Cpio()
    archive.file("init", (HEAD.replace("MODULES", MODULES) + script).encode(), 0o755)
    (folder / "initrd").write_bytes((base / "initrd").read_bytes() + archive.done())
    return folder


class Cpio:
    """The `newc` format, as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format)."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._number = 0

    def file(self, name: str, content: bytes, mode: int) -> None:
        self._entry(name, content, stat.S_IFREG | mode)

    def done(self) -> bytes:
        self._entry("TRAILER!!!", b"", 0)
        return self._out.getvalue()

    def _entry(self, name: str, content: bytes, mode: int) -> None:
        self._number += 1
        path = os.fsencode(name) + b"\0"
        numbers = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        self._out.write(b"070701" + b"".join(b"%08x" % one for one in numbers) + path)
        self._out.write(bytes(-self._out.tell() % 4))
        self._out.write(content)
        self._out.write(bytes(-self._out.tell() % 4))
