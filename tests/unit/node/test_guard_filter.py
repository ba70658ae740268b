"""The seccomp filter, run by an interpreter of classic BPF: which calls stop, pass, or are refused."""

from __future__ import annotations

import struct

import pytest

from strongroom.node.guard import filter as guard_filter

ALLOW, TRACE, ENOMEM, ENOSYS, KILL = 0x7FFF0000, 0x7FF00000, 0x0005000C, 0x00050026, 0x80000000
X86_64, I386 = 0xC000003E, 0x40000003


def judge(number, *arguments, arch=X86_64, at=0x7F00_0000_1234):
    """What the filter answers to one system call."""
    data = struct.pack("<IIQ6Q", number, arch, at, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    program = list(struct.iter_unpack("<HBBI", guard_filter.program()))
    accumulator, counter = 0, 0
    for _ in range(len(program)):
        code, yes, no, value = program[counter]
        counter += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            counter += yes if accumulator == value else no
        elif code == 0x35:
            counter += yes if accumulator >= value else no
        elif code == 0x45:
            counter += yes if accumulator & value else no
        else:
            assert code == 0x06, hex(code)
            return value
    raise AssertionError("the filter does not end")


PRIVATE, SHARED, ANONYMOUS, FIXED = 2, 1, 0x20, 0x10
WINDOW = guard_filter.WINDOW_START + 0x1234000


@pytest.mark.parametrize(
    ("protection", "flags", "answer"),
    [
        (3, PRIVATE | ANONYMOUS, TRACE),
        (3, PRIVATE | ANONYMOUS | FIXED | 0x20000, TRACE),
        (0, PRIVATE | ANONYMOUS | 0x4000, TRACE),
        (1, PRIVATE | ANONYMOUS, TRACE),
        (7, PRIVATE | ANONYMOUS, ALLOW),  # code
        (3, SHARED | ANONYMOUS, ALLOW),
        (3, 3 | ANONYMOUS, ALLOW),  # MAP_SHARED_VALIDATE
        (3, PRIVATE, TRACE),
        (2, PRIVATE | FIXED, TRACE),
        (1, PRIVATE, ALLOW),
        (5, PRIVATE, ALLOW),
        (3, SHARED, ALLOW),
    ],
)
def test_mmap(protection, flags, answer):
    assert judge(9, 0, 4096, protection, flags, 3, 0) == answer


@pytest.mark.parametrize(
    ("address", "protection", "answer"),
    [
        (WINDOW, 3, ALLOW),
        (WINDOW, 7, TRACE),
        (WINDOW, 5, TRACE),
        (WINDOW, 0, ALLOW),
        (0x7F00_0000_0000, 3, TRACE),
        (0x7F00_0000_0000, 1, ALLOW),
        (0x5555_0000_0000, 2, TRACE),
        (guard_filter.WINDOW_END, 3, TRACE),
        (guard_filter.WINDOW_START - 4096, 3, TRACE),
        (guard_filter.WINDOW_END - 4096, 3, ALLOW),
    ],
)
@pytest.mark.parametrize("number", [10, 329])
def test_mprotect(number, address, protection, answer):
    assert judge(number, address, 4096, protection) == answer


def test_brk_and_mremap():
    assert judge(12, 0) == TRACE
    assert judge(25, WINDOW, 4096, 8192) == ENOMEM
    assert judge(25, 0x7F00_0000_0000, 4096, 8192) == TRACE


@pytest.mark.parametrize(
    ("operation", "answer"), [(0, TRACE), (128, ALLOW), (9 | 256, TRACE), (9 | 128 | 256, ALLOW)]
)
def test_futex(operation, answer):
    assert judge(202, WINDOW, operation, 1) == answer


@pytest.mark.parametrize("number", [435, 449, 454, 455, 456, 9 | 0x40000000, 202 | 0x40000000])
def test_calls_that_would_go_unseen_do_not_exist(number):
    assert judge(number, 0, 0, 3, 0x22) == ENOSYS


@pytest.mark.parametrize("number", [0, 1, 3, 9, 192, 45])
def test_another_instruction_set_dies(number):
    assert judge(number, 0, 4096, 3, 0x22, arch=I386) == KILL


@pytest.mark.parametrize("number", [0, 1, 11, 28, 56, 57, 59, 231, 447])
def test_all_else_passes(number):
    assert judge(number, 1, 2, 3, 4, 5, 6) == ALLOW


@pytest.mark.parametrize(
    ("at", "answer"),
    [
        (guard_filter.STUB, ALLOW),
        (guard_filter.STUB + guard_filter.STUB_CODE - 1, ALLOW),
        (guard_filter.STUB + guard_filter.STUB_CODE, TRACE),
        (guard_filter.STUB - 1, TRACE),
        (guard_filter.STUB + (1 << 32), TRACE),  # the upper half counts
    ],
)
def test_only_the_guardians_own_code_is_not_looked_at(at, answer):
    assert judge(9, 0, 4096, 3, 0x22, at=at) == answer
