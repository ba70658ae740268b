"""The supervisor with children that are no processes: order, policies, pauses, changes, and what `kill -9` leaves."""

from __future__ import annotations

import dataclasses
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from strongroom.errors import Conflict, Misuse, NotFound, Unavailable
from strongroom.model.contracts.room_terms import Restart
from strongroom.node import run_status
from strongroom.project import folder as folders
from strongroom.project import plan as plans
from strongroom.project import supervisor, upkeep
from strongroom.project.model import Wait
from tests.unit.project.children import World, room


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def test_rooms_begin_once_the_broker_is_ready_and_run_once_their_program_does(world):
    world.commands.ready = False
    world.begin(room("web"))
    assert (world.starts("web"), world.state("web")) == (0, "waiting")
    with world.folder.log(".broker").open("ab") as log:
        log.write(b'{"ready": true}\n')
    world.turns()
    assert (world.starts("web"), world.state("web")) == (1, "starting")
    world.commands.says("web", run_status.State.ATTESTING)
    world.turns()
    assert world.state("web") == "starting"
    world.commands.says("web", run_status.State.RUNNING)
    world.turns()
    assert world.state("web") == "running"


def test_what_a_broker_before_said_makes_the_next_one_no_readier(world):
    world.begin(room("web"))
    world.commands.ready = False
    world.commands.brokers[0].code = -9
    world.turns(4, seconds=1)
    assert len(world.commands.brokers) == 2
    assert plans.read_status(world.folder).broker.state.value == "starting"


def test_a_room_waits_for_its_peers_by_itself_and_so_boots_beside_them(world):
    """Its agent starts the program once a tunnel to each has proven it (docs/decisions/0050-tunnels.md)."""
    world.begin(
        room("web", depends_on={"app": Wait.STARTED}, peers={"app:8000": "unix:sockets/app:8000"}),
        room("app", depends_on={"load": Wait.COMPLETED}),
        room("load", is_job=True),
    )
    assert [world.starts(name) for name in ("load", "app", "web")] == [1, 0, 1]


def test_order_is_that_of_depends_on(world):
    world.begin(
        room("web", depends_on={"db": Wait.STARTED}),
        room("db", depends_on={"load": Wait.COMPLETED}),
        room("load", is_job=True),
    )
    assert [world.starts(name) for name in ("load", "db", "web")] == [1, 0, 0]
    world.commands.says("load", run_status.State.RUNNING)
    world.turns()
    assert world.starts("db") == 0
    world.commands.ends("load")
    world.turns()
    assert (world.state("load"), world.starts("db"), world.starts("web")) == ("done", 1, 0)
    world.commands.says("db", run_status.State.RUNNING)
    world.turns()
    assert world.starts("web") == 1


def test_nobody_waits_for_a_job_that_failed_by_starting_anyway(world):
    world.begin(room("web", depends_on={"load": Wait.COMPLETED}), room("load", is_job=True))
    world.commands.ends("load", code=3)
    world.turns(10, seconds=5)
    assert (world.state("load"), world.state("web"), world.starts("web")) == ("failed", "waiting", 0)
    assert plans.read_status(world.folder).room("load").error == "exited, status 3"


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [
        (Restart.NEVER, 0, False), (Restart.NEVER, 1, False), (Restart.ON_FAILURE, 0, False),
        (Restart.ON_FAILURE, 1, True), (Restart.ALWAYS, 0, True), (Restart.ALWAYS, 1, True),
    ],
)  # fmt: skip
def test_policies(world, restart, code, again):
    world.begin(room("web", restart=restart))
    world.commands.ends("web", code=code)
    world.turns(6, seconds=1)
    assert world.starts("web") == 1 + again
    assert world.state("web") == ("starting" if again else "failed" if code else "done")


def test_kill_9_of_a_room_and_of_the_broker_heals(world):
    world.begin(room("web", restart=Restart.ON_FAILURE))
    world.commands.says("web", run_status.State.RUNNING).code = -9
    world.commands.brokers[0].code = -9
    world.turns(6, seconds=1)
    assert (len(world.commands.brokers), world.starts("web")) == (2, 2)
    (_, first), (_, second) = world.commands.rooms["web"]
    assert (first.name, second.name) == ("1", "2")


def test_what_does_not_last_waits_longer_each_time_and_what_lasted_does_not(world):
    world.begin(room("web", restart=Restart.ALWAYS))
    waited = []
    for _ in range(9):
        world.commands.ends("web", code=1)
        ended, count = world.now, world.starts("web")
        while world.starts("web") == count:
            world.turns(1, seconds=0.25)
        waited.append(world.now - ended)
    assert waited == sorted(waited)
    assert waited[0] < 1.5
    assert 60 <= waited[-1] <= 61
    world.now += supervisor.LASTING
    world.commands.ends("web", code=1)
    world.turns(4, seconds=0.25)
    assert world.starts("web") == 10 + 1


def test_a_changed_room_is_started_anew_and_the_others_go_on(world):
    web, db = room("web"), room("db")
    world.begin(web, db)
    for name in ("web", "db"):
        world.commands.says(name, run_status.State.RUNNING)
    world.turns()
    world.plan(dataclasses.replace(web, room_identity="sha256:" + "cd" * 32), db)
    world.turns(4)
    assert (world.starts("web"), world.starts("db")) == (2, 1)
    assert world.commands.rooms["web"][0][0].signals == [signal.SIGTERM]
    world.plan(db)
    world.turns(4)
    assert [row.planned.name for row in upkeep.rows(world.folder)] == ["db"]
    assert world.commands.rooms["web"][1][0].signals == [signal.SIGTERM]
    assert world.commands.rooms["db"][0][0].signals == []


def test_rooms_that_change_together_start_in_order_again(world):
    db, web = room("db"), room("web", depends_on={"db": Wait.STARTED})
    world.begin(db, web)
    world.commands.says("db", run_status.State.RUNNING)
    world.turns()
    world.commands.says("web", run_status.State.RUNNING)
    other = "sha256:" + "cd" * 32
    # The file's order is the plan's; whoever waits is listed first here, to see that it waits all the same.
    world.plan(dataclasses.replace(web, room_identity=other), dataclasses.replace(db, room_identity=other))
    world.turns(4)
    assert (world.starts("db"), world.starts("web")) == (2, 1)
    world.commands.says("db", run_status.State.RUNNING)
    world.turns()
    assert world.starts("web") == 2


def test_a_new_version_of_the_contract_alone_starts_nothing_anew_and_counts_at_the_next_start(world):
    web = room("web", restart=Restart.ALWAYS)
    world.begin(web)
    started = []
    world.commands.room, plain = (
        (lambda planned, **more: (started.append(planned.contract), plain(planned, **more))[1]),
        world.commands.room,
    )
    world.plan(dataclasses.replace(web, contract=Path("contracts/2.json")))
    world.turns(4)
    assert started == []
    world.commands.ends("web")
    world.turns(4, seconds=1)
    assert started == [Path("contracts/2.json")]


@pytest.mark.parametrize(("is_job", "again"), [(False, True), (True, False)])
def test_a_service_that_ends_under_a_replaced_version_begins_under_the_next_whatever_its_policy(
    world, is_job, again
):
    web = room("web", is_job=is_job)
    world.begin(web)
    world.plan(
        dataclasses.replace(web, contract=Path("contracts/2.json"), contract_digest="sha256:" + "cd" * 32)
    )
    world.turns()
    world.commands.ends("web", code=1, outcome="paused")
    world.turns(4, seconds=1)
    assert world.starts("web") == 1 + again


def test_down_ends_rooms_before_the_broker_and_kills_what_does_not_end(world):
    world.commands.stubborn = True
    world.begin(room("web"))
    world.commands.says("web", run_status.State.RUNNING)
    world.turns()
    world.plan(room("web"), down=True)
    world.turns(3)
    assert world.going
    assert world.commands.brokers[0].signals == []
    world.turns(round(supervisor.GRACE) + 10, seconds=1)
    assert not world.going
    assert world.commands.rooms["web"][0][0].signals[:2] == [signal.SIGTERM, signal.SIGKILL]
    assert world.commands.brokers[0].signals == [signal.SIGTERM]
    assert world.state("web") == "stopped"


def test_a_stop_is_no_failure_that_a_policy_would_mend(world):
    world.begin(room("web", restart=Restart.ALWAYS))
    world.keeper.stop()
    world.turns(20, seconds=1)
    assert (world.starts("web"), world.state("web"), world.going) == (1, "stopped", False)


def test_a_damaged_plan_changes_nothing(world):
    world.begin(room("web"))
    world.folder.plan.write_text("{")
    world.turns(4)
    assert world.commands.rooms["web"][0][0].signals == []


def test_of_earlier_runs_the_last_stay(world):
    world.begin(room("web", restart=Restart.ALWAYS))
    for _ in range(14):
        world.commands.ends("web")
        world.turns(3, seconds=70)
    kept = sorted(int(path.name) for path in world.folder.runs("web").iterdir())
    assert kept == list(range(15 - supervisor.KEPT_RUNS + 1, 15))


def test_documents_are_read_back_as_they_were_written(world):
    planned = room(
        "web", depends_on={"db": Wait.HEALTHY}, published={"443": "[::1]:8443"}, tunnels={"443": "unix:sockets/web:443"}, peers={"db:5432": "unix:sockets/db:5432"}
    )  # fmt: skip
    world.begin(planned, room("db"))
    assert plans.read_plan(world.folder).room("web") == planned
    assert plans.read_plan(world.folder).room("nobody") is None
    assert [one.name for one in plans.read_status(world.folder).rooms] == ["web", "db"]


def test_there_is_one_supervisor(world):
    with world.folder.supervised():
        assert world.folder.is_supervised()
        with pytest.raises(Conflict, match="kept up by another"), world.folder.supervised():
            pass
    assert not world.folder.is_supervised()


def test_the_folder_is_its_owners_alone(world):
    assert world.folder.path.stat().st_mode & 0o777 == 0o700
    assert world.folder.passphrase_file.stat().st_mode & 0o777 == 0o600
    first = world.folder.passphrase()
    world.folder.make()
    assert (world.folder.passphrase(), len(first)) == (first, 64)


def test_where_ports_and_peers_are_is_said_when_a_room_is_started(world):
    planned = room(
        "web",
        published={"443": "127.0.0.1:8443"},
        tunnels={"443": "unix:sockets/web:443"},
        peers={"db:1": "unix:sockets/db:1"},
    )
    words = supervisor.run_words(world.folder, planned, out=Path("/r/1"))
    assert words[words.index("--publish") :] == [
        "--publish", "443=127.0.0.1:8443", "--tunnel", "443=unix:sockets/web:443", "--peer", "db:1=unix:sockets/db:1",
    ]  # fmt: skip


def test_children_are_real_processes_and_a_socket_that_was_left_is_removed(world):
    program = world.folder.path / "program"
    program.write_text('#!/bin/sh\necho "$@"; pwd; ls sockets; exec sleep 60\n')
    program.chmod(0o700)
    left = world.folder.path / "sockets/web:443"
    left.touch()
    commands = supervisor.ProcessCommands(folder=world.folder, program=[str(program)])
    log = world.folder.log("web")
    process = commands.room(room("web", tunnels={"443": "unix:sockets/web:443"}), out=Path("/r/1"), log=log)
    try:
        until = time.monotonic() + 30
        while len(log.read_text().splitlines()) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert process.poll() is None
        said, place, *sockets = log.read_text().splitlines()
        assert said.startswith("run ")
        assert (place, sockets) == (str(world.folder.path.resolve()), [])
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL


def test_the_brokers_passphrase_is_in_no_command_line(world):
    program = world.folder.path / "program"
    program.write_text(
        '#!/bin/sh\necho "$@" >"$0.words"; for last; do :; done; cat /proc/$$/fd/$last >"$0.secret"\n'
    )
    program.chmod(0o700)
    process = supervisor.ProcessCommands(folder=world.folder, program=[str(program)]).broker(
        world.folder.log(".broker")
    )
    assert process.wait(30) == 0
    assert world.folder.passphrase().decode() not in Path(f"{program}.words").read_text()
    assert Path(f"{program}.secret").read_bytes().strip() == world.folder.passphrase()


def test_what_a_room_is_started_with(world):
    words = supervisor.run_words(world.folder, room("web", memory_guard=False), out=Path("/r/1"))
    assert words[:4] == ["run", str(world.folder.path / "contracts/1.json"), "--room", "web"]
    assert words[-3:] == ["--out", "/r/1", "--no-memory-guard"]
    assert "--no-memory-guard" not in supervisor.run_words(world.folder, room("web"), out=Path("/r/1"))


def test_restart_and_rows_and_names_that_are_none(world):
    world.begin(room("web"), room("db"))
    with pytest.raises(Unavailable, match="nothing is up"):
        upkeep.restart(world.folder, ())
    with world.folder.supervised():
        assert upkeep.restart(world.folder, ("web",)) == ("web",)
        with pytest.raises(Misuse, match="no service 'nobody'"):
            upkeep.restart(world.folder, ("nobody",))
        world.turns(4)
        states = [row.state for row in upkeep.rows(world.folder)]
    assert (world.starts("web"), world.starts("db")) == (2, 1)
    assert states == ["starting", "starting"]
    # Without a supervisor nothing runs, whatever was said last.
    assert [row.state for row in upkeep.rows(world.folder)] == ["stopped", "stopped"]
    assert [line.text for line in upkeep.log_lines(world.folder, ("db",), follow=False)] == ["0.1 s  booting"]


def test_a_port_is_open_once_a_connection_stays(world, monkeypatch):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    greeting, shut, silent = (f"127.0.0.1:{server.getsockname()[1]}" for server in servers)

    def serve(server, said):
        while True:
            try:
                with server.accept()[0] as connection:
                    connection.sendall(said)
            except OSError:
                return

    for server, said in zip(servers, (b"hello", b""), strict=False):
        threading.Thread(target=serve, args=(server, said), daemon=True).start()
    world.begin(room("web", published={"443": greeting}), room("db", published={"1": shut}))
    for name in ("web", "db"):
        world.commands.says(name, run_status.State.RUNNING)
    world.turns()
    with world.folder.supervised():
        rows = upkeep.rows(world.folder)
    monkeypatch.setattr(upkeep, "_PROBE_SECONDS", 60.0)  # it is the answer that counts, however long it takes
    opened = []
    left = upkeep.await_ports(rows, seconds=0, on_open=lambda *place: opened.append(place))
    assert (opened, left) == ([("web", greeting)], (("db", shut),))
    # Most programs wait for their client to speak first.
    monkeypatch.setattr(upkeep, "_PROBE_SECONDS", 0.05)
    assert upkeep._takes_connections(silent)
    for server in servers:
        server.close()
    assert not upkeep._takes_connections(silent)


def test_logs_are_followed_until_everything_has_ended(world):
    world.begin(room("sum", is_job=True))
    world.commands.says("sum", run_status.State.RUNNING)
    world.turns()
    asked = []

    def ended():
        asked.append(upkeep.all_ended(world.folder))
        if len(asked) == 2:
            world.commands.ends("sum")
            world.turns()
        return asked[-1]

    with world.folder.supervised():
        lines = [line.text for line in upkeep.log_lines(world.folder, (), follow=True, until=ended)]
    assert (lines, asked) == (["0.1 s  booting"], [False, False, True])


def test_what_was_never_up(tmp_path):
    with pytest.raises(NotFound, match="ever brought up"):
        folders.existing(tmp_path / "compose.yaml")
