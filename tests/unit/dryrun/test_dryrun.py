"""A dry run: a room's conditions on this very machine, and what is left of it afterwards: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest

from strongroom.agent import owners
from strongroom.dryrun import machine
from strongroom.errors import Unavailable
from strongroom.images.cache import Cache
from strongroom.model.receipt import Outcome
from tests.unit.dryrun.images import BUSYBOX, MIB, attempt, base, layout
from tests.unit.images.kit import entry

root = [pytest.mark.root, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")]
STRONGROOM = Path(sys.executable).parent / "strongroom"


def marked(test):
    for one in root:
        test = one(test)
    return test


def shell(tmp_path: Path, script: str, **changes):
    return attempt(
        layout(tmp_path, base(), Entrypoint=["/bin/sh", "-c"]), tmp_path, arguments=(script,), **changes
    )


@marked
def test_the_conditions_are_a_rooms(tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/table.csv").write_text("a,b\n")
    (tmp_path / "sets/table.csv").chmod(0o600)
    result, log, _ = shell(
        tmp_path,
        "id -u; cat /proc/self/uid_map; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; cat /data/sets/table.csv;"
        "touch /data/sets/x /bin/x; mount -t tmpfs none /tmp; ip -o link | grep -c LOOPBACK; ip -o link | grep -c ether; echo $A $HOME; stat -c %a /tmp",
        data={"sets": tmp_path / "sets"},
        environment={"A": "mine"},
    )
    words = log.split()
    assert words[:4] == ["1000", "0", str(owners.FIRST), str(owners.COUNT)]
    assert "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n" in log
    assert "a,b\n" in log
    assert "/data/sets/x: Read-only file system" in log
    assert "/bin/x: Permission denied" in log
    assert "mount: permission denied" in log
    assert words[-5:] == ["1", "0", "mine", "/home/ann", "1777"]
    assert (result.outcome, result.exit_status, result.leaves) == (Outcome.EXITED, 0, True)


@marked
def test_what_would_leave_is_what_a_room_would_seal(tmp_path):
    result, _, tar = shell(
        tmp_path, "echo 1 > /out/x; echo 2 > /tmp/y; ln -s /etc/passwd /out/away 2>/dev/null || true; exit 5"
    )
    assert (result.outcome, result.exit_status, result.leaves, result.failed) == (
        Outcome.EXITED,
        5,
        True,
        True,
    )
    with tarfile.open(fileobj=BytesIO(tar)) as found:
        assert [one.name for one in found.getmembers()] == ["x"]


@marked
@pytest.mark.parametrize(
    ("script", "changes", "outcome", "detail"),
    [
        ("echo 1 > /out/x; kill -9 $$", {}, Outcome.KILLED, None),
        ("echo 1 > /out/x; sleep 100", {"wall_seconds": 1}, Outcome.TIMED_OUT, None),
        ("head -c 2000000 /dev/zero > /out/x", {"out_bytes": MIB}, Outcome.OUTPUT_TOO_LARGE, "output-bytes"),
    ],
)
def test_what_a_room_would_hold_back_does_not_leave(tmp_path, script, changes, outcome, detail):
    result, _, tar = shell(tmp_path, script, **changes)
    assert result.outcome is outcome
    assert detail is None or detail in result.details
    assert (result.leaves, tar) == (False, b"")


@marked
def test_memory_is_limited_and_told_where_this_machine_can(tmp_path):
    result, _, _ = shell(tmp_path, "x=$(head -c 30000000 /bin/sh); while :; do x=$x$x; done", memory=64 * MIB)
    if not result.limited:
        pytest.skip("this machine has no control group for memory")
    assert (result.outcome, result.failed) == (Outcome.OUT_OF_MEMORY, True)
    assert result.memory is None or 32 * MIB < result.memory <= 64 * MIB


@marked
def test_a_program_that_is_not_there_is_told_by_name(tmp_path):
    result, _, _ = attempt(layout(tmp_path, base(), Entrypoint=["/gone"]), tmp_path)
    assert (result.outcome, result.details) == (Outcome.NOT_STARTED, ("program-missing",))
    assert "/gone" in result.reason


@marked
def test_the_second_run_takes_the_image_from_the_cache_once_it_was_checked(tmp_path):
    cache = Cache(folder=tmp_path / "cache")
    path = layout(tmp_path, base(), Entrypoint=["/bin/cat", "/etc/passwd"])
    first = attempt(path, tmp_path, cache=cache)
    kept = next((tmp_path / "cache/disks").glob("*.disk"))
    with kept.open("rb"):  # while it is open no other file gets its inode
        inode = kept.stat().st_ino
        assert attempt(path, tmp_path, cache=cache)[1] == first[1]
        assert kept.stat().st_ino == inode
        with kept.open("r+b") as file:
            file.seek(5000)
            file.write(b"tampered")
        assert attempt(path, tmp_path, cache=cache)[1] == first[1]
        assert kept.stat().st_ino != inode
    assert not list((tmp_path / "scratch").iterdir())


def test_without_roots_rights_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="a dry run takes root: it mounts the image") as caught:
        machine.require()
    assert caught.value.code == "not-root"
    assert "sudo" in caught.value.hint


def left_behind(run: int) -> dict[str, list[str]]:
    return {
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if "strongroom-try" in line],
        "groups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/strongroom-try-{run}")],
        "loops": [
            str(path)
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
            if "strongroom-try" in path.read_text()
        ],
        "processes": subprocess.run(["pgrep", "-f", "sleep 4321"], capture_output=True, text=True, check=False).stdout.split(),
    }  # fmt: skip


@marked
@pytest.mark.skipif(shutil.which("pgrep") is None, reason="needs procps")
@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 143),
        (signal.SIGKILL, False, -9),
    ],
)
def test_however_it_is_ended_nothing_stays(tmp_path, number, whole_group, code):
    path = layout(tmp_path, base(), entry(b"srv/x"), Entrypoint=["/bin/sh", "-c", "echo ready; sleep 4321"])
    running = subprocess.Popen(
        [STRONGROOM, "try", path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        text=True,
    )
    assert running.stderr is not None
    assert any(line == "ready\n" for line in running.stderr)
    assert left_behind(running.pid)["processes"]
    if whole_group:
        os.killpg(running.pid, number)  # as a terminal does
    else:
        running.send_signal(number)
    assert running.wait(60) == code
    running.stderr.close()
    deadline = time.monotonic() + 60
    while (
        any((left := left_behind(running.pid)).values())
        and number == signal.SIGKILL
        and time.monotonic() < deadline
    ):
        for group in left["groups"]:  # an empty folder, which nobody lived to remove
            if not left["processes"]:
                Path(group).rmdir()
        time.sleep(0.05)
    assert not any(left.values()), left


@marked
def test_groups_that_killed_dry_runs_left_are_removed_by_the_next():
    with machine.group(64 * MIB) as own:
        if not own.places:
            pytest.skip("needs control groups")
        killed = [
            Path(place).with_name(f"strongroom-try-{number}")
            for place in own.places
            for number in (2**22 + 1, 1)
        ]
        for folder in killed:
            folder.mkdir()
    left = []
    try:
        with machine.group(64 * MIB):
            left = [folder.name for folder in killed if folder.exists()]
    finally:
        for folder in killed:
            with contextlib.suppress(OSError):
                folder.rmdir()
    assert set(left) == {"strongroom-try-1"}  # whose process lives


@marked
def test_for_programs_it_is_one_document_and_the_log_is_beside_it(tmp_path):
    path = layout(tmp_path, base(), Entrypoint=["/bin/sh", "-c", "echo words; echo 1 > /out/x; exit 3"])
    done = subprocess.run(
        [STRONGROOM, "try", path, "--json", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    told = json.loads(done.stdout)
    assert (done.returncode, told["outcome"], told["exit_status"]) == (8, "exited", 3)
    assert told["protected"] is False
    assert told["outputs"] == [{"path": "x", "bytes": 2}]
    assert "nothing of this run is sealed, measured or proved" in done.stderr
    assert done.stderr.endswith("words\n")
    assert (tmp_path / "out/x").read_text() == "1\n"
