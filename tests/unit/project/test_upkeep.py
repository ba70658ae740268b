"""What is done to what is up, where something is missing: the folder, the supervisor, lines of logs."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys

import pytest

from strongroom.node import run_status
from strongroom.project import plan as plans
from strongroom.project import supervisor, upkeep
from tests.unit.project.children import World, room

HOLDER = """
import signal, sys, time
from pathlib import Path
from strongroom.node import run_status
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with run_status.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def test_where_the_folder_is_gone_everything_ends(world):
    world.commands.stubborn = True
    world.begin(room("web"))
    world.commands.says("web", run_status.State.RUNNING)
    world.turns()
    shutil.rmtree(world.folder.path)
    world.turns(3)
    assert world.going
    assert world.commands.rooms["web"][0][0].signals == [signal.SIGTERM]
    world.turns(round(supervisor.GRACE) + 10, seconds=1)
    assert not world.going
    assert world.commands.brokers[0].signals == [signal.SIGTERM]
    assert not world.folder.path.exists()


def test_down_ends_a_run_that_outlived_its_supervisor(world):
    world.begin(room("web"))
    run = world.folder.path / "runs/web/1"
    run.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", HOLDER, run], stdout=subprocess.PIPE, text=True) as left:
        assert left.stdout.readline() == "held\n"
        status = plans.read_status(world.folder)
        (child,) = status.rooms
        assert child.run is not None
        plans.write_status(
            world.folder, dataclasses.replace(status, rooms=(dataclasses.replace(child, pid=left.pid),))
        )
        assert upkeep.down(world.folder)
        assert left.wait(60) == 0
    assert not upkeep.down(world.folder)


def test_down_signals_no_process_that_is_another_by_now(world):
    world.begin(room("web"))
    run = world.folder.path / "runs/web/1"
    run.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        status = plans.read_status(world.folder)
        rooms = tuple(dataclasses.replace(child, pid=other.pid) for child in status.rooms)
        plans.write_status(world.folder, dataclasses.replace(status, rooms=rooms))
        with run_status.held(run):
            assert upkeep._end_left(world.folder) == (run,)
        assert other.poll() is None
        other.communicate(b"\n")
        assert other.returncode == 0


@pytest.mark.parametrize(("tail", "shown"), [(0, []), (1, ["b"]), (5, ["a", "b"]), (None, ["a", "b"])])
def test_tail(world, tail, shown):
    world.plan(room("web"))
    world.folder.log("web").write_text("a\nb\n")
    lines = upkeep.log_lines(world.folder, (), follow=False, tail=tail)
    assert [line.text for line in lines] == shown


def test_nobody_waits_for_the_port_of_a_program_that_ended(world):
    world.begin(room("web", published={"80": "127.0.0.1:1"}))
    world.commands.says("web", run_status.State.RECORDING)
    world.turns()
    with world.folder.supervised():
        rows = upkeep.rows(world.folder)
        assert upkeep.is_running(world.folder, "web")
        world.commands.ends("web", code=1, outcome="not-started")
        world.turns()
        assert not upkeep.is_running(world.folder, "web")
        left = upkeep.await_ports(
            rows,
            seconds=float("inf"),
            on_open=lambda *_: None,
            is_running=lambda name: upkeep.is_running(world.folder, name),
        )
        assert left == ()
        assert [row.state for row in upkeep.rows(world.folder)] == ["failed"]


def test_after_a_mark_there_is_what_came_since(world):
    assert upkeep.mark_logs(world.folder) == upkeep.LogMark(places={}, opened=frozenset())
    world.plan(room("web"), room("db"))
    world.folder.log("web").write_text("a\n")
    mark = upkeep.mark_logs(world.folder)
    for name in ("web", "db"):
        with world.folder.log(name).open("a") as log:
            log.write("b\n")
    lines = [(line.name, line.text) for line in upkeep.log_lines(world.folder, (), follow=False, after=mark)]
    assert lines == [("web", "b"), ("db", "b")]
