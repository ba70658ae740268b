"""What is done to a project that is up: kept up by a supervisor, watched, listed, started anew, brought down."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Misuse, Unavailable
from strongroom.model.room import run_files
from strongroom.node import runs
from strongroom.parties import papers
from strongroom.project import plan as plans
from strongroom.project import refusals
from strongroom.project.plan import ENDED, ChildState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from strongroom.node.runs import NodeRun
    from strongroom.project.folder import StateFolder
    from strongroom.project.plan import ChildStatus, PlannedRoom, SupervisorStatus

TURN = 0.1
BEGIN_SECONDS = 30.0  # within which a supervisor says that it is there
PORT_SECONDS = 20.0  # in which a program that runs begins to listen
_PROBE_SECONDS = 0.5
DOWN_SECONDS = 180.0  # within which everything has ended
_SUPERVISOR = ".supervisor"
_TAIL = 1 << 20  # bytes of a log that are looked at


@dataclass(frozen=True, kw_only=True)
class RoomRow:
    """One room, as `ps` shows it. run: what its last run says of itself. version: of the contract that it is started under now."""

    planned: PlannedRoom
    child: ChildStatus | None
    run: NodeRun | None
    kept_up: bool

    @property
    def state(self) -> str:
        """In one word."""
        if self.child is None:
            return ChildState.WAITING.value if self.kept_up else ChildState.STOPPED.value
        if not self.kept_up and self.child.state not in ENDED:
            return ChildState.STOPPED.value
        return self.child.state.value

    def addresses(self) -> tuple[str, ...]:
        """Where its ports are reached on this machine, from outside of rooms."""
        plain = tuple(f"{address} → {name}" for name, address in sorted(self.planned.published.items()))
        tunnels = tuple(
            f"{address} → {name} (tunnels)"
            for name, address in sorted(self.planned.tunnels.items())
            if not address.startswith(plans.UNIX)
        )
        return (*plain, *tunnels)

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "name": self.planned.name,
            "kind": "job" if self.planned.is_job else "service",
            "state": self.state,
            "phase": "" if self.run is None else self.run.phase,
            "starts": 0 if self.child is None else self.child.starts,
            "contract": self.planned.contract_digest,
            "run": "" if self.run is None else self.run.run_id,
            "folder": "" if self.run is None else str(self.run.folder),
            "times": {} if self.run is None else self.run.times,
            "error": "" if self.child is None else self.child.error,
            "published": self.planned.published,
            "tunnels": self.planned.tunnels,
        }


def keep_up(folder: StateFolder, *, with_parent: bool) -> None:
    """See that a supervisor runs, which takes up the plan. with_parent: it ends when this process does.

    Raises `Unavailable` where none could be started.
    """
    if folder.is_supervised():
        return
    folder.status.unlink(missing_ok=True)
    line = [sys.executable, "-m", "strongroom.project", str(folder.path)]
    if with_parent:
        line = ["setpriv", "--pdeathsig", "TERM", "--", *line]
    with folder.log(_SUPERVISOR).open("ab") as log:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
    until = time.monotonic() + BEGIN_SECONDS
    while plans.read_status(folder) is None:
        if process.poll() is not None or time.monotonic() > until:
            raise Unavailable(
                f"the supervisor of {folder.path} did not start",
                code="no-supervisor",
                hint=f"{folder.log(_SUPERVISOR)} says why",
            )
        time.sleep(TURN)


def watch(
    folder: StateFolder, *, on_change: Callable[[RoomRow], None], forever: bool = False
) -> tuple[RoomRow, ...]:
    """Call `on_change` with each room whenever its state or phase is another, until every room runs or has ended.

    forever: go on until all have ended. Raises `Unavailable` where the supervisor is gone.
    """
    seen: dict[str, tuple[str, str, int]] = {}
    while True:
        supervised = folder.is_supervised()
        listed = rows(folder)
        for row in listed:
            now = (row.state, "" if row.run is None else row.run.phase, row.child.starts if row.child else 0)
            if seen.get(row.planned.name) != now:
                seen[row.planned.name] = now
                on_change(row)
        settled = {ChildState.RUNNING.value, *(state.value for state in ENDED)}
        if forever:
            settled -= {ChildState.RUNNING.value}
        if all(row.state in settled and _is_current(row) for row in listed):
            return listed
        if not supervised:
            raise Unavailable(
                f"the supervisor of {folder.path} ended",
                code="no-supervisor",
                hint=f"{folder.log(_SUPERVISOR)} says why; `strongroom up` starts another",
            )
        time.sleep(TURN)


def await_ports(
    rows: Sequence[RoomRow],
    *,
    seconds: float = PORT_SECONDS,
    on_open: Callable[[str, str], None],
    is_running: Callable[[str], bool] = lambda _name: True,
) -> tuple[tuple[str, str], ...]:
    """Wait until programs take plain connections at the ports that are published; returns those (service, address) that do not.

    on_open: called with each (service, address) that does. is_running: whether a service still runs; no other is waited for. A program that runs may not listen yet; a connection is opened and closed to see it.
    """
    waiting = [
        (row.planned.name, address)
        for row in rows
        if row.state == ChildState.RUNNING.value
        for address in row.planned.published.values()
    ]
    until = time.monotonic() + seconds
    while True:
        for name, address in [*waiting]:
            if not is_running(name):
                waiting.remove((name, address))
            elif _takes_connections(address):
                waiting.remove((name, address))
                on_open(name, address)
        if not waiting or time.monotonic() > until:
            return tuple(waiting)
        time.sleep(TURN)


def _takes_connections(address: str) -> bool:
    """Whether a connection stays open: a room's node takes each, and ends it where the program does not."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS) as probe:
            return probe.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def _is_current(row: RoomRow) -> bool:
    """Whether the supervisor has taken up what is planned for the room now."""
    return row.child is not None and row.child.generation == row.planned.generation


def rows(folder: StateFolder) -> tuple[RoomRow, ...]:
    """Every planned room with how it is. Raises `Malformed`, `OSError` where nothing is planned."""
    plan = plans.read_plan(folder)
    kept_up = folder.is_supervised()
    status: SupervisorStatus | None = None
    with contextlib.suppress(Malformed):
        status = plans.read_status(folder)
    out = []
    for planned in plan.rooms:
        child = None if status is None else status.room(planned.name)
        run = None
        if child is not None and child.run is not None:
            with contextlib.suppress(OSError, Malformed):
                run = runs.read(folder.path / child.run)
        out.append(RoomRow(planned=planned, child=child, run=run, kept_up=kept_up and not plan.down))
    return tuple(out)


def all_ended(folder: StateFolder) -> bool:
    """Whether no room runs any more, nor will by itself."""
    return all(row.state in {state.value for state in ENDED} and _is_current(row) for row in rows(folder))


def is_running(folder: StateFolder, name: str) -> bool:
    """Whether the room of that name runs."""
    return any(row.planned.name == name and row.state == ChildState.RUNNING.value for row in rows(folder))


def restart(folder: StateFolder, names: Sequence[str]) -> tuple[str, ...]:
    """Have rooms started anew, all where none is named; returns which. Raises `Misuse` for a name that is none, `Unavailable` where nothing is up."""
    with folder.changed():
        plan = plans.read_plan(folder)
        if plan.down or not folder.is_supervised():
            raise Unavailable(
                "nothing is up", code="not-up", hint="`strongroom up` brings it up: it starts what is planned"
            )
        chosen = _chosen(plan.rooms, names)
        latest = max((room.generation for room in plan.rooms), default=0)
        plans.write_plan(
            folder,
            replace(
                plan,
                rooms=tuple(
                    replace(room, generation=latest + 1) if room.name in chosen else room
                    for room in plan.rooms
                ),
            ),
        )
        return chosen


def down(folder: StateFolder) -> bool:
    """End every room and the broker, and wait for it; whether anything ran. Raises `Unavailable` where it does not end."""
    with folder.changed():
        plan = plans.read_plan(folder)
        plans.write_plan(folder, replace(plan, down=True))
    until = time.monotonic() + DOWN_SECONDS
    ran = folder.is_supervised()
    left = () if ran else _end_left(folder)
    while folder.is_supervised() or any(refusals.goes_on(run) for run in left):
        if time.monotonic() > until:
            raise Unavailable(
                f"{folder.path}: not everything has ended after {DOWN_SECONDS:g} seconds",
                code="still-up",
                hint="`strongroom ps` shows what goes on; try again",
            )
        time.sleep(TURN)
    return ran or bool(left)


def _end_left(folder: StateFolder) -> tuple[Path, ...]:
    """The runs that outlived a supervisor that was killed, each interrupted: such a run waits for a broker that ended with the supervisor."""
    left = []
    with contextlib.suppress(Malformed):
        status = plans.read_status(folder)
        for child in () if status is None else status.rooms:
            run = None if child.run is None else folder.path / child.run
            if run is None or not refusals.goes_on(run):
                continue
            left.append(run)
            with contextlib.suppress(OSError):
                # Its number may be another process's by now.
                if os.fsencode(run) in Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0"):
                    os.kill(child.pid, signal.SIGTERM)
    return tuple(left)


@dataclass(frozen=True, kw_only=True)
class LogMark:
    """How far logs went at some moment. places: of each room's node, in bytes. opened: the programs' sealed logs that were there."""

    places: dict[str, int]
    opened: frozenset[Path]


def mark_logs(folder: StateFolder) -> LogMark:
    """How far the logs go now; nothing need be there."""
    logs = [path for path in folder.log("*").parent.glob("*.log") if not path.name.startswith(".")]
    return LogMark(
        places={path.stem: path.stat().st_size for path in logs},
        opened=frozenset(folder.runs("*").parent.glob(f"*/*/{run_files.LOG}")),
    )


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line and whose it is: a room's node, or its program where `of_program`."""

    name: str
    text: str
    of_program: bool = False


def log_lines(
    folder: StateFolder,
    names: Sequence[str],
    *,
    follow: bool,
    tail: int | None = None,
    after: LogMark | None = None,
    until: Callable[[], bool] = lambda: False,
) -> Iterator[LogLine]:
    """What rooms' nodes said, and what their programs printed in runs that have ended, which the owner may read.

    tail: the last so many lines of each alone. after: nothing of before it. follow: go on until the supervisor is gone, or `until` says so. Raises `Misuse` for a name that is none.
    """
    plan = plans.read_plan(folder)
    chosen = _chosen(plan.rooms, names)
    opened: set[Path] = set() if after is None else set(after.opened)
    places: dict[str, int] = {} if after is None else dict(after.places)
    first = True
    while True:
        more = follow and folder.is_supervised() and not until()
        for name in chosen:
            lines = [LogLine(name=name, text=text) for text in _new_lines(folder.log(name), name, places)]
            lines += _printed(folder, name, opened)
            yield from lines[max(0, len(lines) - tail) :] if first and tail is not None else lines
        first = False
        if not more:
            return
        time.sleep(TURN * 3)


def _new_lines(path: Path, name: str, places: dict[str, int]) -> list[str]:
    """Whole lines since the last time."""
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            place = places.get(name, max(0, size - _TAIL))
            source.seek(place)
            data = source.read(_TAIL)
    except OSError:
        return []
    whole = data[: data.rfind(b"\n") + 1]
    places[name] = place + len(whole)
    return whole.decode(errors="replace").splitlines()


def _printed(folder: StateFolder, name: str, opened: set[Path]) -> list[LogLine]:
    """What programs printed in runs that ended since the last time."""
    lines = []
    sealed = (
        [path / run_files.LOG for path in folder.runs(name).glob("*")] if folder.runs(name).is_dir() else []
    )
    for path in sorted(
        set(sealed) - opened, key=lambda path: int(path.parent.name) if path.parent.name.isdecimal() else 0
    ):
        if not path.is_file():
            continue
        opened.add(path)
        identity = papers.open_identity(folder.identity, passphrase=folder.passphrase)
        # Logs are padded by empty lines, so that their sizes say little.
        text = identity.age.open(path.read_bytes()).decode(errors="replace").rstrip("\n")
        lines += [LogLine(name=name, text=line, of_program=True) for line in text.splitlines()]
    return lines


def _chosen(rooms: Sequence[PlannedRoom], names: Sequence[str]) -> tuple[str, ...]:
    known = [room.name for room in rooms]
    for name in names:
        if name not in known:
            raise Misuse(
                f"no service {name[:60]!r}",
                code="unknown-room",
                hint=f"there are: {', '.join(known) or 'none'}",
            )
    return tuple(names) or tuple(known)
