"""A sealed disk under the room's own kernel: dm-verity, dm-crypt and EROFS read back what Python wrote.

The real base's kernel and initramfs, with another /init behind it: it maps the disk with the table lines of the agent
and lists every file's digest, mode, owner and size onto a second disk. No agent and no TPM are needed for that.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess

import pytest

from strongroom.agent.disks import devicemapper
from strongroom.bases import build
from strongroom.crypto import sign
from strongroom.seal import disk
from strongroom.seal.tree import EntryKind, validate
from tests.e2e.tiny import Cpio
from tests.unit.seal.trees import noise, rich

pytestmark = [
    pytest.mark.room,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]

KEY = noise(64, 11)
SIZE = 1 << 20

INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
$b modprobe -a MODULES
/sbin/dmsetup create v --readonly --noudevsync --noudevrules --table "0 SECTORS verity VERITY"
/sbin/dmsetup create c --readonly --noudevsync --noudevrules --table "0 SECTORS crypt CRYPT"
$b mount -t erofs -o ro /dev/dm-1 /root
cd /root
( $b find . -type f -exec $b sha256sum {} + | $b sort -k 2
  echo ---
  $b find . -exec $b stat -c '%f %u %g %Y %n' {} + | $b sort -k 5
  echo ---
  $b find . -type l -exec $b readlink {} \\; | $b sort
  echo END ) > /out 2>&1
$b dd if=/out of=/dev/vdb bs=4096 conv=sync,fsync
$b poweroff -f
"""


def test_the_room_s_kernel_reads_what_was_sealed(tmp_path):
    built = build.build(build.sources(), build.default_cache(dict(os.environ)), lambda _line: None)
    entries = [entry for entry in rich() if entry.path.isascii() and b"\n" not in entry.path]
    made = disk.seal(
        entries,
        kind="dataset",
        name="f",
        owner_key=sign.SigningKey(bytes(32)),
        key=KEY,
        image=None,
        target=tmp_path / "f.disk",
    )
    initrd = (built.folder / "initrd").read_bytes()
    modules = re.search(rb"modprobe -a ([a-z0-9_ ]+)\n", initrd)
    script = _script(made).replace("MODULES", modules[1].decode())
    archive = Cpio()
    archive.file("init", script.encode(), 0o755)
    (tmp_path / "initrd").write_bytes(initrd + archive.done())
    (tmp_path / "answer").write_bytes(bytes(SIZE))
    subprocess.run(
        [
            *("qemu-system-x86_64", "-machine", "q35,smm=off", "-cpu", "max", "-m", "512", "-nodefaults"),
            *(
                "-display",
                "none",
                "-no-reboot",
                "-kernel",
                built.folder / "bzImage",
                "-initrd",
                tmp_path / "initrd",
            ),
            *("-append", "quiet panic=-1 cryptomgr.notests"),
            *("-drive", f"if=virtio,format=raw,readonly=on,file={tmp_path / 'f.disk'}"),
            *("-drive", f"if=virtio,format=raw,file={tmp_path / 'answer'}"),
        ],
        check=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    digests, stats, links = (tmp_path / "answer").read_bytes().split(b"END")[0].decode().split("---\n")
    assert dict(reversed(line.split(maxsplit=1)) for line in digests.splitlines()) == {
        _name(e): hashlib.sha256(e.open().read()).hexdigest() for e in entries if e.open
    }
    kinds = {EntryKind.FILE: 0o100000, EntryKind.DIRECTORY: 0o040000, EntryKind.SYMLINK: 0o120000}
    assert {line.split(maxsplit=4)[4]: line.split(maxsplit=4)[:4] for line in stats.splitlines()} == {
        _name(e): [f"{kinds[e.kind] | e.mode:x}", str(e.uid), str(e.gid), str(e.mtime)]
        for e in validate(entries)
    }
    assert links.split() == sorted(e.target.decode() for e in entries if e.kind is EntryKind.SYMLINK)


def _script(made: disk.Manifest) -> str:
    verity = devicemapper.verity_target(
        device="/dev/vda",
        data_bytes=made.data_bytes,
        hash_offset=made.hash_offset,
        root_hash=made.root_hash,
        salt=made.salt,
    )
    crypt = devicemapper.crypt_target(device="/dev/dm-0", data_bytes=made.data_bytes, key=KEY)
    return (
        INIT.replace("SECTORS", str(made.data_bytes // 512))
        .replace("VERITY", bytes(verity.parameters).decode())
        .replace("CRYPT", bytes(crypt.parameters).decode())
    )


def _name(entry) -> str:
    return "./" + entry.path.decode() if entry.path else "."
