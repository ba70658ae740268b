"""What a room is started from, and the launch record that says so.

Firmware, kernel and initrd are copied into sealed memory files: nobody can change them between the
moment they are hashed and the moment QEMU reads them. QEMU gets these copies, never the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.errors import Malformed, NotFound
from strongroom.model.room.launch import LaunchRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRMWARE = Path("/usr/share/seabios/bios-256k.bin")
KERNEL, INITRD, CMDLINE, DISK = "bzImage", "initrd", "cmdline", "base.disk"
MACHINE = "q35"
MAX_PART = 1 << 30
MAX_CMDLINE = 2047  # the x86 boot protocol's usual COMMAND_LINE_SIZE, without its NUL
_CHUNK = 8 << 20
_DAMAGED = "that is no base as it was built: `strongroom base build` makes one, and `--base` names it"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Sealed copies as file descriptors, the command line's bytes, and the base's disk.

    The disk is not measured: the command line names its root hash.
    """

    firmware: int
    kernel: int
    initrd: int
    cmdline: bytes
    disk: Path

    def record(self, *, memory_guard: bool) -> LaunchRecord:
        """The launch record, hashed from the sealed copies themselves."""
        return LaunchRecord(
            firmware=_digest(self.firmware),
            kernel=_digest(self.kernel),
            initrd=_digest(self.initrd),
            cmdline=digest.sha256(self.cmdline),
            machine=MACHINE,
            memory_guard=memory_guard,
        )


@contextlib.contextmanager
def opened(base: Path, *, firmware: Path = FIRMWARE) -> Iterator[Measured]:
    """Copy a base's parts. Raises `NotFound` for a missing part, `Malformed` for one that cannot be."""
    cmdline = read_cmdline(base)
    disk = base / DISK
    if not disk.is_file():
        raise _missing(disk)
    with contextlib.ExitStack() as stack:
        copies = []
        for path in (firmware, base / KERNEL, base / INITRD):
            copies.append(_sealed_copy(path))
            stack.callback(os.close, copies[-1])
        yield Measured(firmware=copies[0], kernel=copies[1], initrd=copies[2], cmdline=cmdline, disk=disk)


def read_cmdline(base: Path) -> bytes:
    """The kernel command line's exact bytes."""
    try:
        data = (base / CMDLINE).read_bytes()
    except OSError:
        raise _missing(base / CMDLINE) from None
    if not data or len(data) > MAX_CMDLINE or not data.isascii() or b"\x00" in data:
        raise Malformed(
            f"{base / CMDLINE}: expected 1 to {MAX_CMDLINE} ASCII characters",
            code="bad-cmdline",
            hint=_DAMAGED,
        )
    return data


def _sealed_copy(path: Path) -> int:
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise _missing(path) from None
    try:
        copy = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            total = 0
            while count := os.sendfile(copy, source, None, _CHUNK):
                total += count
                if total > MAX_PART:
                    raise Malformed(f"{path}: larger than {MAX_PART} bytes", code="too-large", hint=_DAMAGED)
            if not total:
                raise Malformed(f"{path}: empty", code="truncated", hint=_DAMAGED)
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(copy)
            raise
    finally:
        os.close(source)
    return copy


def _digest(fd: int) -> str:
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
        return "sha256:" + hashlib.sha256(data).hexdigest()


def _missing(path: Path) -> NotFound:
    hint = "build a base with `strongroom base build`"
    if path == FIRMWARE:
        hint = "apt-get install seabios (Debian, Ubuntu)"
    return NotFound(f"{path}: not there, or not readable", code="no-base", hint=hint)
