"""A base of a few lines of shell: it speaks the channel as an agent does, and reports PCR 0 as a phase."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

MODULES = (
    "virtio/virtio_ring.ko",
    "virtio/virtio.ko",
    "virtio/virtio_pci_legacy_dev.ko",
    "virtio/virtio_pci_modern_dev.ko",
    "virtio/virtio_pci.ko",
    "char/virtio_console.ko",
    "block/virtio_blk.ko",
)
BUSYBOX = Path("/usr/bin/busybox")
CMDLINE = b"quiet panic=-1 nokaslr mitigations=off rdinit=/init"

HEAD = r"""#!/bin/busybox sh
busybox mount -t proc proc /proc; busybox mount -t sysfs sys /sys; busybox mount -t devtmpfs dev /dev
for module in /modules/*; do busybox insmod $module; done
busybox mkdir -p /run
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
phase "net-$(busybox ls /sys/class/net | busybox tr '\n' '.')end"
"""
DONE = 'control \'{"kind":"done"}\'\nbusybox sleep 100\n'


def build(folder: Path, *, kernel: Path, modules: Path, script: str = REPORT + DONE) -> Path:
    """Write a base folder. `modules`: the kernel's `drivers` folder."""
    folder.mkdir()
    (folder / "bzImage").write_bytes(kernel.read_bytes())
    (folder / "cmdline").write_bytes(CMDLINE)
    (folder / "base.disk").write_bytes(bytes(4096))
    archive = _Cpio()
    for name in ("bin", "dev", "proc", "sys", "modules"):
        archive.folder(name)
    archive.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    archive.file("init", (HEAD + script).encode(), 0o755)
    for number, name in enumerate(MODULES):
        archive.file(f"modules/{number}.ko", (modules / name).read_bytes(), 0o644)
    (folder / "initrd").write_bytes(archive.done())
    return folder


class _Cpio:
    """The `newc` format, as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format)."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._number = 0

    def folder(self, name: str) -> None:
        self._entry(name, b"", stat.S_IFDIR | 0o755)

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
