"""The guardian's loop: every stop of every thread of the guarded program, answered.

An address space begins *loading*: its dynamic loader runs as ever, nothing is secret yet, and a
breakpoint waits at the program's entry point. There (or at the first thread or child before it)
everything private and writable is moved to secret pages, and from then on new memory comes as secret
memory. System calls stop here by `guard_filter`; new memory is made by `guard_remote`.

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
import resource
import secrets
import signal
import struct
from typing import TYPE_CHECKING

from strongroom.node import guard_filter, guard_maps, guard_ptrace, guard_remote
from strongroom.node.guard_maps import PAGE
from strongroom.node.guard_remote import Borrowed, Died, Move

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.node.guard_ptrace import Registers

SET_DUMPABLE = 4
_PRCTL, _BRK, _MMAP, _MPROTECT, _MREMAP = 157, 12, 9, 10, 25
_CLONE, _VFORK, _CLONE3 = 56, 58, 435
_CLONE_VM, _CLONE_THREAD = 0x100, 0x10000
_AT_ENTRY = 9
_BREAKPOINT = b"\xcc"
_ELF64_X86 = (b"\x7fELF\x02\x01", 62)

_HEAP = 1 << 30  # room for brk; programs get more memory by mmap
_MAX_STACK = 64 << 20
_MAX_JITTER = 1 << 32
_GAP = 16 * PAGE  # between mappings in the window: an overrun faults

_EAGAIN, _ENOMEM = 11, 12
_FUTEX_WAIT, _FUTEX_WAIT_BITSET = 0, 9
_RESTARTS = {(1 << 64) - number for number in (512, 513, 514, 516)}  # ERESTARTSYS and its kin


class Space:
    """One address space, shared by the threads in it."""

    __slots__ = ("cursor", "entry", "filtered", "floor", "heap", "limit", "loading", "replaced")

    def __init__(self, *, filtered: bool) -> None:
        self.loading = True
        self.filtered = filtered  # the seccomp filter is on; it survives fork and exec
        self.entry, self.replaced = 0, b""  # the breakpoint, and what was there
        self.floor = self.heap = self.limit = 0  # of brk
        self.cursor = guard_filter.WINDOW_START + PAGE * secrets.randbelow(_MAX_JITTER)

    def copy(self) -> Space:
        """As fork copies it."""
        twin = Space(filtered=self.filtered)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin


class Task:
    """One traced thread."""

    __slots__ = ("space", "tgid", "tid")

    def __init__(self, tid: int, tgid: int, space: Space) -> None:
        self.tid, self.tgid, self.space = tid, tgid, space


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
                tid, status = guard_ptrace.wait()
            except ChildProcessError:
                break
            try:
                self._take(tid, status)
            except Died as died:
                self._gone(died.tid, died.status)
            except ProcessLookupError:
                pass  # killed in the midst; its end is yet to be told
            except (OSError, RuntimeError, ValueError) as failure:
                self._fail(f"{type(failure).__name__}: {failure}")

    def release_watcher(self) -> None:
        """Stop tracing the watcher, so that it survives the guardian and can be waited for."""
        with contextlib.suppress(OSError):
            guard_ptrace.interrupt(self._watcher)
            guard_ptrace.wait(self._watcher)
            guard_ptrace.detach(self._watcher)

    # --- one stop ---

    def _take(self, tid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._gone(tid, status)
            return
        number, event = os.WSTOPSIG(status), status >> 16
        task = self._tasks.get(tid)
        if task is None:
            if tid == self._watcher:
                guard_ptrace.resume(tid)
            elif self._ended:
                guard_ptrace.signal_thread(tid, tid, signal.SIGKILL)
            else:
                self._early.add(tid)
        elif event == guard_ptrace.EVENT_SECCOMP:
            self._system_call(task)
        elif event == guard_ptrace.EVENT_EXEC:
            self._executed(task)
        elif event in {guard_ptrace.EVENT_FORK, guard_ptrace.EVENT_VFORK, guard_ptrace.EVENT_CLONE}:
            self._cloned(task)
        elif event == guard_ptrace.EVENT_STOP:
            self._stopped(task, number)
        elif number == signal.SIGTRAP and task.space.loading and self._at_entry(task):
            pass
        else:
            guard_ptrace.resume(tid, number)

    def _gone(self, tid: int, status: int) -> None:
        self._tasks.pop(tid, None)
        self._early.discard(tid)
        for joiner in self._joiners.pop(tid, ()):
            if joiner in self._tasks:
                with contextlib.suppress(ProcessLookupError):
                    guard_ptrace.interrupt(joiner)
        if tid == self._program:
            if not self.failure:
                self.code = os.waitstatus_to_exitcode(status)
            self._end()
        # A new thread waits for its creator to tell of it; a creator that was killed never will.
        for orphan in [orphan for orphan in self._early if _parent(orphan) == os.getpid()]:
            guard_ptrace.signal_thread(orphan, orphan, signal.SIGKILL)

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._end()

    def _end(self) -> None:
        self._ended = True
        for tid in [*self._tasks, *self._early]:
            task = self._tasks.get(tid)
            guard_ptrace.signal_thread(task.tgid if task else tid, tid, signal.SIGKILL)

    def _stopped(self, task: Task, number: int) -> None:
        if number != signal.SIGTRAP:
            guard_ptrace.listen(task.tid)  # stopped by SIGSTOP or the terminal, as it would be without us
            return
        # Interrupted: if in a wait for a thread that has ended, that wait is over.
        state = guard_ptrace.registers(task.tid)
        if state.orig_rax == guard_filter.FUTEX and state.rax in _RESTARTS:
            _skip(task.tid, state, -_EAGAIN)
        guard_ptrace.resume(task.tid)

    # --- the life of processes ---

    def _executed(self, task: Task) -> None:
        former = guard_ptrace.event_message(task.tid)
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
        guard_ptrace.resume(task.tid)

    def _at_entry(self, task: Task) -> bool:
        state = guard_ptrace.registers(task.tid)
        if state.rip != task.space.entry + 1:
            return False
        state.rip = task.space.entry
        guard_ptrace.set_registers(task.tid, state)
        self._convert(task)
        guard_ptrace.resume(task.tid)
        return True

    def _cloned(self, parent: Task) -> None:
        tid = guard_ptrace.event_message(parent.tid)
        state = guard_ptrace.registers(parent.tid)
        flags = _clone_flags(parent, state)
        if tid in self._early:
            self._early.discard(tid)
        else:
            try:
                _, status = guard_ptrace.wait(tid)
            except ChildProcessError:
                guard_ptrace.resume(parent.tid)  # ended and told already
                return
            if not os.WIFSTOPPED(status):
                guard_ptrace.resume(parent.tid)
                return
        shared = bool(flags & _CLONE_VM)
        space = parent.space if shared else parent.space.copy()
        child = Task(tid, parent.tgid if flags & _CLONE_THREAD else tid, space)
        self._tasks[tid] = child
        try:
            if space.loading:
                # Before the entry point: both stop here, so this is the moment. After a fork the
                # parent has its own copy and its own breakpoint, and goes on loading.
                self._convert(child)
            elif not shared:
                self._copy(child, parent)
            guard_ptrace.resume(tid)
        except Died as died:
            self._gone(died.tid, died.status)
        except ProcessLookupError:
            pass
        guard_ptrace.resume(parent.tid)

    def _convert(self, task: Task) -> None:
        """Move everything private and writable of a loading address space to secret pages."""
        space = task.space
        space.loading = False
        with open(f"/proc/{task.tid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
            memory.seek(space.entry)
            memory.write(space.replaced)
        with Borrowed(task.tid, task.tgid) as thread:
            thread.install()
            thread.call(_PRCTL, SET_DUMPABLE, 0)
            regions = guard_maps.regions(task.tid)
            moves = []
            for region in regions:
                if region.name == "[stack]":
                    moves.append(_stack_move(task.tid, region, regions))
                elif region.exposed and not region.secret:
                    moves.append(_move(task.tid, region))
            thread.move(moves)
            self._reserve_heap(space, thread, regions)
            if not space.filtered:
                thread.filter()
                space.filtered = True

    def _reserve_heap(self, space: Space, thread: Borrowed, regions: list[guard_maps.Region]) -> None:
        """From here on brk moves inside one secret mapping of a fixed size, which costs nothing until touched."""
        now = thread.call(_BRK, 0)
        start = -(-now // PAGE) * PAGE
        heap = [region.start for region in regions if region.name == "[heap]"]
        above = min((region.start for region in regions if region.start >= start), default=start + _HEAP)
        space.floor = min([now, *heap])
        space.heap = space.limit = now
        length = min(_HEAP, above - start - PAGE)
        if length > 0 and thread.map(start, length, 3, guard_remote.MAP_FIXED_NOREPLACE) == start:
            space.limit = start + length

    def _copy(self, child: Task, parent: Task) -> None:
        """Give a forked child its own copy of the secret pages; its parent stands still meanwhile."""
        moves = []
        unreadable = []
        for region in guard_maps.regions(child.tid):
            if region.secret:
                runs = list(guard_maps.touched(parent.tid, region.start, region.end))
                if runs and not region.prot & 1:
                    unreadable.append(region)
                moves.append(Move(region.start, region.end - region.start, region.prot, runs))
        with Borrowed(child.tid, child.tgid) as thread:
            for region in unreadable:
                thread.call(_MPROTECT, region.start, region.end - region.start, 1)
            thread.move(moves)

    # --- system calls ---

    def _system_call(self, task: Task) -> None:
        if not task.space.loading:
            state = guard_ptrace.registers(task.tid)
            number = state.orig_rax
            if number == _BRK:
                self._brk(task, state)
            elif number == _MMAP:
                self._mmap(task)
            elif number == guard_filter.FUTEX:
                self._futex(task, state)
            elif number == _MREMAP:
                _mremap(task, state)
            else:
                _mprotect(task, state)
        guard_ptrace.resume(task.tid)

    def _brk(self, task: Task, state: Registers) -> None:
        space = task.space
        wanted = state.rdi
        if space.floor <= wanted <= space.limit:
            low, high = -(-wanted // PAGE) * PAGE, -(-space.heap // PAGE) * PAGE
            runs = list(guard_maps.touched(task.tid, low, high)) if low < high else []
            _skip(task.tid, state, wanted)
            if runs:
                with Borrowed(task.tid, task.tgid) as thread:
                    for start, size in runs:
                        thread.zero(start, size)
            space.heap = wanted
        else:
            _skip(task.tid, state, space.heap)

    def _mmap(self, task: Task) -> None:
        with Borrowed(task.tid, task.tgid) as thread:
            state = thread.registers
            address, length, protection, flags = state.rdi, state.rsi, state.rdx, state.r10
            size = -(-length // PAGE) * PAGE
            state.orig_rax = guard_ptrace.NO_SYSCALL
            if flags & guard_remote.MAP_ANONYMOUS:
                keep = flags & (
                    guard_remote.MAP_FIXED
                    | guard_remote.MAP_FIXED_NOREPLACE
                    | guard_remote.MAP_32BIT
                    | guard_remote.MAP_NORESERVE
                )
                if address == 0 and not keep & (guard_remote.MAP_FIXED | guard_remote.MAP_32BIT):
                    address = self._place(task.space, size)
                result = thread.map(address, size, protection, keep)
            else:
                try:
                    result = thread.call(_MMAP, address, length, protection, flags, state.r8, state.r9)
                except OSError as failure:
                    result = -(failure.errno or _ENOMEM)
                else:
                    there = min(size, max(0, -(-_file_size(task.tid, state.r8) // PAGE) * PAGE - state.r9))
                    thread.move([Move(result, size, protection, [(result, there)])])
            state.rax = result & guard_ptrace.NO_SYSCALL

    def _place(self, space: Space, size: int) -> int:
        if space.cursor + size + _GAP > guard_filter.WINDOW_END:
            space.cursor = guard_filter.WINDOW_START  # a hint only: the kernel chooses when it is taken
        address = space.cursor
        space.cursor += size + _GAP
        return address

    def _futex(self, task: Task, state: Registers) -> None:
        address, operation, value = state.rdi, state.rsi & 0x7F, state.rdx & 0xFFFFFFFF
        if not _is_secret(task.tid, address):
            return
        state.rsi |= 128  # FUTEX_PRIVATE_FLAG
        guard_ptrace.set_registers(task.tid, state)
        if operation in {_FUTEX_WAIT, _FUTEX_WAIT_BITSET}:
            other = self._tasks.get(value)
            if other is not None and other.tgid == task.tgid:
                self._joiners.setdefault(value, set()).add(task.tid)


# --- system calls that concern one thread only ---


def _skip(tid: int, state: Registers, result: int) -> None:
    """Answer a system call in the kernel's place."""
    state.orig_rax = guard_ptrace.NO_SYSCALL
    state.rax = result & guard_ptrace.NO_SYSCALL
    guard_ptrace.set_registers(tid, state)


def _mremap(task: Task, state: Registers) -> None:
    if state.rdx <= state.rsi and state.rsi:
        return
    for region in guard_maps.regions(task.tid):
        if region.start <= state.rdi < region.end and (region.secret or region.exposed):
            _skip(task.tid, state, -_ENOMEM)
            return


def _mprotect(task: Task, state: Registers) -> None:
    start, protection = state.rdi, state.rdx
    end = start + -(-state.rsi // PAGE) * PAGE
    inside = [region for region in guard_maps.regions(task.tid) if region.start < end and region.end > start]
    if protection & 4:
        secret = [region for region in inside if region.secret]
        if not secret:
            return
        with Borrowed(task.tid, task.tgid) as thread:
            thread.registers.orig_rax = guard_ptrace.NO_SYSCALL
            for region in secret:
                _make_ordinary(thread, region, max(start, region.start), min(end, region.end))
            thread.registers.rax = _result(thread, state)
        return
    fresh = [
        region
        for region in inside
        if region.perms[3] == "p" and region.perms[1:3] == "--" and not region.secret
    ]
    if not fresh:
        return
    with Borrowed(task.tid, task.tgid) as thread:
        thread.registers.orig_rax = guard_ptrace.NO_SYSCALL
        thread.registers.rax = _result(thread, state)
        if thread.registers.rax == 0:
            thread.move(
                [
                    _move(
                        task.tid,
                        region._replace(start=max(start, region.start), end=min(end, region.end)),
                        protection,
                    )
                    for region in fresh
                ]
            )


def _result(thread: Borrowed, state: Registers) -> int:
    """Make the system call that the thread was about to make."""
    try:
        return thread.call(state.orig_rax, state.rdi, state.rsi, state.rdx, state.r10)
    except OSError as failure:
        return -(failure.errno or _ENOMEM) & guard_ptrace.NO_SYSCALL


def _make_ordinary(thread: Borrowed, region: guard_maps.Region, start: int, end: int) -> None:
    """Secret pages cannot be executed: a range that becomes code goes back to ordinary memory."""
    runs = list(guard_maps.touched(thread.tid, start, end)) if region.prot & 1 else []
    flags = guard_remote.MAP_PRIVATE | guard_remote.MAP_ANONYMOUS | guard_remote.MAP_NORESERVE
    # Asked for with PROT_EXEC, which the filter lets pass and which the new mapping will have anyway.
    there = thread.call(_MMAP, 0, end - start, 7, flags, -1)
    if runs:
        thread.copy(start, there, runs)
    thread.call(_MREMAP, there, end - start, end - start, 3, start)


def _is_secret(tid: int, address: int) -> bool:
    if guard_filter.WINDOW_START <= address < guard_filter.WINDOW_END:
        return True
    return any(region.secret for region in guard_maps.regions(tid) if region.start <= address < region.end)


# --- reading what the kernel tells of a process ---


def _move(tid: int, region: guard_maps.Region, protection: int | None = None) -> Move:
    if region.inode:
        # A private mapping of a file has content wherever the file has, touched or not.
        there = min(region.end - region.start, max(0, _mapped_size(tid, region) - region.offset))
        runs = [(region.start, -(-there // PAGE) * PAGE)]
    else:
        runs = list(guard_maps.touched(tid, region.start, region.end))
    return Move(
        region.start, region.end - region.start, region.prot if protection is None else protection, runs
    )


def _mapped_size(tid: int, region: guard_maps.Region) -> int:
    """The size of the file behind a region. What lies beyond its end cannot be read."""
    try:
        return os.stat(f"/proc/{tid}/map_files/{region.start:x}-{region.end:x}").st_size
    except OSError:
        # Part of a mapping, or none of the caller's business: what was touched can be read.
        last = max(
            (start + size for start, size in guard_maps.touched(tid, region.start, region.end)), default=0
        )
        return region.offset + max(0, last - region.start)


def _file_size(tid: int, fd: int) -> int:
    return os.stat(f"/proc/{tid}/fd/{fd & 0xFFFFFFFF}").st_size


def _stack_move(tid: int, stack: guard_maps.Region, regions: list[guard_maps.Region]) -> Move:
    """Secret pages do not grow downwards: the whole stack that the limit allows is mapped at once."""
    limit = resource.prlimit(tid, resource.RLIMIT_STACK)[0]
    size = _MAX_STACK if limit == resource.RLIM_INFINITY else min(limit, _MAX_STACK)
    below = max((region.end for region in regions if region.end <= stack.start), default=0)
    start = min(stack.start, max(below + _GAP, (stack.end - size) // PAGE * PAGE))
    return Move(start, stack.end - start, stack.prot, list(guard_maps.touched(tid, stack.start, stack.end)))


def _clone_flags(parent: Task, state: Registers) -> int:
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
