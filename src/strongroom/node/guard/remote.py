"""A stopped thread of the guarded program, borrowed for a moment: system calls and copies in its name.

The guardian cannot touch secret memory either, so everything that happens to it is done by the program
itself. `install` puts one page of code below the program; a borrowed thread is sent through it with all
signals blocked, stops at an int3, and gets its registers and its signals back. The code uses no stack.

Every secret mapping has a memfd_secret(2) file of its own, whose descriptor exists for the few
microseconds between its creation and its mapping. Not stopped here: another root process that
copies the descriptor in exactly these microseconds (pidfd_getfd).
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

from strongroom.node.guard import filter as guard_filter
from strongroom.node.guard import maps, ptrace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from strongroom.node.guard.ptrace import UserRegisters

MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_32BIT, MAP_ANONYMOUS = 1, 2, 0x10, 0x40, 0x20
MAP_NORESERVE, MAP_FIXED_NOREPLACE = 0x4000, 0x100000

# The code page. Each routine ends in int3 with its result in rax.
_CALL = bytes.fromhex("0f05 cc")  # syscall
# rdi address, rsi length, rdx protection, r10 flags → memfd_secret, ftruncate, mmap, close
_MAP = bytes.fromhex(
    "4989fc 4989d5 4d89d6"  # keep rdi, rdx, r10 in r12, r13, r14
    "b8bf010000 bf00000800 0f05 4885c0 7835"  # memfd_secret(FD_CLOEXEC); out if negative
    "89c3 89c7 b84d000000 0f05 4885c0 7516"  # ftruncate(fd, rsi); to close if not 0
    "4c89e7 4c89ea 4d89f2 4189d8 4531c9 b809000000 0f05"  # mmap(r12, rsi, r13, r14, fd, 0)
    "4889c5 89df b803000000 0f05 4889e8 cc"  # close(fd)
)
# rbx table of `Move` entries, r12 their number. For each: (1) a new secret mapping of `length` somewhere
# (its address stays in r15), a copy of `size` bytes at `offset`, (2) mprotect, mremap onto `address`.
_MOVE = bytes.fromhex(
    "4d85e4 0f84c4000000"  # out when r12 is 0
    "f6432801 7460"  # no (1): to the copy
    "b8bf010000 bf00000800 0f05 4885c0 0f88a9000000"  # memfd_secret(FD_CLOEXEC)
    "4189c6 89c7 488b7308 b84d000000 0f05 4885c0 0f8590000000"  # ftruncate(fd, length)
    "31ff ba03000000 41ba01000000 4589f0 4531c9 b809000000 0f05 4989c7"  # r15 = mmap(0, length, rw, shared, fd, 0)
    "4489f7 b803000000 0f05 4c89f8 483d00f0ffff 775e"  # close(fd); out if mmap failed
    "488b33 4c89ff 48037318 48037b18 488b4b20 fc f3a4"  # copy
    "f6432802 7435"  # no (2): next
    "4c89ff 488b7308 488b5310 b80a000000 0f05 4885c0 752c"  # mprotect(r15, length, protection)
    "4c89ff 4889f2 41ba03000000 4c8b03 b819000000 0f05 483d00f0ffff 770e"  # mremap(r15 → address)
    "4883c330 49ffcc 31c0 e933ffffff cc"  # next entry
)
# rdi address, rcx length
_ZERO = bytes.fromhex("31c0 fc f3aa cc")
_CODE = _CALL + _MAP + _MOVE + _ZERO
_AT_CALL = guard_filter.STUB
_AT_MAP = _AT_CALL + len(_CALL)
_AT_MOVE = _AT_MAP + len(_MAP)
_AT_ZERO = _AT_MOVE + len(_MOVE)

_TABLE = guard_filter.STUB + guard_filter.STUB_CODE  # where the guardian hands over data; not secret
_TABLE_SIZE = 8 * maps.PAGE
_STUB_SIZE = guard_filter.STUB_CODE + _TABLE_SIZE
_ENTRY = struct.Struct("<6Q")

_MMAP, _SECCOMP = 9, 317
_MAX_ERRNO = 4095
_ALL_BUT_TRAP = ((1 << 64) - 1) & ~(1 << (signal.SIGTRAP - 1))  # int3 must stay deliverable
_BEGIN, _COMMIT = 1, 2


class Died(Exception):
    """Not an error, threads end at any time: the borrowed one ended; `status` is its wait status."""

    def __init__(self, tid: int, status: int) -> None:
        super().__init__(tid, status)
        self.tid, self.status = tid, status


class Move(NamedTuple):
    """Replace [address, address+length) by secret pages, keeping `runs` of (address, length) of its content."""

    address: int
    length: int
    protection: int
    runs: Sequence[tuple[int, int]]


class Borrowed:
    """Control over one stopped thread; a context manager that gives it back as it was.

    `registers` are those that the thread will go on with: change them to change its fate.
    The thread is still stopped on leaving. Raises `Died`, `ProcessLookupError`, or `RuntimeError` when
    the code faults, after which the address space is in no known state.
    """

    def __init__(self, tid: int, tgid: int) -> None:
        self.tid, self.tgid = tid, tgid
        self.registers: UserRegisters = ptrace.registers(tid)
        self._held: list[int] = []  # signals that arrived meanwhile and cannot be blocked
        self._mask = 0
        self._code = _AT_CALL

    def __enter__(self) -> Self:
        self._mask = ptrace.signal_mask(self.tid)
        ptrace.set_signal_mask(self.tid, _ALL_BUT_TRAP)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return  # it died, or will be killed
        ptrace.set_registers(self.tid, self.registers)
        ptrace.set_signal_mask(self.tid, self._mask)
        for number in self._held:
            ptrace.signal_thread(self.tgid, self.tid, number)

    # --- running code in the program ---

    def _run(self, at: int, **values: int) -> int:
        state = self.registers.copy()
        state.orig_rax = ptrace.NO_SYSCALL
        state.rip = at
        for name, value in values.items():
            setattr(state, name, value & ptrace.NO_SYSCALL)
        ptrace.set_registers(self.tid, state)
        ptrace.resume(self.tid)
        return self._until_trap()

    def _until_trap(self) -> int:
        while True:
            tid, status = ptrace.wait_for(self.tid)
            if not os.WIFSTOPPED(status):
                raise Died(tid, status)
            number, event = os.WSTOPSIG(status), status >> 16
            if event == 0 and number == signal.SIGTRAP:
                state = ptrace.registers(self.tid)
                if self._code <= state.rip <= self._code + guard_filter.STUB_CODE:
                    return state.rax
            if event == 0:
                if number in {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL}:
                    raise RuntimeError(f"signal {number} while moving memory")
                self._held.append(number)
            ptrace.resume(self.tid)

    def call(self, number: int, *arguments: int) -> int:
        """One system call in the thread's name. Raises its `OSError`."""
        names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
        values = dict(zip(names, (*arguments, 0, 0, 0, 0, 0, 0), strict=False))
        return _checked(self._run(self._code, rax=number, **values))

    # --- what it is for ---

    def install(self) -> None:
        """Put the code page below the program, by way of three bytes lent by the code that it is at."""
        at = self.registers.rip
        memory = os.open(f"/proc/{self.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            lent = os.pread(memory, len(_CALL), at)
            os.pwrite(memory, _CALL, at)
            self._code = at
            # Not writable for the program itself: the guardian writes through /proc.
            flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
            self.call(_MMAP, guard_filter.STUB, _STUB_SIZE, 1 | 4, flags, -1)
            self._code = _AT_CALL
            os.pwrite(memory, lent, at)
            os.pwrite(memory, _CODE, guard_filter.STUB)
        finally:
            os.close(memory)

    def map(self, address: int, length: int, protection: int, flags: int) -> int:
        """A new secret mapping, as mmap(2) would have made it. Returns the address or a negative errno."""
        return _signed(self._run(_AT_MAP, rdi=address, rsi=length, rdx=protection, r10=flags | MAP_SHARED))

    def move(self, moves: Sequence[Move]) -> None:
        """Replace ranges by secret pages with the same content."""
        entries: list[bytes] = []
        for move in moves:
            runs = move.runs or [(move.address, 0)]
            for number, (start, size) in enumerate(runs):
                flags = (_BEGIN if number == 0 else 0) | (_COMMIT if number == len(runs) - 1 else 0)
                offset = start - move.address
                entries.append(_ENTRY.pack(move.address, move.length, move.protection, offset, size, flags))
        self._run_table(entries, 0)

    def copy(self, source: int, target: int, runs: Sequence[tuple[int, int]]) -> None:
        """Copy runs of (address, length) that lie in a range at `source` to the same places at `target`."""
        self._run_table([_ENTRY.pack(source, 0, 0, start - source, size, 0) for start, size in runs], target)

    def _run_table(self, entries: list[bytes], target: int) -> None:
        batch = _TABLE_SIZE // _ENTRY.size
        for first in range(0, len(entries), batch):
            some = entries[first : first + batch]
            self._write_table(b"".join(some))
            # r15 holds the mapping that later entries copy to; a batch may end amid them.
            _checked(self._run(_AT_MOVE, rbx=_TABLE, r12=len(some), r15=target))
            target = ptrace.registers(self.tid).r15

    def zero(self, address: int, length: int) -> None:
        """Fill with zeros."""
        self._run(_AT_ZERO, rdi=address, rcx=length)

    def filter(self) -> None:
        """Install the seccomp filter for all threads of the program."""
        code = guard_filter.program()
        self._write_table(struct.pack("<HxxxxxxQ", len(code) // 8, _TABLE + 16) + code)
        self.call(_SECCOMP, 1, 1, _TABLE)  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC

    def _write_table(self, data: bytes) -> None:
        memory = os.open(f"/proc/{self.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(memory, data, _TABLE)
        finally:
            os.close(memory)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _checked(value: int) -> int:
    result = _signed(value)
    if -_MAX_ERRNO <= result < 0:
        raise OSError(-result, f"a system call for the program: {errno.errorcode.get(-result, result)}")
    return result
