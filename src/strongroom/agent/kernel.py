"""The system calls that Python 3.11 does not offer, by way of the C library. x86-64 Linux.

Every function raises `OSError` as `os` does.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECCOMP = 22
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

_SYS_PIVOT_ROOT = 155
_SYS_CAPSET = 126
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _AT_EMPTY_PATH, _AT_FDCWD = 0x1, 0x4, 0x1000, -100
_MOUNT_ATTR_IDMAP = 0x100000
_SYS_CLOSE_RANGE = 436
_CLOSE_RANGE_CLOEXEC = 4
_LAST_FD = 0xFFFFFFFF
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_CAPABILITY_VERSION_3 = 0x20080522
_POWER_OFF, _RESTART = 0x4321FEDC, 0x01234567
# Of the base's command line: this machine has nothing that powers off, and ends when it resets.
_ENDS_BY_RESET = b"reboot=k"


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system, or change a mount."""
    _check(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
        ),
        f"mounting {kind or source} on {target}",
    )


def bind(source: str, target: str, flags: int) -> None:
    """Bind `source` on `target`, then give that mount `flags` (a bind mount takes them only afterwards)."""
    mount(source, target, "", MS_BIND)
    mount("none", target, "", MS_BIND | MS_REMOUNT | flags)


def bind_mapped(source: str, target: str, flags: int, users: int) -> None:
    """Bind `source` on `target` with `flags`, its owners as the user namespace `users` (a descriptor) sees them.

    An owner N on the disk is that namespace's N, and nobody where it has none (mount_setattr(2), MOUNT_ATTR_IDMAP).
    The file system must be able to: erofs is from Linux 5.19 on, tmpfs from 6.3 on.
    """
    clone = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    tree = _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, source.encode(), clone)
    _check(min(tree, 0), f"opening {source}")
    try:
        # The flags of mount(2) up to MS_NOEXEC are those of mount_setattr(2).
        attributes = struct.pack("=QQQQ", flags | _MOUNT_ATTR_IDMAP, 0, 0, users)
        size = ctypes.c_size_t(len(attributes))
        _check(
            _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, size),
            f"mapping the owners of {source}",
        )
        _check(
            _libc.syscall(
                _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH
            ),
            f"mounting {source} on {target}",
        )
    finally:
        os.close(tree)


def ioctl(fd: int, request: int, buffer: bytearray) -> None:
    """A device's own request, which reads and writes `buffer` in place, while other threads run.

    `fcntl.ioctl` lets none run when the buffer is larger than 1 KiB. A request that opens a disk would wait for the
    disk, and the disk (`nbd`) for its thread.
    """
    words = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    _check(_libc.ioctl(fd, ctypes.c_ulong(request), words), f"ioctl {request:#x}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount, lazily by default."""
    _check(_libc.umount2(target.encode(), flags), f"unmounting {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of the mount namespace."""
    _check(_libc.syscall(_SYS_PIVOT_ROOT, new_root.encode(), put_old.encode()), f"pivoting to {new_root}")


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for fresh ones."""
    _check(_libc.unshare(flags), "making namespaces")


def enter(namespace: int, kind: int) -> None:
    """Enter the namespace of a descriptor, of that kind (a CLONE_NEW… flag)."""
    _check(_libc.setns(namespace, kind), "entering a namespace")


def sethostname(name: str) -> None:
    """Name the host, in this UTS namespace."""
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), "setting the host name")


def adjust_time(seconds: float) -> None:
    """Have the wall clock run faster or slower until it is by `seconds` off from where it would be: adjtime(3)."""
    whole = int(seconds // 1)
    value = (ctypes.c_long * 2)(whole, int((seconds - whole) * 1_000_000))
    _check(_libc.adjtime(ctypes.byref(value), None), "adjusting the clock")


def prctl(option: int, *arguments: int) -> None:
    """Set a process attribute; integer arguments only."""
    words = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *words), f"prctl {option}")


def set_seccomp(program: bytes) -> None:
    """Install a BPF program (8 bytes an instruction). No new privileges must be set already."""
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    handle = Program(len(program) // 8, ctypes.addressof(code))
    _check(
        _libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(handle), 0, 0),
        "installing the system call filter",
    )


def close_on_exec(first: int) -> None:
    """Every open file descriptor from `first` on is closed by the next execution."""
    _close_range(first, _LAST_FD, _CLOSE_RANGE_CLOEXEC)


def close_all(first: int, *, but: Iterable[int]) -> None:
    """Close every file descriptor from `first` on now, but for those."""
    for kept in sorted(descriptor for descriptor in but if descriptor >= first):
        if first < kept:
            _close_range(first, kept - 1, 0)
        first = kept + 1
    _close_range(first, _LAST_FD, 0)


def _close_range(first: int, last: int, flags: int) -> None:
    numbers = (ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(flags))
    _check(_libc.syscall(_SYS_CLOSE_RANGE, *numbers), "closing files")


def lead_plainly(path: str) -> None:
    """Raise `OSError` (ELOOP) for a path that leads through /proc's links to what processes have open.

    Only the kernel knows them: `readlink` says of them what is not so in this root (openat2(2), RESOLVE_NO_MAGICLINKS).
    """
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS)
    descriptor = _libc.syscall(_SYS_OPENAT2, _AT_FDCWD, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    os.close(descriptor)


def drop_capabilities() -> None:
    """No permitted, effective or inheritable capability is left."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.syscall(_SYS_CAPSET, header, nothing), "dropping capabilities")


def power_off() -> None:
    """End the machine. Returns only where that is not allowed."""
    os.sync()
    _check(_libc.reboot(ctypes.c_int(ending("/proc/cmdline"))), "powering off")


def ending(cmdline: str) -> int:
    """How this machine ends, by its command line (a file): what powers off, or what resets. Unreadable: powers off."""
    try:
        with open(cmdline, "rb") as file:
            return _RESTART if _ENDS_BY_RESET in file.read().split() else _POWER_OFF
    except OSError:
        return _POWER_OFF


def wipe(buffer: bytearray) -> None:
    """Overwrite `buffer` in place."""
    ctypes.memset((ctypes.c_char * len(buffer)).from_buffer(buffer), 0, len(buffer))


def _check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
