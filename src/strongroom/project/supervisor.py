"""Keeps a broker and rooms up, as the plan says: starts them in order, starts them again by their policy, stops them.

One process, one loop, five times a second: what ended is noticed, the plan is read where it changed, and each child gets the one
step that is due. Children are commands of the operator's own (`broker serve`, `run`), each in a session of its own, with
a parent-death signal: where the supervisor is killed they end, and the next one starts anew from the plan.

A child that did not last `LASTING` seconds is started again after a pause, twice as long each time. How a room ended is read from
its run's folder, never from what it printed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Malformed
from strongroom.model.contracts.room_terms import Restart
from strongroom.node import run_status, runs
from strongroom.node.run_status import State
from strongroom.project import plan as plans
from strongroom.project.model import Wait
from strongroom.project.plan import ENDED, ChildState, ChildStatus, SupervisorStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from strongroom.node.runs import NodeRun
    from strongroom.project.folder import StateFolder
    from strongroom.project.plan import Plan, PlannedRoom

TURN = 0.2  # seconds
LASTING = 30.0
PAUSE, LONGEST_PAUSE = 0.5, 60.0
GRACE = 60.0  # that a child has to end by itself
KEPT_RUNS = 10  # folders of earlier runs of a room
_READY = b'"ready"'
_BROKER = ".broker"
# Of a run whose program has begun.
_BEGUN = frozenset((State.RUNNING, State.SEALING, State.RECORDING, State.DONE))


class Process(Protocol):
    """A started command."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Its exit code, negative of a signal; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal to the process."""


class Commands(Protocol):
    """What is started, and how."""

    def broker(self, log: Path) -> Process:
        """Start the broker; what it prints goes to `log`."""

    def room(self, room: PlannedRoom, *, out: Path, log: Path) -> Process:
        """Start a room, whose run goes into the folder `out`."""


@dataclass
class _Child:
    """A child, and how often it was started. next: when it may be started again, by the supervisor's clock."""

    name: str
    state: ChildState = ChildState.WAITING
    process: Process | None = None
    starts: int = 0
    begun: float = 0.0
    next: float = 0.0
    short: int = 0
    killed_at: float = 0.0
    stopping: bool = False
    error: str = ""
    log_offset: int = 0

    def status(self) -> ChildStatus:
        return ChildStatus(
            name=self.name.lstrip("."),
            state=self.state,
            pid=0 if self.process is None else self.process.pid,
            starts=self.starts,
            error=self.error,
        )


@dataclass
class _RoomChild(_Child):
    planned: PlannedRoom | None = None
    run: Path | None = None
    last: NodeRun | None = field(default=None, repr=False)


class ProjectSupervisor:
    """Keeps up what a folder's plan says, until that says `down` or `stop` is called. clock: seconds that only grow."""

    def __init__(
        self,
        folder: StateFolder,
        commands: Commands,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder, self._commands = folder, commands
        self._clock, self._sleep = clock, sleep
        self._broker = _Child(name=_BROKER)
        self._rooms: dict[str, _RoomChild] = {}
        self._plan: Plan = plans.read_plan(folder)
        self._seen: tuple[int, int] = (0, 0)
        self._stopping = False
        self._said: SupervisorStatus | None = None

    def stop(self, *_: object) -> None:
        """End all children, then `run`."""
        self._stopping = True

    def run(self) -> None:
        """Keep everything up. Returns once all is stopped."""
        while self.turn():
            self._sleep(TURN)

    def turn(self) -> bool:
        """One round; False when nothing is left to do."""
        self._read()
        going = not (self._stopping or self._plan.down)
        self._notice_broker()
        for child in self._rooms.values():
            self._notice_room(child)
        if going:
            self._keep_broker()
            for name in [*self._rooms]:
                if self._plan.room(name) is None and self._end(self._rooms[name]):
                    del self._rooms[name]
            for planned in self._plan.rooms:
                self._keep_room(planned)
        else:
            # Rooms first: their receipts need a broker.
            ended = [self._end(child) for child in self._rooms.values()]
            going = not (all(ended) and self._end(self._broker))
        self._say()
        return going

    def _read(self) -> None:
        """The plan, where it was replaced. Where it is gone, nobody could ask for an end any more: then all ends."""
        try:
            written = self._folder.plan.stat()
            if (written.st_ino, written.st_mtime_ns) != self._seen:
                self._plan = plans.read_plan(self._folder)
                self._seen = (written.st_ino, written.st_mtime_ns)
        except FileNotFoundError:
            self._stopping = True
        except (OSError, Malformed):
            pass

    def _keep_broker(self) -> None:
        child = self._broker
        if child.process is None and self._clock() >= child.next:
            log = self._folder.log(_BROKER)
            child.log_offset = log.stat().st_size if log.exists() else 0
            self._begin(child, self._commands.broker(log))
        elif child.state is ChildState.STARTING and self._says_ready():
            child.state = ChildState.RUNNING

    def _says_ready(self) -> bool:
        with self._folder.log(_BROKER).open("rb") as log:
            log.seek(self._broker.log_offset)
            return _READY in log.read(1 << 16)

    def _notice_broker(self) -> None:
        child = self._broker
        if self._over(child) and not child.stopping:
            self._pause(child)

    def _keep_room(self, planned: PlannedRoom) -> None:
        child = self._rooms.setdefault(planned.name, _RoomChild(name=planned.name))
        known = child.planned
        if known is not None and not _same(known, planned):
            if not self._end(child):
                return
            self._rooms[planned.name] = child = _RoomChild(
                name=planned.name, planned=planned, starts=child.starts
            )
        child.planned = planned
        if child.process is not None or child.state in ENDED or self._clock() < child.next:
            return
        if self._broker.state is not ChildState.RUNNING or not self._may_begin(planned):
            if child.state is not ChildState.PAUSING:
                child.state = ChildState.WAITING
            return
        child.run = self._next_run(planned.name)
        self._begin(child, self._commands.room(planned, out=child.run, log=self._folder.log(planned.name)))

    def _may_begin(self, planned: PlannedRoom) -> bool:
        """Whether all are there that it waits for. For its peers the room waits by itself, by tunnels that prove them: both boot at once."""
        peers = {place.partition(":")[0] for place in planned.peers}
        for name, wait in planned.depends_on.items():
            if wait is Wait.STARTED and name in peers:
                continue
            other, wanted_room = self._rooms.get(name), self._plan.room(name)
            if other is None or wanted_room is None or not _same(other.planned, wanted_room):
                return False  # it is started anew itself
            wanted = (ChildState.DONE,) if wait is Wait.COMPLETED else (ChildState.RUNNING, ChildState.DONE)
            if other.state not in wanted:
                return False
        return True

    def _next_run(self, name: str) -> Path:
        """A folder for one more run; of earlier ones the last stay."""
        folder = self._folder.runs(name)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        for number in numbers[: -KEPT_RUNS + 1]:
            _remove(folder / str(number))
        return folder / str((numbers or [0])[-1] + 1)

    def _notice_room(self, child: _RoomChild) -> None:
        """What a room's run says of itself, and whether the room has ended."""
        if child.process is None or child.run is None or child.planned is None:
            return
        over = self._over(child)
        with contextlib.suppress(OSError, Malformed):
            child.last = runs.read(child.run)
        last = child.last if child.last is not None and child.last.folder == child.run else None
        if not over:
            if child.state is ChildState.STARTING and last is not None and last.state in _BEGUN:
                child.state = ChildState.RUNNING
            return
        if child.stopping:
            return
        good = last is not None and last.good
        child.error = "" if good else _why(last)
        restart = child.planned.restart
        # Brokers renew no run of a version that was replaced: a service that went on under it ends then, and begins under the next.
        replaced = last is not None and last.contract_digest not in ("", child.planned.contract_digest)
        outdated = replaced and not child.planned.is_job
        if outdated or restart is Restart.ALWAYS or (restart is Restart.ON_FAILURE and not good):
            self._pause(child)
        else:
            child.state = ChildState.DONE if good else ChildState.FAILED

    def _begin(self, child: _Child, process: Process) -> None:
        child.process, child.state, child.error = process, ChildState.STARTING, ""
        child.begun, child.starts = self._clock(), child.starts + 1
        child.stopping, child.killed_at = False, 0.0

    def _over(self, child: _Child) -> bool:
        """Whether a child that was started has ended now."""
        if child.process is None or child.process.poll() is None:
            return False
        child.process = None
        if child.stopping:
            child.state = ChildState.STOPPED
        return True

    def _pause(self, child: _Child) -> None:
        now = self._clock()
        child.short = 0 if now - child.begun >= LASTING else child.short + 1
        child.next = now + min(LONGEST_PAUSE, PAUSE * 2 ** max(0, child.short - 1))
        child.state = ChildState.PAUSING

    def _end(self, child: _Child) -> bool:
        """Ask a child to end, and kill it where it does not. True once it is gone."""
        if child.process is not None and self._over(child):
            child.state = ChildState.STOPPED
        if child.process is None:
            if child.state not in ENDED:
                child.state = ChildState.STOPPED
            return True
        now = self._clock()
        if not child.stopping:
            child.stopping, child.killed_at = True, now + GRACE
            _signal(child.process, signal.SIGTERM)
        elif now >= child.killed_at:
            _signal(child.process, signal.SIGKILL)
        return False

    def _say(self) -> None:
        rooms = []
        for planned in self._plan.rooms:
            child = self._rooms.get(planned.name)
            if child is None:
                rooms.append(ChildStatus(name=planned.name, state=ChildState.WAITING))
                continue
            plain = child.status()
            rooms.append(
                ChildStatus(
                    name=plain.name,
                    state=plain.state,
                    pid=plain.pid,
                    starts=plain.starts,
                    generation=0 if child.planned is None else child.planned.generation,
                    run=None if child.run is None else child.run.relative_to(self._folder.path),
                    error=plain.error,
                )
            )
        status = SupervisorStatus(pid=os.getpid(), broker=self._broker.status(), rooms=tuple(rooms))
        if status != self._said:
            with contextlib.suppress(OSError):  # a full disk ends no room
                plans.write_status(self._folder, status)
                self._said = status


def _same(known: PlannedRoom | None, planned: PlannedRoom) -> bool:
    """Whether a room that was started is the one that is planned."""
    return known is not None and (known.room_identity, known.generation) == (
        planned.room_identity,
        planned.generation,
    )


def _why(last: NodeRun | None) -> str:
    """Why a run did no good, for people."""
    if last is None:
        return "ended before its run began; its log says why"
    if last.error:
        return last.error
    if last.outcome:
        return f"{last.outcome}, status {last.exit_status}"
    return last.state.value


def _signal(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _remove(folder: Path) -> None:
    """An earlier run's folder, unless a run goes on in it."""
    import shutil  # noqa: PLC0415 - once in a while

    with contextlib.suppress(BlockingIOError, OSError), run_status.held(folder):
        shutil.rmtree(folder)


@dataclass(frozen=True, kw_only=True)
class ProcessCommands:
    """The commands of the command line, as processes. program: the words before a verb."""

    folder: StateFolder
    program: Sequence[str]

    def broker(self, log: Path) -> Process:
        """As of `Commands`."""
        with self.folder.passphrase_file.open("rb") as secret:
            words = ["broker", "serve", str(self.folder.broker), "--json"]
            fd = secret.fileno()
            return self._start([*words, "--passphrase-fd", str(fd)], log, descriptors=(fd,))

    def room(self, room: PlannedRoom, *, out: Path, log: Path) -> Process:
        """As of `Commands`."""
        for address in room.tunnels.values():
            if address.startswith(plans.UNIX):
                # A node that was killed leaves its socket behind, and nobody listens there.
                (self.folder.path / address.removeprefix(plans.UNIX)).unlink(missing_ok=True)
        return self._start(run_words(self.folder, room, out=out), log)

    def _start(self, words: Sequence[str], log: Path, *, descriptors: Sequence[int] = ()) -> Process:
        with log.open("ab") as target:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *self.program, *words],
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=target,
                pass_fds=descriptors,
                cwd=self.folder.path,  # sockets' paths begin there: whole ones may be too long
                start_new_session=True,  # a Ctrl-C at the terminal is for whoever asks the supervisor to end
            )


def run_words(folder: StateFolder, room: PlannedRoom, *, out: Path) -> list[str]:
    """The words of `strongroom run` for a room."""

    def words() -> Iterator[str]:
        yield from ("run", str(folder.path / room.contract), "--room", room.name)
        yield from ("--base", str(folder.path / room.base), "--node", str(folder.node))
        for disk in room.disks:
            yield from ("--disk", str(folder.path / disk))
        yield from ("--out", str(out))
        for option, places in (
            ("--publish", room.published),
            ("--tunnel", room.tunnels),
            ("--peer", room.peers),
        ):
            for name, address in sorted(places.items()):
                yield from (option, f"{name}={address}")
        if not room.memory_guard:
            yield "--no-memory-guard"

    return list(words())
