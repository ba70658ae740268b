"""The scraper itself: it must find what is there, or its silence means nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from strongroom.errors import Malformed, Misuse, NotFound
from strongroom.node import scrape
from tests.unit.node import victims

pytestmark = pytest.mark.root

HOLD = "import sys; kept = sys.stdin.buffer.readline().strip() * 3; print(flush=True); sys.stdin.read()"


class Holder:
    """A process that holds the bytes it was given."""

    def __init__(self, canary, program=HOLD):
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.process.stdin.write(canary + b"\n")
        self.process.stdin.flush()
        self.process.stdout.readline()
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.process:
            self.process.stdin.close()


def test_both_ways_find_the_canary_and_nothing_else():
    canary = os.urandom(16).hex().encode()
    with Holder(canary) as holder:
        report = scrape.scan(holder.pid, [canary, os.urandom(16)])
    assert [one.method for one in report.passes] == ["/proc/PID/mem", "process_vm_readv"]
    for one in report.passes:
        assert sum(hit.counts[0] for hit in one.hits) >= 3
        assert sum(hit.counts[1] for hit in one.hits) == 0
        assert one.read > 1 << 20
    assert f"found {report.hit_count} times" in report.sentence
    assert canary.decode() not in repr(report)


def test_no_canary_is_said_in_one_sentence():
    with Holder(b"nothing") as holder:
        report = scrape.scan(holder.pid, [os.urandom(32)])
    assert report.hit_count == 0
    assert "no canary" in report.sentence
    assert "\n" not in report.sentence


def test_memory_without_access_is_read_by_mem_only():
    # /proc/PID/mem ignores page protections; process_vm_readv does not. Both must say so.
    program = (
        "import ctypes, mmap, sys\n"
        "c = bytes.fromhex(sys.stdin.readline())\n"
        "m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m[:len(c)] = c\n"
        "a = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
        "del c; print(ctypes.CDLL(None).mprotect(ctypes.c_void_p(a), 4096, 0), flush=True); sys.stdin.read()\n"
    )
    canary = os.urandom(24)
    with Holder(canary.hex().encode(), program) as holder:
        mem, readv = scrape.scan(holder.pid, [canary]).passes
    assert any(hit.perms == "---p" for hit in mem.hits)
    assert not any(hit.perms == "---p" for hit in readv.hits)
    assert ("Bad address", True) in {(part.reason, part.size >= 4096) for part in readv.unread}


@pytest.mark.parametrize("sizes", [[1], [3, 5], [7, 7, 7], [100], [1] * 60])
def test_a_needle_across_pieces_is_found_once(sizes):
    needles = [b"abcdef", b"cd"]
    text = b"xxabcdefyyabcdefcdzzabcde"
    finder = scrape._Finder(needles)
    total = [0, 0]
    at = 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        total = [a + b for a, b in zip(total, finder.feed(text[at : at + size]), strict=True)]
        at += size
    assert total == [2, 4]


@pytest.mark.parametrize("needles", [[], [b"abc"], [b"good one", b""], [bytes((1 << 20) + 1)]])
def test_useless_canaries_are_a_misuse(needles):
    with pytest.raises(Misuse, match="a canary of 4 bytes to 1 MiB is needed"):
        scrape.scan(os.getpid(), needles)


def test_no_such_process():
    with pytest.raises(NotFound, match="there is no process"):
        scrape.scan((1 << 22) + 1, [b"canary"])


def test_a_process_that_ends_meanwhile_raises_nothing_strange():
    for _ in range(10):
        process = subprocess.Popen(["/bin/sleep", "0.003"])
        try:
            scrape.scan(process.pid, [b"canary"])
        except NotFound:
            pass
        process.wait()


def test_descendants():
    with subprocess.Popen(["/bin/sh", "-c", "sh -c 'sleep 30; true' & sleep 30; true"]) as process:
        assert victims.until(lambda: len(scrape.descendants(process.pid)) == 3)
        below = scrape.descendants(process.pid)
        for pid in (*below, process.pid):
            os.kill(pid, 9)
    assert scrape.descendants(process.pid) == []


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "strongroom.cli.main", "scrape", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_says_what_it_saw(tmp_path):
    canary = os.urandom(16).hex()
    (tmp_path / "canary").write_text(canary)
    with Holder(canary.encode()) as holder:
        for way in (
            ["--canary", canary],
            ["--canary-hex", canary.encode().hex()],
            ["--canary-file", tmp_path / "canary"],
        ):
            done = command(holder.pid, *way)
            assert done.returncode == 0, done.stderr
            assert "the canary was found" in done.stdout
        machine = command(holder.pid, "--canary", canary, "--json")
        assert machine.returncode == 0
        document = json.loads(machine.stdout)
        assert document["hits"] >= 3
        assert document["processes"][0]["pid"] == holder.pid
        assert canary not in machine.stdout
        none = command(holder.pid, "--canary", os.urandom(16).hex(), "--json")
        assert (none.returncode, json.loads(none.stdout)["hits"]) == (0, 0)


def test_the_command_follows_children():
    canary = os.urandom(16).hex()
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    with Holder(canary.encode(), inner) as holder:
        assert json.loads(command(holder.pid, "--canary", canary, "--json").stdout)["hits"] == 0
        both = json.loads(command(holder.pid, "--canary", canary, "--children", "--json").stdout)
        assert both["hits"] >= 3
        assert len(both["processes"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([1], 2),
        ([1, "--canary-hex", "xyz"], 2),
        ([(1 << 22) + 1, "--canary", "canary"], 5),
        ([1, "--canary", "abc"], 2),
    ],
)
def test_the_command_refuses_with_a_sentence(arguments, code):
    done = command(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stderr


@pytest.fixture
def processes(monkeypatch):
    """1 has the children 2 and 3, of which 3 ends meanwhile; 9 is not there. What was scanned, in order."""
    scanned = []

    def scan(pid, needles):
        if pid in (3, 9):
            raise NotFound(f"process {pid}: not there", hint="none")
        scanned.append(pid)
        return scrape.ScrapeReport(pid=pid, command="x", passes=())

    monkeypatch.setattr(scrape, "scan", scan)
    monkeypatch.setattr(scrape, "descendants", {1: [2, 3], 2: [], 9: []}.__getitem__)
    core = scrape.Pass(method="gcore", read=0, hits=(), unread=())
    monkeypatch.setattr(scrape, "by_core", lambda pid, needles: core)
    return scanned


def test_each_process_is_read_once_and_told_as_soon_as_it_was(processes):
    told = []
    reports = scrape.scrape_processes([2, 1, 2], needles=[b"canary"], children=True, on_report=told.append)
    assert processes == [2, 1]
    assert tuple(told) == reports
    assert all(report.passes == () for report in reports)
    (report,) = scrape.scrape_processes([1], needles=[b"canary"], gcore=True)
    assert [one.method for one in report.passes] == ["gcore"]


def test_a_descendant_may_end_meanwhile_and_a_named_process_may_not(processes):
    with pytest.raises(NotFound, match="process 3"):
        scrape.scrape_processes([1, 3], needles=[b"canary"])
    with pytest.raises(NotFound, match="process 9"):
        scrape.scrape_processes([9], needles=[b"canary"], children=True)


def test_nothing_to_search_for_is_refused_before_anything_is_read(processes, tmp_path):
    with pytest.raises(Misuse, match="nothing to search for"):
        scrape.scrape_processes([1], needles=[])
    assert processes == []
    (tmp_path / "canary").write_bytes(b"can\0ary\n")
    assert scrape.load_needle(tmp_path / "canary") == b"can\0ary\n"
    (tmp_path / "canary").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(Malformed, match="larger than"):
        scrape.load_needle(tmp_path / "canary")
