"""The initrd: modules, the record of failed reads, dm-verity over the base's disk, and the agent. No decisions; any
failure powers off.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst (cpio "newc", uncompressed: the kernel's
own decompression is what emulation is slow at). Every byte follows from the files that go in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.bases.files import File
from strongroom.bases.packages import debs as base_debs
from strongroom.bases.profile import Find
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from strongroom.bases.profile import Profile

BUSYBOX = "bin/busybox"
DMSETUP = "sbin/dmsetup"
LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = (
    "libc.so.6",
    "libdevmapper.so.1.02.1",
    "libm.so.6",
    "libpcre2-8.so.0",
    "libselinux.so.1",
    "libudev.so.1",
)
LIBRARY_FOLDER = "lib/x86_64-linux-gnu"
SERIAL = "base"
PARTITION = "strongroom-base"  # the name of the base's partition in a disk image
RAMDISK = "base.disk"  # the base's disk as a file of a second ramdisk

_DEPENDS = re.compile(rb"\x00depends=([a-z0-9_,-]*)\x00")
_MODULE = re.compile(r"lib/modules/([^/]+)/kernel/(?:.+/)?([^/]+)\.ko")
BUILT_IN = re.compile(r"lib/modules/[^/]+/modules\.builtin")
_MODE_DIRECTORY, _MODE_FILE = 0o040755, 0o100000

# $1 is the base's root hash, $2 its number of data blocks: from the measured command line.
# dm-verity: version 1, 4096-byte blocks, the tree right behind the superblock, SHA-256, no salt.
# A block that does not verify is a panic, and a panic ends the machine.
# Before the first block is read, the kernel begins to record each request to a device mapper device that ends with an
# error. The agent inherits the record as descriptor 3 (`agent/disks/reads`), and nobody opens or changes it again: lockdown.
INIT = """\
#!/bin/busybox sh
set -eu
trap 'exec /bin/busybox {end}' EXIT
b=/bin/busybox
$b mount -t proc -o nosuid,nodev,noexec proc /proc
$b mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
$b mount -t devtmpfs -o nosuid,noexec,mode=0755 dev /dev
exec </dev/null >{output} 2>&1
$b modprobe -a {modules}
{drivers}{fast}echo 1 >/proc/sys/kernel/modules_disabled
trace=/sys/kernel/tracing
$b mount -t tracefs -o nosuid,nodev,noexec tracefs $trace
echo 64 >$trace/buffer_size_kb
echo 'error != 0' >$trace/events/block/block_bio_complete/filter
echo 1 >$trace/events/block/block_bio_complete/enable
exec 3<$trace/trace_pipe
$b umount -l $trace
$b mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
echo confidentiality >/sys/kernel/security/lockdown
root= blocks= disk=
for word in $($b cat /proc/cmdline); do
    case $word in
        strongroom.root=*) root=${{word#*=}} ;;
        strongroom.blocks=*) blocks=${{word#*=}} ;;
    esac
done
{find}/{dmsetup} create base --readonly --noudevsync --noudevrules --table "0 $((blocks * 8)) verity 1 $disk $disk \\
4096 4096 $blocks $((blocks + 1)) sha256 $root - 1 panic_on_corruption"
$b mount -t erofs -o ro,nodev /dev/dm-0 /root
$b mount -t tmpfs -o nosuid,nodev,mode=0755 run /root/run
$b mount -t tmpfs -o nosuid,nodev,mode=1777 tmp /root/tmp
for folder in proc sys dev; do $b mount -o move /$folder /root/$folder; done
cd /root
exec $b env -i PATH=/usr/bin {switch} /root {agent}
"""
# Drivers of what this machine may not have: Linux refuses those.
_DRIVERS = """\
for driver in {drivers}; do $b modprobe $driver || :; done
"""
# Emulation runs assembler slowly, and QEMU 7.2 some of it wrongly.
_FAST = """\
$b grep -q 'QEMU TCG' /proc/cpuinfo || for driver in {drivers}; do $b modprobe $driver || :; done
"""
_FIND = {
    Find.SERIAL: """\
for device in /sys/block/vd*; do
    if [ "$($b cat "$device/serial")" = {serial} ]; then disk=/dev/${{device##*/}}; fi
done
""",
    # Controllers announce their disks when they are ready: thirty seconds are enough.
    Find.PARTITION: """\
tries=0
while [ -z "$disk" ]; do
    for device in /sys/class/block/*; do
        if [ "$($b cat "$device/serial")" = {serial} ] || $b grep -qx PARTNAME={partition} "$device/uevent"; then
            disk=/dev/${{device##*/}}
        fi
    done
    tries=$((tries + 1))
    [ $tries -lt 300 ]
    [ -n "$disk" ] || $b sleep 0.1
done
""",
    Find.RAMDISK: """\
disk=/dev/loop0
$b losetup -r $disk /{ramdisk}
""",
}


@dataclass(frozen=True, kw_only=True)
class Agent:
    """What runs as process 1 of the base: program and arguments, plain words."""

    command: tuple[str, ...]


def build(files: Mapping[str, File], agent: Agent, profile: Profile, *, console: bool) -> bytes:
    """The initrd. `files` are the packages' by path; `console` sends messages to the debugging console.

    Raises `Malformed` when something that belongs in is missing.
    """
    modules, release = order_modules(files, profile.all_modules)
    needed = order_modules(files, profile.modules)[0]
    usual = order_modules(files, (*profile.modules, *profile.drivers))[0]
    drivers = " ".join(name for name, _ in usual[len(needed) :])
    fast = " ".join(name for name, _ in modules[len(usual) :])
    find = _FIND[profile.find].format(serial=SERIAL, partition=PARTITION, ramdisk=RAMDISK)
    script = INIT.format(
        modules=" ".join(name for name, _ in needed),
        drivers=_DRIVERS.format(drivers=drivers) if drivers else "",
        fast=_FAST.format(drivers=fast) if fast else "",
        find=find,
        end=profile.end,
        dmsetup=DMSETUP,
        switch="$b switch_root",
        output="/dev/console" if console else "/dev/null",
        agent=" ".join(agent.command),
    )
    folder = f"lib/modules/{release}"
    out = {
        "init": File(content=script.encode(), executable=True),
        BUSYBOX: _take(files, BUSYBOX),
        DMSETUP: _take(files, DMSETUP),
        LOADER: _take(files, LOADER),
        f"{folder}/modules.dep": File(content=_dependencies(modules).encode()),
    }
    for name in LIBRARIES:
        out[f"{LIBRARY_FOLDER}/{name}"] = _take(
            files, f"{LIBRARY_FOLDER}/{name}", f"usr/{LIBRARY_FOLDER}/{name}"
        )
    for name, path in modules:
        out[f"{folder}/{name}.ko"] = files[path]
    return archive(out, folders=("dev", "proc", "root", "sys"))


def archive(files: Mapping[str, File], *, folders: Iterable[str] = ()) -> bytes:
    """A cpio archive in format newc: `files`, the folders above them, and empty `folders`; owner root, time 0."""
    names = set(folders)
    for path in files:
        parts = path.split("/")[:-1]
        names |= {"/".join(parts[: count + 1]) for count in range(len(parts))}
    out = bytearray()
    for number, path in enumerate(sorted({*names, *files}), 1):
        if path in names:
            _record(out, number, path, _MODE_DIRECTORY, b"")
        else:
            _record(out, number, path, _MODE_FILE | files[path].mode, files[path].content)
    _record(out, 0, "TRAILER!!!", 0, b"")
    return bytes(out)


def ramdisk(disk: bytes) -> bytes:
    """A second ramdisk that brings the base's disk where there is none."""
    return archive({RAMDISK: File(content=disk)})


def order_modules(files: Mapping[str, File], names: Iterable[str]) -> tuple[list[tuple[str, str]], str]:
    """The kernel modules `names` as (name, path), each behind those it depends on, and the kernel's release.

    What the kernel has built in is left out. Raises `Malformed` for a name that it has in neither way.
    """
    paths: dict[str, str] = {}
    releases: set[str] = set()
    builtin: set[str] = set()
    for path, file in files.items():
        if BUILT_IN.fullmatch(path) is not None:
            builtin |= {_name(line) for line in file.content.decode("ascii", "replace").splitlines()}
        match = _MODULE.fullmatch(path)
        if match is not None:
            releases.add(match[1])
            paths[match[2].replace("-", "_")] = path
    if len(releases) != 1:
        raise Malformed(
            f"initrd: modules of {len(releases)} kernels", code="bad-package", hint=base_debs.OTHER_PACKAGES
        )
    ordered: dict[str, str] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in ordered or name in builtin:
            return
        if name not in paths or name in above:
            raise Malformed(
                f"initrd: the kernel has no usable module {name}",
                code="bad-package",
                hint=base_debs.OTHER_PACKAGES,
            )
        for needed in depends(files[paths[name]].content):
            add(needed, (*above, name))
        ordered[name] = paths[name]

    for name in names:
        add(name, ())
    return list(ordered.items()), releases.pop()


def _name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def depends(module: bytes) -> tuple[str, ...]:
    """The modules that a module's `.modinfo` names as needed."""
    match = _DEPENDS.search(module)
    if match is None:
        raise Malformed(
            "kernel module: no list of dependencies", code="bad-package", hint=base_debs.OTHER_PACKAGES
        )
    return tuple(name.replace("-", "_") for name in match[1].decode().split(",") if name)


def _dependencies(modules: list[tuple[str, str]]) -> str:
    # `modprobe -a` gets them in order, each behind what it needs: nothing is left to find out.
    return "".join(f"{name}.ko:\n" for name, _ in modules)


def _take(files: Mapping[str, File], *paths: str) -> File:
    for path in paths:
        if path in files:
            return files[path]
    raise Malformed(f"initrd: no package has {paths[0]}", code="bad-package", hint=base_debs.OTHER_PACKAGES)


def _record(out: bytearray, number: int, path: str, mode: int, content: bytes) -> None:
    name = path.encode() + b"\x00"
    numbers = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in numbers) + name
    out += bytes(-len(out) % 4) + content
    out += bytes(-len(out) % 4)
