"""The guardian's loop: every stop of every thread of the guarded program, answered.

System calls stop here by `filter` and are answered by `syscalls`; `space` moves what a program
starts with; `remote` makes the program do the work itself.

What secret pages cannot do, and what is done about it:
  fork       secret mappings are shared: the child copies them all before it or its parent runs on
  grow       mremap says ENOMEM, and libraries copy; brk is answered from one large reservation
  execute    memory that becomes code is put back to ordinary pages
  futex      a key of the shared kind cannot name a secret page: it is made private, and the wake that the
             kernel gives at a thread's end (pthread_join) is replaced by an interruption
Failing at any of it ends the program: it never goes on half-guarded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from typing import TYPE_CHECKING

from strongroom.node.guard import filter as guard_filter
from strongroom.node.guard import ptrace, syscalls
from strongroom.node.guard import space as guard_space
from strongroom.node.guard.remote import Died
from strongroom.node.guard.space import Space, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.node.guard.ptrace import UserRegisters

_CLONE, _VFORK, _CLONE3 = 56, 58, 435
_CLONE_VM, _CLONE_THREAD = 0x100, 0x10000
_AT_ENTRY = 9
_BREAKPOINT = b"\xcc"
_ELF64_X86 = (b"\x7fELF\x02\x01", 62)

_EAGAIN = 11
_FUTEX_WAIT, _FUTEX_WAIT_BITSET = 0, 9
_RESTARTS = {(1 << 64) - number for number in (512, 513, 514, 516)}  # ERESTARTSYS and its kin


class Tracer:
    """Traces one program and its descendants until the program ends. One thread; it does nothing but this."""

    def __init__(self, watcher: int) -> None:
        self.code = -signal.SIGKILL
        self.failure = ""
        self._watcher = watcher
        self._program = 0
        self._ended = False
        self._on_start: Callable[[], None] | None = None
        self._tasks: dict[int, Task] = {}
        self._early: set[int] = set()  # new threads whose first stop came before their creator's
        self._joiners: dict[int, set[int]] = {}  # thread → threads that wait for its end

    def run(self, program: int, on_start: Callable[[], None]) -> None:
        """Trace until `program` (seized, not yet executed) has ended; calls `on_start` once it is executed."""
        self._program = program
        self._on_start = on_start
        self._tasks[program] = Task(program, program, Space(filtered=False))
        while self._tasks or self._early:
            try:
                tid, status = ptrace.wait()
            except ChildProcessError:
                break
            try:
                self._take(tid, status)
            except Died as died:
                self._gone(died.tid, died.status)
            except ProcessLookupError:
                pass  # killed in the midst; its end is yet to be reported
            except (OSError, RuntimeError, ValueError) as failure:
                self._fail(f"{type(failure).__name__}: {failure}")

    def release_watcher(self) -> None:
        """Stop tracing the watcher, so that it survives the guardian and can be waited for."""
        with contextlib.suppress(OSError):
            ptrace.interrupt(self._watcher)
            ptrace.wait_for(self._watcher)
            ptrace.detach(self._watcher)

    # --- one stop ---

    def _take(self, tid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._gone(tid, status)
            return
        number, event = os.WSTOPSIG(status), status >> 16
        task = self._tasks.get(tid)
        if task is None:
            if tid == self._watcher:
                ptrace.resume(tid)
            elif self._ended:
                ptrace.signal_thread(tid, tid, signal.SIGKILL)
            else:
                self._early.add(tid)
        elif event == ptrace.EVENT_SECCOMP:
            self._system_call(task)
        elif event == ptrace.EVENT_EXEC:
            self._executed(task)
        elif event in {ptrace.EVENT_FORK, ptrace.EVENT_VFORK, ptrace.EVENT_CLONE}:
            self._cloned(task)
        elif event == ptrace.EVENT_STOP:
            self._stopped(task, number)
        elif number == signal.SIGTRAP and task.space.loading and self._at_entry(task):
            pass
        else:
            ptrace.resume(tid, number)

    def _gone(self, tid: int, status: int) -> None:
        self._tasks.pop(tid, None)
        self._early.discard(tid)
        for joiner in self._joiners.pop(tid, ()):
            if joiner in self._tasks:
                with contextlib.suppress(ProcessLookupError):
                    ptrace.interrupt(joiner)
        if tid == self._program:
            if not self.failure:
                self.code = os.waitstatus_to_exitcode(status)
            self._end()
        # A new thread waits for its creator to tell of it; a creator that was killed never will.
        for orphan in [orphan for orphan in self._early if _parent(orphan) == os.getpid()]:
            ptrace.signal_thread(orphan, orphan, signal.SIGKILL)

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._end()

    def _end(self) -> None:
        self._ended = True
        for tid in [*self._tasks, *self._early]:
            task = self._tasks.get(tid)
            ptrace.signal_thread(task.tgid if task else tid, tid, signal.SIGKILL)

    def _stopped(self, task: Task, number: int) -> None:
        if number != signal.SIGTRAP:
            ptrace.listen(task.tid)  # stopped by SIGSTOP or the terminal, as it would be without us
            return
        # Interrupted: if in a wait for a thread that has ended, that wait is over.
        state = ptrace.registers(task.tid)
        if state.orig_rax == guard_filter.FUTEX and state.rax in _RESTARTS:
            syscalls.skip(task.tid, state, -_EAGAIN)
        ptrace.resume(task.tid)

    # --- the life of processes ---

    def _executed(self, task: Task) -> None:
        former = ptrace.event_message(task.tid)
        for other in [
            other for other in self._tasks.values() if other.tgid == task.tgid and other is not task
        ]:
            del self._tasks[other.tid]
        self._joiners.pop(former, None)
        with open(f"/proc/{task.tid}/exe", "rb", buffering=0) as image:  # noqa: PTH123 - see guard_maps
            header = image.read(20)
        if (header[:6], struct.unpack_from("<H", header, 18)[0]) != _ELF64_X86:
            raise ValueError("not an x86-64 program")
        task.space = Space(filtered=task.space.filtered)
        with open(f"/proc/{task.tid}/auxv", "rb", buffering=0) as vector:  # noqa: PTH123
            pairs = dict(struct.iter_unpack("<QQ", vector.read(4096)))
        task.space.entry = pairs[_AT_ENTRY]
        with open(f"/proc/{task.tid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
            memory.seek(task.space.entry)
            task.space.replaced = memory.read(1)
            memory.seek(task.space.entry)
            memory.write(_BREAKPOINT)
        if self._on_start and task.tid == self._program:
            self._on_start()
            self._on_start = None
        ptrace.resume(task.tid)

    def _at_entry(self, task: Task) -> bool:
        state = ptrace.registers(task.tid)
        if state.rip != task.space.entry + 1:
            return False
        state.rip = task.space.entry
        ptrace.set_registers(task.tid, state)
        guard_space.convert(task)
        ptrace.resume(task.tid)
        return True

    def _cloned(self, parent: Task) -> None:
        tid = ptrace.event_message(parent.tid)
        state = ptrace.registers(parent.tid)
        flags = _clone_flags(parent, state)
        if tid in self._early:
            self._early.discard(tid)
        else:
            try:
                _, status = ptrace.wait_for(tid)
            except ChildProcessError:
                ptrace.resume(parent.tid)  # ended and reported already
                return
            if not os.WIFSTOPPED(status):
                ptrace.resume(parent.tid)
                return
        shared = bool(flags & _CLONE_VM)
        space = parent.space if shared else parent.space.copy()
        child = Task(tid, parent.tgid if flags & _CLONE_THREAD else tid, space)
        self._tasks[tid] = child
        try:
            if space.loading:
                # Before the entry point: both stop here, so this is the moment. After a fork the
                # parent has its own copy and its own breakpoint, and goes on loading.
                guard_space.convert(child)
            elif not shared:
                guard_space.copy(child, parent)
            ptrace.resume(tid)
        except Died as died:
            self._gone(died.tid, died.status)
        except ProcessLookupError:
            pass
        ptrace.resume(parent.tid)

    # --- system calls ---

    def _system_call(self, task: Task) -> None:
        if not task.space.loading:
            state = ptrace.registers(task.tid)
            if state.orig_rax == guard_filter.FUTEX:
                self._futex(task, state)
            else:
                syscalls.answer(task, state)
        ptrace.resume(task.tid)

    def _futex(self, task: Task, state: UserRegisters) -> None:
        address, operation, value = state.rdi, state.rsi & 0x7F, state.rdx & 0xFFFFFFFF
        if not syscalls.is_secret(task.tid, address):
            return
        state.rsi |= 128  # FUTEX_PRIVATE_FLAG
        ptrace.set_registers(task.tid, state)
        if operation in {_FUTEX_WAIT, _FUTEX_WAIT_BITSET}:
            other = self._tasks.get(value)
            if other is not None and other.tgid == task.tgid:
                self._joiners.setdefault(value, set()).add(task.tid)


def _clone_flags(parent: Task, state: UserRegisters) -> int:
    if state.orig_rax == _CLONE:
        return state.rdi
    if state.orig_rax == _VFORK:
        return _CLONE_VM
    if state.orig_rax == _CLONE3:  # only while loading: the filter refuses it later
        with open(f"/proc/{parent.tid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            memory.seek(state.rdi)
            return int.from_bytes(memory.read(8), "little")
    return 0


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", "rb") as lines:  # noqa: PTH123
            return next(int(line.split()[1]) for line in lines if line.startswith(b"PPid"))
    except (OSError, StopIteration):
        return 0
