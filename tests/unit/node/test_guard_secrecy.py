"""The attacks that the guard is for: each finds the canary in the plain program and not in the guarded one."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strongroom.node import scrape
from strongroom.node.guard import launch, maps
from tests.unit.node.memory_thief import LIBC, stolen

from . import victims

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(launch.supported() is not None, reason=f"no memory guard here: {launch.supported()}"),
]


def _wait_until_asleep(pid):
    """Wait until the main thread is in the kernel, in its last call: clock_nanosleep, 230 on x86-64."""
    deadline = time.monotonic() + 60
    while not Path(f"/proc/{pid}/syscall").read_text().startswith("230 "):
        assert time.monotonic() < deadline, Path(f"/proc/{pid}/syscall").read_text()
        time.sleep(0.02)


class Victim:
    """A process with a canary in all its memory. `needles`: the canary, and the text in libc's .bss."""

    def __init__(self, *, guarded):
        # ctypes copies bytes into a structure up to their first zero.
        self.canary = bytes(1 + secrets.randbelow(255) for _ in range(32))
        year = 1_000_000_000 + secrets.randbelow(1_000_000_000)
        self.needles = [self.canary, b"00:00:00 %d\n" % year]
        feed, ours = os.pipe()
        out, theirs = os.pipe()
        self.guarded = self.plain = None
        if guarded:
            self.guarded = launch.spawn(victims.argv(), stdin=feed, stdout=theirs)
            self.pid = self.guarded.pid
        else:
            self.plain = subprocess.Popen(victims.argv(), stdin=feed, stdout=theirs)
            self.pid = self.plain.pid
        os.close(feed)
        os.close(theirs)
        os.write(ours, f"{self.canary.hex()} {year}\n".encode())
        os.close(ours)
        assert victims.read_until(out, b"ready") == b"ready\n"
        _wait_until_asleep(self.pid)  # the main thread's stack is filled after "ready"
        os.close(out)

    def end(self):
        if self.plain:
            self.plain.kill()
            self.plain.wait()
        else:
            self.guarded.kill()
            self.guarded.wait(60)


@contextlib.contextmanager
def victim(*, guarded):
    one = Victim(guarded=guarded)
    try:
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def plain():
    with victim(guarded=False) as one:
        yield one


@pytest.fixture(scope="module")
def guarded():
    with victim(guarded=True) as one:
        yield one


def test_a_plain_process_shows_every_kind_of_memory(plain):
    report = scrape.scan(plain.pid, plain.needles)
    for one in report.passes:
        assert sum(hit.counts[0] for hit in one.hits) > 4000, one.method
        assert any(hit.region == "[stack]" and hit.counts[0] >= 32 for hit in one.hits), one.method
        assert any(
            "libc" in hit.region or hit.region == "anonymous memory" for hit in one.hits if hit.counts[1]
        )


def test_a_guarded_process_shows_none(guarded):
    report = scrape.scan(guarded.pid, guarded.needles)
    for one in report.passes:
        assert one.hit_count == 0, one.hits
        assert one.secret > 8 << 20
        assert one.read > 1 << 20  # the program's code could be read: the search did run
    assert "memfd_secret" in report.sentence


def test_nothing_private_and_writable_is_left(guarded):
    assert [region for region in maps.regions(guarded.pid) if region.exposed] == []


def test_arguments_and_environment_are_hidden(plain, guarded):
    assert Path(f"/proc/{plain.pid}/cmdline").read_bytes()
    for name in ("cmdline", "environ"):
        try:
            assert Path(f"/proc/{guarded.pid}/{name}").read_bytes() == b""
        except OSError:
            pass
    for pid in (guarded.guarded.guardian_pid, guarded.guarded.watcher_pid):
        assert b"asctime" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_guardian_holds_no_secret(guarded):
    for pid in (guarded.guarded.guardian_pid, guarded.guarded.watcher_pid):
        assert scrape.scan(pid, guarded.needles).hit_count == 0


def test_nobody_else_can_trace_program_guardian_or_watcher(guarded):
    threads = [int(name) for name in victims.names(f"/proc/{guarded.pid}/task")]
    assert len(threads) == 2
    for tid in (*threads, guarded.guarded.guardian_pid, guarded.guarded.watcher_pid):
        assert victims.names(f"/proc/{tid}/task")
        for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
            assert LIBC.ptrace(request, tid, 0, 0) == -1
            assert ctypes.get_errno() == 1, "EPERM"


def test_a_plain_process_can_be_traced(plain):
    assert LIBC.ptrace(16, plain.pid, 0, 0) == 0
    os.waitpid(plain.pid, 0)
    assert LIBC.ptrace(17, plain.pid, 0, 0) == 0


@pytest.mark.skipif(not shutil.which("gcore"), reason="gdb is not installed")
def test_a_debugger_dumps_the_plain_one_and_is_refused_by_the_guarded(plain, guarded):
    assert scrape.by_core(plain.pid, plain.needles).hit_count > 4000
    attempt = scrape.by_core(guarded.pid, guarded.needles)
    assert attempt.hit_count == 0
    assert "not permitted" in attempt.refused


def test_writing_to_secret_memory_fails_too(guarded):
    secret = next(region for region in maps.regions(guarded.pid) if region.secret)
    memory = os.open(f"/proc/{guarded.pid}/mem", os.O_RDWR)
    with pytest.raises(OSError, match="Input/output"):
        os.pwrite(memory, b"x", secret.start)
    os.close(memory)


def test_stealing_descriptors_finds_no_memory(guarded):
    count = 0
    for fd in stolen(guarded.pid):
        count += 1
        assert "secretmem" not in victims.link(f"/proc/self/fd/{fd}")
        with contextlib.suppress(OSError, ValueError), mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
            assert view.find(guarded.canary) < 0
    assert count >= 3


def test_a_stolen_secret_descriptor_would_show_all():
    # Why no descriptor may be left: the attack works on a program that keeps one.
    fd = LIBC.syscall(447, 0)
    os.ftruncate(fd, 4096)
    view = mmap.mmap(fd, 4096)
    view[:6] = b"canary"
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        seen = {
            mmap.mmap(copy, 4096)[:6]
            for copy in stolen(child)
            if "secretmem" in victims.link(f"/proc/self/fd/{copy}")
        }
        assert seen == {b"canary"}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        view.close()
        os.close(fd)


def test_opening_memory_by_proc_links_fails(guarded):
    for folder in ("fd", "map_files"):
        for name in victims.names(f"/proc/{guarded.pid}/{folder}"):
            link = f"/proc/{guarded.pid}/{folder}/{name}"
            if "secretmem" in victims.link(link):
                with pytest.raises(OSError, match="No such device"):
                    os.open(link, os.O_RDONLY)


def test_secret_pages_never_reach_swap_or_a_core(guarded):
    smaps = Path(f"/proc/{guarded.pid}/smaps").read_text()
    blocks = [block for block in smaps.split("VmFlags:") if "secretmem" in block]
    assert blocks
    for flags in (
        line for block in smaps.split("secretmem")[1:] for line in block.split("\n") if "VmFlags" in line
    ):
        if " lo " in flags:
            assert " dd " in flags  # locked, not dumped


@pytest.mark.slow("searches the memory of a guarded program that works")
def test_the_canary_is_still_hidden_after_work():
    with victim(guarded=True) as one:
        for _ in range(3):
            assert scrape.scan(one.pid, one.needles).hit_count == 0


# --- what the guard does not stop: the decision record says so, and must stay true ---


def test_limit_root_can_still_write_program_text(guarded):
    code = next(
        region for region in maps.regions(guarded.pid) if "x" in region.perms and "libc" in region.name
    )
    memory = os.open(f"/proc/{guarded.pid}/mem", os.O_RDWR)
    try:
        first = os.pread(memory, 1, code.start)
        assert os.pwrite(memory, first, code.start) == 1
    finally:
        os.close(memory)


def test_limit_memory_that_the_program_shares_is_ordinary():
    program = (
        "import mmap, sys\n"
        "c = bytes.fromhex(sys.stdin.readline())\n"
        "m = mmap.mmap(-1, 4096); m[:len(c)] = c; print('ready', flush=True); sys.stdin.read()"
    )
    canary = secrets.token_bytes(32)
    feed, ours = os.pipe()
    out, theirs = os.pipe()
    one = launch.spawn([sys.executable, "-I", "-S", "-c", program], stdin=feed, stdout=theirs)
    os.close(feed)
    os.close(theirs)
    os.write(ours, canary.hex().encode() + b"\n")
    victims.read_until(out, b"ready")
    try:
        assert [hit.perms for hit in scrape.scan(one.pid, [canary]).passes[0].hits] == ["rw-s"]
    finally:
        os.close(ours)
        os.close(out)
        one.kill()
        one.wait(60)
