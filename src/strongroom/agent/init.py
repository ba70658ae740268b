"""The agent's own housekeeping as process 1: mounts, entropy, memory sizes, time limits, power."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import time
from typing import TYPE_CHECKING, NoReturn

from strongroom.agent import kernel
from strongroom.errors import Refused, Unavailable

if TYPE_CHECKING:
    from types import FrameType

_NO_MEMORY_SIZE = "the kernel of the base does not say it in /proc/meminfo: build the base anew"

CGROUPS = "/sys/fs/cgroup"
SECURITY = "/sys/kernel/security"
ROOM = "/run/room"
AGENT_RESERVE = 48 << 20
_LEAST_PROGRAM_MEMORY = 64 << 20
MOST_PROCESSES = 4096
_OPEN_FILES = 8192  # of the agent
_RNDADDENTROPY = 0x40085203
_GRACE_SECONDS = 30.0
_WANTED_MOUNTS = (("securityfs", SECURITY), ("cgroup2", CGROUPS), ("configfs", "/sys/kernel/config"))


def set_up() -> None:
    """Mount what the agent needs beside /proc, /sys, /dev, /run, and be the last to die of memory shortage."""
    os.umask(0o022)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    for kind, folder in _WANTED_MOUNTS:
        try:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount(kind, folder, kind, flags)
        except OSError as cause:
            # Already mounted is as good. Without securityfs the evidence has no event log: its verifier decides.
            # Without configfs there is no report of SEV-SNP by it and no quote of TDX: `devices.detect` decides.
            if cause.errno not in (errno.EBUSY, errno.ENOENT, errno.ENODEV):
                raise
    with open("/proc/self/oom_score_adj", "wb") as file:
        file.write(b"-1000")
    os.makedirs(ROOM, 0o700, exist_ok=True)


def allow_sockets() -> None:
    """Let the agent open as many files as its program may have streams, each of which is a socket of the agent's."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, max(hard, _OPEN_FILES)))


def watch(seconds: float) -> None:
    """Give the agent `seconds` from now: then `Unavailable` is raised wherever it is, and a little later
    the power goes off without another word. SIGTERM has the first effect at once.
    """
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.signal(signal.SIGTERM, _told_to_stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, _GRACE_SECONDS)


def _time_is_up(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGALRM, _enough)
    raise Unavailable(
        "the room's time is up", code="timed-out", hint="the broker, the node or the disks were too slow"
    )


def _enough(_number: int, _frame: FrameType | None) -> None:
    kernel.power_off()


def _told_to_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Unavailable("the room was asked to stop", code="stopped")


def uptime_milliseconds() -> int:
    """Milliseconds since the kernel started."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def add_entropy(data: bytes) -> None:
    """Mix `data`, if there is any, into the kernel's generator and credit it in full."""
    if not data:
        return
    request = (8 * len(data)).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data
    with open("/dev/urandom", "wb", buffering=0) as pool:
        fcntl.ioctl(pool.fileno(), _RNDADDENTROPY, request)


def available_memory() -> int:
    """Bytes that a program could have now (MemAvailable)."""
    return _memory(b"MemAvailable:")


def complain_if_small(agreed_mib: int) -> None:
    """Raise `Refused` (`too-little-memory`) where the machine has less memory than the contract gives its program.

    No evidence covers how much there is. A program that goes on when memory or its folders are full would leave out
    what the host chooses.
    """
    total = _memory(b"MemTotal:") >> 20
    if total < agreed_mib:
        raise Refused(
            f"the room has {total} MiB of memory, and its program alone is to have {agreed_mib}",
            code="too-little-memory",
            hint="the node starts rooms with more than the contract's memory_mib; somebody gave this room less",
        )


def _memory(name: bytes) -> int:
    """A figure of the kernel's, in bytes."""
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    raise Unavailable(
        "the kernel does not say how much memory there is", code="no-meminfo", hint=_NO_MEMORY_SIZE
    )


def sealing_memory() -> int:
    """Bytes that sealed outputs may take now, once no program runs any more."""
    return available_memory() - AGENT_RESERVE


def program_memory(available: int, agreed: int) -> int:
    """What the program may use of `available` bytes: what was `agreed`, and never what the agent needs."""
    return min(agreed, max(available - AGENT_RESERVE, _LEAST_PROGRAM_MEMORY))


def make_cgroup(memory: int, folder: str = f"{CGROUPS}/program") -> str:
    """A control group for the program with `memory` bytes, dying as a whole; its folder."""
    try:
        _write(f"{CGROUPS}/cgroup.subtree_control", "+memory +pids")
        os.mkdir(folder)
        _write(f"{folder}/memory.max", str(memory))
        _write(f"{folder}/memory.oom.group", "1")
        _write(f"{folder}/pids.max", str(MOST_PROCESSES))
    except OSError as cause:
        raise Unavailable(
            f"making the program's control group: {cause.strerror} {cause.filename or ''}".strip(),
            code="no-cgroup",
            hint="the base's kernel needs control groups version 2 with memory and pids",
        ) from None
    return folder


def mount_memory(folder: str, size: int, mode: str) -> None:
    """A tmpfs of `size` bytes."""
    os.makedirs(folder, 0o700, exist_ok=True)
    kernel.mount("tmpfs", folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={size},mode={mode}")


def _write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())
