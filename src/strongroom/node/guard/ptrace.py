"""The kernel calls that the memory guard needs: ptrace(2), wait status, and two lists of numbers. x86-64 only.

Every function raises `OSError`; `ProcessLookupError` means that the thread died or is not stopped, which
can happen between any two calls and is never an error of the program.
"""

from __future__ import annotations

import ctypes
import os
from typing import ClassVar

LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE = LIBC.ptrace
_PTRACE.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_PTRACE.restype = ctypes.c_long

# Requests of ptrace(2).
_CONT, _GETREGS, _SETREGS, _DETACH = 7, 12, 13, 17
_GETEVENTMSG, _SEIZE, _INTERRUPT, _LISTEN = 0x4201, 0x4206, 0x4207, 0x4208
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B

# What a stop says (status >> 16).
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_SECCOMP, EVENT_STOP = 1, 2, 3, 4, 7, 128

EXITKILL = 0x100000  # when the tracer dies, however it dies, the kernel kills what it traces
_FOLLOW = sum(1 << event for event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_SECCOMP))
PROGRAM_OPTIONS = EXITKILL | _FOLLOW

SET_DUMPABLE = 4  # of prctl

WALL = 0x40000000  # __WALL: wait for threads and cloned children alike

NO_SYSCALL = (1 << 64) - 1  # orig_rax of a thread that is in no system call, or whose call is skipped

_NAMES = (  # noqa: SIM905 - as the kernel's header lists them
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
).split()


class UserRegisters(ctypes.Structure):
    """`struct user_regs_struct`: 27 unsigned 64-bit values."""

    _fields_: ClassVar = [(name, ctypes.c_uint64) for name in _NAMES]
    r15: int
    r14: int
    r13: int
    r12: int
    rbp: int
    rbx: int
    r11: int
    r10: int
    r9: int
    r8: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    orig_rax: int
    rip: int
    rsp: int

    def copy(self) -> UserRegisters:
        """An independent copy."""
        return UserRegisters.from_buffer_copy(self)


def _call(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _PTRACE(request, tid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace request {request:#x}: {os.strerror(number)}")


def seize(tid: int, options: int) -> None:
    """Become the one tracer that a thread can have. `PermissionError` if it has one already."""
    _call(_SEIZE, tid, 0, options)


def resume(tid: int, signal: int = 0) -> None:
    """Let a stopped thread run on, delivering `signal` to it (0: none)."""
    _call(_CONT, tid, 0, signal)


def listen(tid: int) -> None:
    """Leave a thread in its group stop (SIGSTOP, terminal stop) until SIGCONT."""
    _call(_LISTEN, tid)


def interrupt(tid: int) -> None:
    """Make a running thread stop with `EVENT_STOP`, without any signal that it could see."""
    _call(_INTERRUPT, tid)


def detach(tid: int) -> None:
    """Give up a stopped thread."""
    _call(_DETACH, tid)


def registers(tid: int) -> UserRegisters:
    """The registers of a stopped thread."""
    values = UserRegisters()
    _call(_GETREGS, tid, 0, ctypes.addressof(values))
    return values


def set_registers(tid: int, values: UserRegisters) -> None:
    """Replace the registers of a stopped thread."""
    _call(_SETREGS, tid, 0, ctypes.addressof(values))


def event_message(tid: int) -> int:
    """What the last event is about: the new thread's id, or the former id after an exec."""
    value = ctypes.c_ulong()
    _call(_GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


def signal_mask(tid: int) -> int:
    """The blocked signals of a stopped thread; bit n-1 is signal n."""
    value = ctypes.c_uint64()
    _call(_GETSIGMASK, tid, 8, ctypes.addressof(value))
    return value.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Replace the blocked signals of a stopped thread."""
    value = ctypes.c_uint64(mask)
    _call(_SETSIGMASK, tid, 8, ctypes.addressof(value))


# Reports that came while one particular thread was waited for. A process has one tracing loop, hence one list.
_put_off: list[tuple[int, int]] = []


def wait() -> tuple[int, int]:
    """The next report of any traced thread: (tid, wait status). Python retries EINTR by itself."""
    return _put_off.pop(0) if _put_off else os.waitpid(-1, WALL)


def wait_for(tid: int) -> tuple[int, int]:
    """The next report of one thread; what others report meanwhile is kept for `wait`.

    The wait is for all threads: the kernel reports the first thread of a killed process only when all others have been waited for.
    """
    for number, report in enumerate(_put_off):
        if report[0] == tid:
            return _put_off.pop(number)
    while True:
        report = os.waitpid(-1, WALL)
        if report[0] == tid:
            return report
        _put_off.append(report)


def prctl(option: int, value: int = 0) -> None:
    """Set an attribute of the calling process."""
    if LIBC.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def signal_thread(tgid: int, tid: int, signal: int) -> None:
    """tgkill(2); a thread that is gone is no error."""
    LIBC.syscall(234, tgid, tid, signal)
