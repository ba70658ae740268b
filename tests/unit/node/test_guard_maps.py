"""Reading /proc/PID/maps and /proc/PID/pagemap."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os

import pytest

from strongroom.node.guard import maps

PAGE = maps.PAGE


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"7f00-8f00 rw-p 00001000 fe:00 42                         /usr/lib/with space.so\n",
            (0x7F00, 0x8F00, "rw-p", 0x1000, 42, "/usr/lib/with space.so", 3, True, False),
        ),
        (b"1000-2000 ---p 00000000 00:00 0 \n", (0x1000, 0x2000, "---p", 0, 0, "", 0, False, False)),
        (
            b"1000-2000 rw-s 00000000 00:0e 7 /secretmem (deleted)\n",
            (0x1000, 0x2000, "rw-s", 0, 7, "/secretmem (deleted)", 3, False, True),
        ),
        (b"1000-2000 rwxp 00000000 00:00 0\n", (0x1000, 0x2000, "rwxp", 0, 0, "", 7, False, False)),
    ],
)
def test_a_line_of_maps(line, expected):
    region = maps._parse(line)
    assert (*region, region.prot, region.exposed, region.secret) == expected


def test_own_regions_are_in_order_and_hold_this_code():
    found = maps.regions(os.getpid())
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert any(region.name == "[stack]" and region.exposed for region in found)


def test_no_such_process():
    with pytest.raises(FileNotFoundError):
        maps.regions((1 << 22) + 1)


def test_touched_pages_come_in_runs():
    size = 3000 * PAGE
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_NOHUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    assert list(maps.touched(os.getpid(), start, start + size)) == []
    for page in (0, 1, 5, 500, 2999):
        block[page * PAGE] = 1
    runs = [
        ((at - start) // PAGE, length // PAGE)
        for at, length in maps.touched(os.getpid(), start, start + size)
    ]
    assert runs == [(0, 6), (500, 1), (2999, 1)]
    part = list(maps.touched(os.getpid(), start + 2 * PAGE, start + 501 * PAGE))
    assert part == [(start + 5 * PAGE, PAGE), (start + 500 * PAGE, PAGE)]


def test_a_run_may_span_two_reads(monkeypatch):
    monkeypatch.setattr(maps, "_CHUNK", 4)
    size = 64 * PAGE
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_NOHUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for page in (2, 3, 4, 5, 40):
        block[page * PAGE] = 1
    runs = [
        ((at - start) // PAGE, length // PAGE)
        for at, length in maps.touched(os.getpid(), start, start + size)
    ]
    assert runs == [(2, 4), (40, 1)]
