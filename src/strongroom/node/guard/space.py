"""The address spaces of a guarded program, and moving one to secret pages.

An address space begins *loading*: its dynamic loader runs as ever, nothing is secret yet, and a breakpoint
waits at the program's entry point. There (or at the first thread or child before it) `convert` moves
everything private and writable to secret pages. A forked child gets copies by `copy`.
"""

from __future__ import annotations

import os
import resource
import secrets

from strongroom.node.guard import filter as guard_filter
from strongroom.node.guard import maps, remote
from strongroom.node.guard.maps import PAGE
from strongroom.node.guard.remote import Borrowed, Move

_SET_DUMPABLE = 4
_PRCTL, _BRK, _MPROTECT = 157, 12, 10

_HEAP = 256 << 20  # room for brk; programs get more memory by mmap
_MAX_STACK = 64 << 20
_MAX_JITTER = 1 << 32
_GAP = 16 * PAGE  # between mappings in the window: an overrun faults


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


def convert(task: Task) -> None:
    """Move everything private and writable of a loading address space to secret pages."""
    space = task.space
    space.loading = False
    with open(f"/proc/{task.tid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
        memory.seek(space.entry)
        memory.write(space.replaced)
    with Borrowed(task.tid, task.tgid) as thread:
        thread.install()
        thread.call(_PRCTL, _SET_DUMPABLE, 0)
        regions = maps.regions(task.tid)
        moves = []
        for region in regions:
            if region.name == "[stack]":
                moves.append(_stack_move(task.tid, region, regions))
            elif region.exposed and not region.secret:
                moves.append(move(task.tid, region))
        thread.move(moves)
        _reserve_heap(space, thread, regions)
        if not space.filtered:
            thread.filter()
            space.filtered = True


def _reserve_heap(space: Space, thread: Borrowed, regions: list[maps.Region]) -> None:
    """From here on brk moves inside one secret mapping of a fixed size, which costs nothing until touched."""
    now = thread.call(_BRK, 0)
    start = -(-now // PAGE) * PAGE
    heap = [region.start for region in regions if region.name == "[heap]"]
    above = min((region.start for region in regions if region.start >= start), default=start + _HEAP)
    space.floor = min([now, *heap])
    space.heap = space.limit = now
    length = min(_HEAP, above - start - PAGE)
    if length > 0 and thread.map(start, length, 3, remote.MAP_FIXED_NOREPLACE) == start:
        space.limit = start + length


def copy(child: Task, parent: Task) -> None:
    """Give a forked child its own copy of the secret pages; its parent stands still meanwhile."""
    moves = []
    unreadable = []
    for region in maps.regions(child.tid):
        if region.secret:
            runs = list(maps.touched(parent.tid, region.start, region.end))
            if runs and not region.prot & 1:
                unreadable.append(region)
            moves.append(Move(region.start, region.end - region.start, region.prot, runs))
    with Borrowed(child.tid, child.tgid) as thread:
        for region in unreadable:
            thread.call(_MPROTECT, region.start, region.end - region.start, 1)
        thread.move(moves)


def place(space: Space, size: int) -> int:
    """An address for a new secret mapping, in the window that the filter knows."""
    if space.cursor + size + _GAP > guard_filter.WINDOW_END:
        space.cursor = guard_filter.WINDOW_START  # a hint only: the kernel chooses when it is taken
    address = space.cursor
    space.cursor += size + _GAP
    return address


def move(tid: int, region: maps.Region, protection: int | None = None) -> Move:
    """How to move one region of ordinary memory to secret pages, with all that is in it."""
    if region.inode:
        # A private mapping of a file has content wherever the file has, touched or not.
        file_bytes = min(region.end - region.start, max(0, _mapped_size(tid, region) - region.offset))
        runs = [(region.start, -(-file_bytes // PAGE) * PAGE)]
    else:
        runs = list(maps.touched(tid, region.start, region.end))
    return Move(
        region.start, region.end - region.start, region.prot if protection is None else protection, runs
    )


def _mapped_size(tid: int, region: maps.Region) -> int:
    """The size of the file behind a region. What lies beyond its end cannot be read."""
    try:
        status = os.stat(f"/proc/{tid}/map_files/{region.start:x}-{region.end:x}")  # noqa: PTH116 - see guard_maps
    except FileNotFoundError:
        status = os.stat(region.name)  # noqa: PTH116 - a part of a mapping has no entry of its own
    if status.st_ino != region.inode:
        raise ValueError(f"the file behind a mapping is not {region.name}")
    return status.st_size


def _stack_move(tid: int, stack: maps.Region, regions: list[maps.Region]) -> Move:
    """Secret pages do not grow downwards: the whole stack that the limit allows is mapped at once."""
    limit = resource.prlimit(tid, resource.RLIMIT_STACK)[0]
    size = _MAX_STACK if limit == resource.RLIM_INFINITY else min(limit, _MAX_STACK)
    below = max((region.end for region in regions if region.end <= stack.start), default=0)
    start = min(stack.start, max(below + _GAP, (stack.end - size) // PAGE * PAGE))
    return Move(start, stack.end - start, stack.prot, list(maps.touched(tid, stack.start, stack.end)))
