"""The real target: QEMU with a running guest. The plain one shows the guest's memory, the guarded one does not."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time

import pytest

from strongroom.node import scrape
from strongroom.node.guard import launch, maps
from tests.unit.node.memory_thief import LIBC, stolen

from . import tiny_guest, victims

pytestmark = [
    pytest.mark.room,
    pytest.mark.root,
    pytest.mark.skipif(launch.supported() is not None, reason=f"no memory guard here: {launch.supported()}"),
]


@pytest.fixture(scope="module", autouse=True)
def _guest():
    place = tiny_guest.folder()
    if isinstance(place, str):
        pytest.skip(f"no guest to boot: {place}")


def booted(out):
    text = victims.read_until(out, b"MARKER", 90)
    os.close(out)
    assert b"MARKER" in text, text[-1000:]
    time.sleep(0.2)


@contextlib.contextmanager
def plain_qemu(boot):
    out, theirs = os.pipe()
    with subprocess.Popen(boot.argv, stdin=subprocess.DEVNULL, stdout=theirs) as process:
        os.close(theirs)
        try:
            booted(out)
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def guarded_qemu(boot):
    out, theirs = os.pipe()
    guarded = launch.spawn(boot.argv, stdin=subprocess.DEVNULL, stdout=theirs)
    os.close(theirs)
    try:
        booted(out)
        yield guarded
    finally:
        guarded.kill()
        guarded.wait(60)
    assert victims.wait_until_gone(guarded.watcher_pid) == []


def test_plain_qemu_shows_its_guests_memory():
    boot = tiny_guest.Boot(memory=256)
    with plain_qemu(boot) as pid:
        report = scrape.scan(pid, [boot.canary])
        assert min(one.hit_count for one in report.passes) >= 50
        if shutil.which("gcore"):
            assert scrape.by_core(pid, [boot.canary]).hit_count >= 50


def test_guarded_qemu_shows_nothing():
    boot = tiny_guest.Boot(memory=256)
    with guarded_qemu(boot) as guarded:
        for _ in range(3):
            report = scrape.scan(guarded.pid, [boot.canary])
            assert report.hit_count == 0, report
            assert min(one.secret for one in report.passes) > 256 << 20
        assert [region for region in maps.regions(guarded.pid) if region.exposed] == []
        # All that is left in ordinary private pages is translated code.
        ordinary = [
            region
            for region in maps.regions(guarded.pid)
            if region.perms[3] == "p" and region.perms[1] == "w"
        ]
        assert all("x" in region.perms for region in ordinary)
        for fd in stolen(guarded.pid):
            assert "secretmem" not in victims.link(f"/proc/self/fd/{fd}")
        for tid in victims.names(f"/proc/{guarded.pid}/task"):
            assert LIBC.ptrace(0x4206, int(tid), 0, 0) == -1
        if shutil.which("gcore"):
            assert "not permitted" in scrape.by_core(guarded.pid, [boot.canary]).refused
        for pid in (guarded.guardian_pid, guarded.watcher_pid):
            assert scrape.scan(pid, [boot.canary]).hit_count == 0


def test_the_guest_dies_with_its_guardian():
    boot = tiny_guest.Boot(memory=256)
    with guarded_qemu(boot) as guarded:
        os.kill(guarded.guardian_pid, 9)
        assert guarded.wait(60) == -9
        assert victims.wait_until_gone(guarded.watcher_pid) == []
