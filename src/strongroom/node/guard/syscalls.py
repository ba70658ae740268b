"""System calls of a guarded program that the guardian answers: brk, mmap, mremap, mprotect.

The filter (`filter`) sends here only calls that may make private writable memory, or code. Each
function leaves its thread stopped, with registers such that going on is right: the call is carried out,
answered in the kernel's place, or left to the kernel.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING

from strongroom.node.guard import filter as guard_filter
from strongroom.node.guard import maps, ptrace, remote
from strongroom.node.guard import space as guard_space
from strongroom.node.guard.maps import PAGE
from strongroom.node.guard.remote import Borrowed, Move

if TYPE_CHECKING:
    from strongroom.node.guard.ptrace import UserRegisters
    from strongroom.node.guard.space import Task

_WORD = (1 << 64) - 1  # a register's bits: a negative result is its complement


def answer(task: Task, state: UserRegisters) -> None:
    """Answer the system call that a thread with these registers is about to make."""
    number = state.orig_rax
    if number == guard_filter.BRK:
        _brk(task, state)
    elif number == guard_filter.MMAP:
        _mmap(task)
    elif number == guard_filter.MREMAP:
        _mremap(task, state)
    elif number in {guard_filter.MPROTECT, guard_filter.PKEY_MPROTECT}:
        _mprotect(task, state)


def skip(tid: int, state: UserRegisters, result: int) -> None:
    """Answer a system call in the kernel's place."""
    state.orig_rax = ptrace.NO_SYSCALL
    state.rax = result & _WORD
    ptrace.set_registers(tid, state)


def is_secret(tid: int, address: int) -> bool:
    """Whether an address lies in secret pages."""
    if guard_filter.WINDOW_START <= address < guard_filter.WINDOW_END:
        return True
    return any(region.secret for region in maps.regions(tid) if region.start <= address < region.end)


def _brk(task: Task, state: UserRegisters) -> None:
    """brk(rdi): the heap's end is moved in the range set aside for it, and what it gives up is zeroed."""
    space = task.space
    wanted = state.rdi
    if space.floor <= wanted <= space.limit:
        low, high = -(-wanted // PAGE) * PAGE, -(-space.heap // PAGE) * PAGE
        runs = list(maps.touched(task.tid, low, high)) if low < high else []
        skip(task.tid, state, wanted)
        if runs:
            with Borrowed(task.tid, task.tgid) as thread:
                for start, size in runs:
                    thread.zero(start, size)
        space.heap = wanted
    else:
        skip(task.tid, state, space.heap)


def _mmap(task: Task) -> None:
    """mmap(rdi, rsi, rdx, r10, r8, r9): anonymous memory is made secret; what is mapped of a file is moved into secret pages."""
    with Borrowed(task.tid, task.tgid) as thread:
        state = thread.registers
        address, length, protection, flags = state.rdi, state.rsi, state.rdx, state.r10
        size = -(-length // PAGE) * PAGE
        state.orig_rax = ptrace.NO_SYSCALL
        if flags & remote.MAP_ANONYMOUS:
            keep = flags & (
                remote.MAP_FIXED | remote.MAP_FIXED_NOREPLACE | remote.MAP_32BIT | remote.MAP_NORESERVE
            )
            if address == 0 and not keep & (remote.MAP_FIXED | remote.MAP_32BIT):
                address = guard_space.place(task.space, size)
            result = thread.map(address, size, protection, keep)
        else:
            try:
                result = thread.call(
                    guard_filter.MMAP, address, length, protection, flags, state.r8, state.r9
                )
            except OSError as failure:
                result = -(failure.errno or errno.ENOMEM)
            else:
                file_bytes = min(size, max(0, -(-_file_size(task.tid, state.r8) // PAGE) * PAGE - state.r9))
                thread.move([Move(result, size, protection, [(result, file_bytes)])])
        state.rax = result & _WORD


def _mremap(task: Task, state: UserRegisters) -> None:
    """mremap(rdi, rsi, rdx, …): to shrink is the kernel's; to grow or copy is refused for secret pages, which cannot."""
    if state.rdx <= state.rsi and state.rsi:
        return
    for region in maps.regions(task.tid):
        if region.start <= state.rdi < region.end and (region.secret or region.exposed):
            skip(task.tid, state, -errno.ENOMEM)
            return


def _mprotect(task: Task, state: UserRegisters) -> None:
    """mprotect(rdi, rsi, rdx): secret pages that become code turn ordinary, private ones that become writable turn secret."""
    start, protection = state.rdi, state.rdx
    end = start + -(-state.rsi // PAGE) * PAGE
    inside = [region for region in maps.regions(task.tid) if region.start < end and region.end > start]
    if protection & mmap.PROT_EXEC:
        secret = [region for region in inside if region.secret]
        if not secret:
            return
        with Borrowed(task.tid, task.tgid) as thread:
            thread.registers.orig_rax = ptrace.NO_SYSCALL
            for region in secret:
                _make_ordinary(thread, region, max(start, region.start), min(end, region.end))
            thread.registers.rax = _result(thread, state)
        return
    fresh = [
        _part(region, start, end)
        for region in inside
        if region.perms[3] == "p" and region.perms[1:3] == "--" and not region.secret
    ]
    if not fresh:
        return
    with Borrowed(task.tid, task.tgid) as thread:
        thread.registers.orig_rax = ptrace.NO_SYSCALL
        thread.registers.rax = _result(thread, state)
        if thread.registers.rax == 0:
            thread.move([guard_space.move(task.tid, region, protection) for region in fresh])


def _part(region: maps.Region, start: int, end: int) -> maps.Region:
    low, high = max(start, region.start), min(end, region.end)
    return region._replace(start=low, end=high, offset=region.offset + low - region.start)


def _result(thread: Borrowed, state: UserRegisters) -> int:
    """Make the system call that the thread was about to make."""
    try:
        return thread.call(state.orig_rax, state.rdi, state.rsi, state.rdx, state.r10)
    except OSError as failure:
        return -(failure.errno or errno.ENOMEM) & _WORD


def _make_ordinary(thread: Borrowed, region: maps.Region, start: int, end: int) -> None:
    """Secret pages cannot be executed: a range that becomes code goes back to ordinary memory."""
    runs = list(maps.touched(thread.tid, start, end)) if region.prot & mmap.PROT_READ else []
    flags = remote.MAP_PRIVATE | remote.MAP_ANONYMOUS | remote.MAP_NORESERVE
    # Asked for with PROT_EXEC, which the filter lets pass and which the new mapping will have anyway.
    ordinary = thread.call(guard_filter.MMAP, 0, end - start, 7, flags, -1)
    if runs:
        thread.copy(start, ordinary, runs)
    thread.call(guard_filter.MREMAP, ordinary, end - start, end - start, 3, start)


def _file_size(tid: int, fd: int) -> int:
    return os.stat(f"/proc/{tid}/fd/{fd & 0xFFFFFFFF}").st_size  # noqa: PTH116 - see guard_maps
