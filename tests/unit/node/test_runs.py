"""The status that a run keeps while it goes on, and what `strongroom runs` makes of it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.cli.rooms import runs as verb
from strongroom.errors import Malformed, NotFound
from strongroom.model import receipt
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import room_terms
from strongroom.model.room import run_files
from strongroom.node import run as running
from strongroom.node import run_status, runs
from strongroom.node.run_status import State
from strongroom_testing.contracts import changed
from tests import samples

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ROOM = (
    "booted",
    "contract-bound",
    "attested:alice",
    "disks-open",
    "program-started",
    "program-ended",
    "outputs-sealed",
)


class Clock:
    def __init__(self):
        self.seconds = 0

    def now(self):
        return NOW + timedelta(seconds=self.seconds)

    def elapsed(self):
        return self.seconds * 1000


def begin(folder, clock):
    folder.mkdir(parents=True, exist_ok=True)
    return run_status.RunStatus(folder, samples.a_contract(), "main", now=clock.now, elapsed=clock.elapsed)


def a_receipt(**changes):
    disk = receipt.Disk(manifest_digest=samples.DIGEST, root_hash=samples.DIGEST)
    made = receipt.Receipt(
        room="main",
        run_id="run-" + "0" * 32,
        contract_digest=samples.DIGEST,
        signing_key=b"s" * 32,
        image=disk,
        datasets=(),
        outputs=(),
        outcome=receipt.Outcome.EXITED,
        exit_status=0,
        details=(),
        started=NOW,
        ended=NOW,
    )
    return replace(made, **changes)


def test_a_run_shows_where_it_is_while_it_goes_on(tmp_path):
    clock, folder = Clock(), tmp_path / "run"
    folder.mkdir()
    with run_status.held(folder):
        watch(folder, clock)


def watch(folder, clock):
    status = begin(folder, clock)
    seen = [runs.read(folder).state]
    status.booting()
    seen.append(runs.read(folder).state)
    for name in ROOM:
        clock.seconds += 1
        status.phase(name, 5)
        one = runs.read(folder)
        seen.append(one.state)
        assert (one.phase, one.contract_id, one.milliseconds) == (name, "flights", clock.elapsed())
    assert seen == [
        State.STARTING,
        State.BOOTING,
        State.ATTESTING,
        State.ATTESTING,
        State.RELEASED,
        State.RELEASED,
        State.RUNNING,
        State.SEALING,
        State.RECORDING,
    ]
    clock.seconds += 1
    status.done(a_receipt(), ("receipt.json",))
    one = runs.read(folder)
    assert (one.state, one.outcome, one.exit_status, one.good) == (State.DONE, "exited", 0, True)
    assert list(one.times) == [
        "starting",
        "booting",
        "attesting",
        "released",
        "running",
        "sealing",
        "recording",
        "done",
    ]
    assert one.times["running"] == "2026-12-01T00:00:05Z"
    assert json.loads((folder / run_files.STATUS).read_bytes())["first_instruction_milliseconds"] == 5000
    assert [path.name for path in folder.iterdir()] == [run_files.STATUS]


def test_a_run_whose_process_is_gone_is_killed_not_running(tmp_path):
    folder, clock = tmp_path / "run", Clock()
    folder.mkdir()
    child = os.fork()
    if child == 0:
        with run_status.held(folder):
            begin(folder, clock).phase("program-started", 1)
            os._exit(0)
    os.waitpid(child, 0)
    assert runs.read(folder).state is State.KILLED
    other = tmp_path / "other"
    other.mkdir()
    with run_status.held(other):
        alive = begin(other, clock)
        assert runs.read(other).state is State.STARTING
        with pytest.raises(BlockingIOError), run_status.held(other):
            pass
    alive.failed(None)
    assert runs.read(other).state is State.INTERRUPTED


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_folder_on_a_file_system_without_locks_takes_a_run(tmp_path, monkeypatch, code):
    def no_locks(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with running.taken(tmp_path / "run"):
        begin(tmp_path / "run", Clock())
        assert runs.read(tmp_path / "run").state is State.STARTING


def test_earlier_attempts_are_listed_with_the_run_that_they_are_kept_in(tmp_path):
    clock, out = Clock(), tmp_path / "out"
    for _ in range(3):
        clock.seconds += 1
        with running.taken(out):
            begin(out, clock).failed(None)
    (out / "manifests").mkdir()
    (out / "manifests" / run_files.STATUS).write_bytes((out / run_files.STATUS).read_bytes())
    found = [one.folder.relative_to(tmp_path).as_posix() for one in runs.find(tmp_path)]
    assert found == ["out/attempt-1", "out/attempt-2", "out"]


def test_a_run_that_failed_says_why(tmp_path):
    status = begin(tmp_path, Clock())
    status.failed({"code": "room-died", "message": "the room ended by itself"})
    one = runs.read(tmp_path)
    assert (one.state, one.error) == (State.FAILED, "room-died: the room ended by itself")
    assert not one.good


def test_a_full_disk_ends_no_run(tmp_path, monkeypatch):
    status = begin(tmp_path, Clock())
    before = (tmp_path / run_files.STATUS).read_bytes()

    def full(*_args, **_more):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        status.booting()
        status.phase("booted", 1)
        assert (tmp_path / run_files.STATUS).read_bytes() == before
        with pytest.raises(OSError, match="Input/output"):
            status.done(a_receipt(), ())
    assert not list(tmp_path.glob(".*.part"))


def test_on_a_full_disk_the_status_tells_what_is_in_memory_alone_and_until_when(
    tmp_path, monkeypatch, capsys
):
    status = begin(tmp_path, Clock())

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, run_status.held(tmp_path):
        patched.setattr(Path, "replace", full)
        status.held(("out-0.tar.age",), 5 << 20, 3600.0)
        assert runs.read(tmp_path).held == ("out-0.tar.age",)
        told = json.loads((tmp_path / run_files.STATUS).read_bytes())["held"]
        assert told == {"bytes": 5 << 20, "files": ["out-0.tar.age"], "until": "2026-12-01T01:00:00Z"}
        verb.runs(tmp_path)
        assert "NO ROOM for out-0.tar.age" in capsys.readouterr().out
        status.held((), 0, 0.0)
        assert runs.read(tmp_path).held == ()
        status.held(("out-0.tar.age",), 5 << 20, 10.0)
        status.failed({"code": "run-folder", "message": "no room"})
    ended = json.loads((tmp_path / run_files.STATUS).read_bytes())
    assert (ended["state"], ended["lost"], "held" in ended) == ("failed", ["out-0.tar.age"], False)
    assert not list(tmp_path.glob(".*.part"))


def test_a_status_that_needs_more_than_the_full_disk_has_keeps_its_last_word(tmp_path, monkeypatch):
    status = begin(tmp_path, Clock())
    before = (tmp_path / run_files.STATUS).read_bytes()

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    for _ in range(run_status.MAX_NOTES):
        status.note("x" * 400)
    status.booting()
    assert (tmp_path / run_files.STATUS).read_bytes() == before


def test_what_a_room_says_is_bounded(tmp_path):
    status = begin(tmp_path, Clock())
    for at in range(run_status.MAX_PHASES + 50):
        status.phase(f"receipt-waits:{at}", 1)
        status.note("x" * 100)
    assert len(status.notes) == run_status.MAX_NOTES
    assert len(status.document["phases"]) == run_status.MAX_PHASES
    assert len((tmp_path / run_files.STATUS).read_bytes()) < run_status.MAX_BYTES
    status.failed(None)


def test_runs_are_found_below_a_folder_and_odd_folders_passed_over(tmp_path, capsys):
    clock = Clock()
    for name in ("b", "deep/er/a"):
        clock.seconds += 1
        begin(tmp_path / name, clock).done(a_receipt(), ())
    for name, text in (
        ("junk", "junk"),
        ("list", "[]"),
        ("other", '{"format": "strongroom-node/1"}'),
        ("odd", '{"format": "strongroom-run/2", "state": "splendid"}'),
        ("wrong", '{"format": "strongroom-run/2", "state": "done", "exit_status": "x"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / run_files.STATUS).write_text(text)
    (tmp_path / "loop").symlink_to(tmp_path)
    old = tmp_path / "old"
    old.mkdir()
    (old / run_files.STATUS).write_text(
        '{"format": "strongroom-run/1", "state": "finished", "contract": "sha256:1", "outcome": "killed", "exit_status": 9}'
    )
    found = runs.find(tmp_path)
    assert [one.folder.relative_to(tmp_path).as_posix() for one in found] == ["old", "b", "deep/er/a"]
    assert (found[0].state, found[0].good) == (State.DONE, False)
    verb.runs(tmp_path)
    shown = capsys.readouterr().out
    assert "killed, status 9" in shown
    assert "3 run(s)" in shown
    verb.runs(tmp_path, as_json=True)
    assert [one["outcome"] for one in json.loads(capsys.readouterr().out)] == ["killed", "exited", "exited"]
    with pytest.raises(NotFound, match="no such folder"):
        verb.runs(tmp_path / "nowhere")
    with pytest.raises(Malformed, match="of another format"):
        runs.read(tmp_path / "other")


def agreed(folder, logs):
    one = samples.a_contract()
    one = changed(one, logs=logs)
    raw = contract_model.parse(samples.drafting.encode(one))
    (folder / run_files.AGREEMENT).write_bytes(samples.signed(raw).encode())


def test_a_failing_programs_run_says_how_to_read_its_log_and_who_can(tmp_path, capsys):
    folder = tmp_path / "a run"
    begin(folder, Clock()).done(a_receipt(exit_status=3), ())
    assert runs.reading_the_log(folder) == ()
    agreed(folder, None)
    assert "names none who may" in runs.reading_the_log(folder)[0]
    agreed(folder, room_terms.Logs(recipients=("alice", "bob"), max_bytes=1000))
    assert runs.reading_the_log(folder) == ("no log left the room",)
    (folder / run_files.LOG).write_bytes(b"sealed")
    log = f"'{folder}/log.age'"
    assert runs.reading_the_log(folder) == (
        f"alice reads the log: strongroom open {log} --identity alice.identity --out '{folder}/log'",
        f"bob reads the log: strongroom open {log} --identity bob.identity --out '{folder}/log'",
    )
    verb.runs(folder)
    assert "bob reads the log: strongroom open" in capsys.readouterr().out


def test_a_folder_of_fifos_and_links_holds_nobody_up_and_shows_no_other_file(tmp_path, capsys):
    folder = tmp_path / "hostile"
    begin(folder, Clock()).done(a_receipt(exit_status=3), ())
    os.mkfifo(folder / run_files.AGREEMENT)
    assert runs.reading_the_log(folder) == ()
    verb.runs(tmp_path)
    assert "1 run(s)" in capsys.readouterr().out
    (folder / run_files.STATUS).rename(tmp_path / "elsewhere")
    (folder / run_files.STATUS).symlink_to(tmp_path / "elsewhere")
    assert runs.find(tmp_path) == ()


def test_a_folder_that_is_not_there_has_no_runs_and_is_no_empty_list(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        with pytest.raises(NotFound, match=f"{name}: no such folder") as caught:
            runs.find(tmp_path / name)
        assert caught.value.code == "no-such-file"


def test_a_services_last_renewal_and_how_often_are_said_and_take_no_more_room(tmp_path):
    status = begin(tmp_path, Clock())
    for _ in range(700):
        status.phase("renewed:alice", 1)
    run = runs.read(tmp_path)
    assert (run.renewals, run.renewed) == (700, run.to_json()["renewed"])
    assert json.loads((tmp_path / run_files.STATUS).read_bytes())["phases"] == []
