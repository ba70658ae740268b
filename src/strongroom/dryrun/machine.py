"""What a dry run takes of this machine: root's rights, loop devices, a control group. Linux alone.

Everything is undone by whoever leaves the blocks; mounts are never made in the caller's own mount namespace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.agent import init, kernel
from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LOOP_READ_ONLY, _LOOP_AUTOCLEAR = 1, 4
_LOOP_CONFIG = struct.Struct("=II 5Q 4I 64s64s32s 2Q 64s")  # linux/loop.h, struct loop_config
_TRIES = 16
_READ_ONLY = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
_GROUP = "strongroom-try-"  # and the number of the process
_LEAVE_TRIES = 500
_PAUSE = 0.01


@dataclass(frozen=True, kw_only=True)
class Group:
    """A control group that bounds the program's memory and processes.

    folder: of version 2, as the agent takes it; empty for version 1. places: all its folders, of either version, the
    memory's first; none where this machine has no such groups.
    """

    folder: str
    places: tuple[str, ...]

    def admit(self, pid: int) -> None:
        """Put a process into it, and with it all that it will start."""
        for place in self.places:
            Path(place, "cgroup.procs").write_text(str(pid))

    def peak(self) -> int | None:
        """The most bytes that it held at once, where the kernel says so."""
        for name in ("memory.peak", "memory.max_usage_in_bytes") if self.places else ():
            with contextlib.suppress(OSError):
                return int(Path(self.places[0], name).read_text())
        return None


def require() -> None:
    """Raise `Unavailable` where a dry run cannot be: it says what is missing."""
    if os.geteuid() != 0:
        raise Unavailable(
            "a dry run takes root: it mounts the image, makes device files and gives files other owners",
            code="not-root",
            hint="run it with sudo; `strongroom preflight` says without any rights what can be seen from outside",
        )
    with contextlib.suppress(OSError):
        if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
            raise Unavailable(
                "this machine allows no user namespaces, and a room's program runs in one of its own",
                code="no-user-namespaces",
                hint="sysctl user.max_user_namespaces=65536",
            )
    if not Path("/dev/loop-control").exists():
        raise Unavailable(
            "this machine has no loop devices, by which the image is mounted",
            code="no-loop-device",
            hint="modprobe loop; in a container, give it /dev/loop-control and the devices",
        )


@contextlib.contextmanager
def group(memory: int) -> Iterator[Group]:
    """A control group of `memory` bytes, removed in the end. Its `places` are empty where this machine has no such groups."""
    own = f"{_GROUP}{os.getpid()}"
    new = Path(init.CGROUPS, "cgroup.controllers")
    for parent in (Path(init.CGROUPS), Path(init.CGROUPS, "memory"), Path(init.CGROUPS, "pids")):
        _remove_killed(parent)
    if new.exists() and "memory" in new.read_text().split():
        place = init.make_cgroup(memory, f"{init.CGROUPS}/{own}")
        control_group = Group(folder=place, places=(place,))
    else:
        control_group = Group(folder="", places=_old_groups(memory, own))
    try:
        yield control_group
    finally:
        for place in control_group.places:
            _remove(place)


def _old_groups(memory: int, own: str) -> tuple[str, ...]:
    """Of version 1, where a machine still has it."""
    folders = []
    for kind, limit, value in (
        ("memory", "memory.limit_in_bytes", memory),
        ("pids", "pids.max", init.MOST_PROCESSES),
    ):
        folder = Path(init.CGROUPS, kind, own)
        if not folder.parent.joinpath("tasks").exists():
            return ()
        folder.mkdir()
        folder.joinpath(limit).write_text(str(value))
        folders.append(str(folder))
    return tuple(folders)


def _remove_killed(parent: Path) -> None:
    """Remove the groups of dry runs that SIGKILL ended: nobody lived to do so, and a later process may get the same number."""
    for place in parent.glob(f"{_GROUP}*"):
        number = place.name.removeprefix(_GROUP)
        if number == str(os.getpid()) or not Path("/proc", number).exists():
            with contextlib.suppress(OSError):  # its last process is still ending
                place.rmdir()


def _remove(place: str) -> None:
    """Remove an empty control group; those that left it may take a moment."""
    for _ in range(_LEAVE_TRIES):
        try:
            os.rmdir(place)  # noqa: PTH106 - as the agent has its path
            return
        except FileNotFoundError:
            return
        except OSError as cause:
            if cause.errno != errno.EBUSY:
                raise
            time.sleep(_PAUSE)


def mount(disk: int, target: str) -> None:
    """Mount the EROFS in the file of a descriptor, read-only. The loop device goes with its mount."""
    for _ in range(_TRIES):
        with open("/dev/loop-control", "rb") as control:  # noqa: PTH123 - a device
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        with open(device, "rb") as loop:  # noqa: PTH123 - a device
            flags = _LOOP_READ_ONLY | _LOOP_AUTOCLEAR
            request = _LOOP_CONFIG.pack(
                disk, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, b"strongroom try", b"", b"", 0, 0, b""
            )
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, request)
            except OSError as cause:
                if cause.errno == errno.EBUSY:
                    continue  # somebody else was faster
                raise
            kernel.mount(device, target, "erofs", _READ_ONLY)
            return
    raise Unavailable(
        "no loop device stays free for the image",
        code="no-loop-device",
        hint="`losetup --list` shows who holds them, `losetup --detach DEVICE` frees one",
    )
