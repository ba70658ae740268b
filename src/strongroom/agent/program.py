"""Runs the program through the launcher and says how it ended.

The agent waits here: it drains the program's output (kept only when the contract names a reader),
watches the wall limit and the disks, and reads from the kernel whether memory ran out. However the run ends, `run` leaves
only when no process of the program is alive. What the receipt will say of it is of `receipt.DETAILS`.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from strongroom.agent import launcher
from strongroom.agent.network import namespace
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Unavailable
from strongroom.model.receipt import DETAILS, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from strongroom.agent.container import ContainerLaunch
    from strongroom.agent.disks.reads import ReadWatch
    from strongroom.agent.launcher import Warden
    from strongroom.agent.network.namespace import Handed
    from strongroom.agent.network.relay import ProgramNetwork
    from strongroom.model.receipt import EgressCount

_PROCESS = "run it again; if it stays so, the room's memory or kernel keeps a killed process: try with more --memory-mib"

MAX_EVENTS = 64 * 1024
TRUNCATED = b"\n[strongroom: the rest was cut off at the contract's limit]\n"
_READ = 64 * 1024
_LAST_WORDS_SECONDS = 5.0
_REASON = 500
_END_SECONDS = 10.0
_PAUSE = 0.01


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the program ended. Times are of the monotonic clock; `log` is what was kept of its output.

    details: keys of `receipt.DETAILS`. egress: what went to each host outside, exactly.
    """

    outcome: Outcome
    exit_status: int
    details: tuple[str, ...]
    started: float
    ended: float
    log: bytes = b""
    egress: tuple[EgressCount, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Why the program is to end: a key of `receipt.DETAILS`. grace: seconds it is given to end by itself; 0: it is killed."""

    detail: str
    grace: float = 0.0


class EndlessRun(Protocol):
    """What goes on beside a program without a wall limit (`life.service`)."""

    ending: Ending | None

    def step(self) -> float:
        """Do what is due; seconds until this is to be called again."""


class Waiter(Protocol):
    """Watches descriptors: a room's carrier (`strongroom.streams.carrier`), or nothing but that (`strongroom.streams.poll`)."""

    def watch(self, fd: int, act: Callable[[int], None], events: int = ...) -> None:
        """Have `act` called within `turn` when `fd` is ready: by default, to be read."""

    def forget(self, fd: int) -> None:
        """Watch `fd` no more."""

    def turn(self, timeout: float) -> bool:
        """Serve what is ready, waiting up to so many seconds for something."""


@dataclass
class _Watch:
    """What is known so far."""

    log_bytes: int
    began: float = field(default_factory=time.monotonic)
    init: int = 0
    started: float = 0.0
    status: int | None = None
    reloaded: int | None = None
    reason: str = ""
    failed: str = ""
    log: bytearray = field(default_factory=bytearray)
    overflow: bool = False

    def keep(self, data: bytes) -> None:
        room = self.log_bytes - len(self.log)
        self.log += data[: max(room, 0)]
        self.overflow = self.overflow or (self.log_bytes > 0 and len(data) > room)

    def remark(self, line: str) -> None:
        """A line of the agent's own among the program's."""
        begin = b"\n" if self.log and not self.log.endswith(b"\n") else b""
        self.keep(begin + f"[strongroom: {line}]\n".encode())


class RunningProgram:
    """The program, for who acts on it while it runs."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    @property
    def process(self) -> int:
        """Process 1 of its namespaces."""
        return self._watch.init

    @property
    def reloaded(self) -> int | None:
        """The wait status of what made it read its certificates again; None until then."""
        return self._watch.reloaded

    def expect_reload(self) -> None:
        """Forget the last one."""
        self._watch.reloaded = None

    def remark(self, line: str) -> None:
        """A line of the agent's own in its log."""
        self._watch.remark(line)


def run(  # noqa: PLR0913 - by name, and each is of another part of the room
    guard: Warden,
    launch: ContainerLaunch,
    *,
    waiter: Waiter,
    reads: ReadWatch,
    limit: float | EndlessRun,
    log_bytes: int,
    on_start: Callable[[], None],
    network: ProgramNetwork | None = None,
    on_running: Callable[[RunningProgram], None] = lambda _running: None,
) -> Ended:
    """Run the program to its end; a failed read ends it. `on_start` is called when it is about to execute. on_running: called at once, with the
    program-to-be.

    limit: the seconds that it may run at most; of a service, what ends it instead, and what is done meanwhile.
    waiter: what else goes on meanwhile, such as the streams of `network`, is served by its turns.

    What a failed read means for the outcome is the caller's to say: a read may fail after the end, too.
    Raises `Unavailable` (`program-alive`) when a process of the program outlives its end.
    """
    ooms = out_of_memory_count(launch.cgroup)
    watch, timed_out = _Watch(log_bytes=log_bytes), False
    on_running(RunningProgram(watch))
    ending: Ending | None = None
    data = memoryview(launch.encode())
    while data:
        data = data[os.write(guard.launch, data) :]
    os.close(guard.launch)
    try:
        try:
            with _Reports(guard, watch, waiter, reads) as reports:
                reports.take_network(launch, network)
                if isinstance(limit, float | int):
                    timed_out = _wait(watch, reports, limit, on_start)
                else:
                    ending = _accompany(watch, reports, limit, on_start)
                ended = time.monotonic()
        finally:
            _end_all(guard, watch, launch.cgroup)
        if network is not None:
            _drain(waiter, network)
    finally:
        if network is not None:
            network.close()
    outcome, status, details = judge(
        status=watch.status,
        not_started=watch.failed or ("" if watch.started else "container-failed"),
        timed_out=timed_out,
        ran_out=out_of_memory_count(launch.cgroup) > ooms,
    )
    if ending is not None:
        if not ending.grace:  # it may have left by itself in the same moment: nothing of it leaves the room
            outcome, status = Outcome.KILLED, int(signal.SIGKILL)
        details = (*details, ending.detail)
    log = bytes(watch.log) + (TRUNCATED if watch.overflow else b"")
    if watch.reason and log_bytes:
        log += f"[strongroom: {watch.reason}]\n".encode()
    return Ended(
        outcome=outcome,
        exit_status=status,
        details=details,
        started=watch.started or watch.began,
        ended=ended,
        log=log,
        egress=() if network is None else network.counts(),
    )


def judge(
    *, status: int | None, not_started: str, timed_out: bool, ran_out: bool
) -> tuple[Outcome, int, tuple[str, ...]]:
    """Outcome, exit status (0 to 255) and details, from what was seen. `status` is a wait status.

    not_started: why, as a key of `receipt.DETAILS`; empty for a program that was started.
    """
    if not_started:
        if timed_out:
            return Outcome.TIMED_OUT, 0, ("container-slow",)
        return Outcome.NOT_STARTED, 0, (not_started,)
    if timed_out:
        return Outcome.TIMED_OUT, int(signal.SIGKILL), ()
    killed = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
    if ran_out and killed:
        return Outcome.OUT_OF_MEMORY, int(signal.SIGKILL), ()
    if status is None:
        return Outcome.KILLED, int(signal.SIGKILL), ()
    if os.WIFSIGNALED(status):
        return Outcome.KILLED, os.WTERMSIG(status), ()
    return Outcome.EXITED, os.WEXITSTATUS(status), ("memory-ran-out",) if ran_out else ()


def out_of_memory_count(cgroup: str) -> int:
    """How many processes of the program's group (without one: of the room) memory shortage has killed."""
    path = f"{cgroup}/memory.events" if cgroup else "/proc/vmstat"
    try:
        with open(path, "rb") as file:
            lines = file.read(_READ).split(b"\n")
    except OSError:
        return 0
    for line in lines:
        name, _, value = line.partition(b" ")
        if name == b"oom_kill" and value.isdigit():
            return int(value)
    return 0


class _Reports:
    """What comes from the launcher and the program, and whether a read has failed: taken in whenever the waiter turns."""

    def __init__(self, guard: Warden, watch: _Watch, waiter: Waiter, reads: ReadWatch) -> None:
        self._guard, self._watch, self._waiter = guard, watch, waiter
        self._reads = reads.fileno()
        self._pending = bytearray()
        self._open = {guard.events: self._take_events, guard.output: self._take_output}
        self.read_failed = False
        self.has_started = False  # and nobody has been informed

    def __enter__(self) -> Self:
        for fd, take in self._open.items():
            self._waiter.watch(fd, take)
        self._waiter.watch(self._reads, self._fail)
        return self

    def __exit__(self, *_: object) -> None:
        for fd in tuple(self._open):
            self._end(fd)
        self._waiter.forget(self._reads)
        self._end(self._guard.network)

    @property
    def are_over(self) -> bool:
        """Whether both pipes have ended."""
        return not self._open.keys() & {self._guard.events, self._guard.output}

    def turn(self, seconds: float) -> None:
        """Take in what comes, waiting up to so long for something."""
        self._waiter.turn(seconds)

    def take_network(self, launch: ContainerLaunch, network: ProgramNetwork | None) -> None:
        """Take over what the launcher makes, for `network`."""

        def take(_events: int) -> None:
            handed: Handed | None = namespace.take_over(self._guard.network, launch.listeners)
            self._end(self._guard.network)
            if handed is None:
                return
            if network is None:
                handed.close()
            else:
                network.join(handed, self._watch.remark)

        self._open[self._guard.network] = take
        self._waiter.watch(self._guard.network, take)

    def _take_events(self, _events: int) -> None:
        data = os.read(self._guard.events, _READ)
        if not data:
            self._end(self._guard.events)
        elif _note_lines(self._watch, self._pending, data):
            self.has_started = True

    def _take_output(self, _events: int) -> None:
        data = os.read(self._guard.output, _READ)
        if data:
            self._watch.keep(data)
        else:
            self._end(self._guard.output)

    def _fail(self, _events: int) -> None:
        self.read_failed = True
        self._waiter.forget(self._reads)  # readable for ever

    def _end(self, fd: int) -> None:
        if self._open.pop(fd, None) is not None:
            self._waiter.forget(fd)
            os.close(fd)


def _wait(watch: _Watch, reports: _Reports, wall_seconds: float, on_start: Callable[[], None]) -> bool:
    """Wait until both pipes have ended, or a read fails; true when the wall limit was what ended the program."""
    deadline = watch.began + wall_seconds
    timed_out = False
    while not (reports.are_over or reports.read_failed):  # whatever still runs is ended by the caller
        left = deadline - time.monotonic()
        if left <= 0:
            if timed_out:
                break  # killed long ago, and a pipe still stands open: nothing more comes that counts
            timed_out = watch.status is None
            deadline = time.monotonic() + _LAST_WORDS_SECONDS
            if watch.init:
                launcher.kill(watch.init)
            continue
        reports.turn(left)
        if reports.has_started:
            reports.has_started = False
            deadline = watch.started + wall_seconds
            on_start()
    return timed_out


def _accompany(
    watch: _Watch, reports: _Reports, service: EndlessRun, on_start: Callable[[], None]
) -> Ending | None:
    """Wait until both pipes have ended, or a read fails, or what `service` says has ended the program: that is returned."""
    ending: Ending | None = None
    deadline, killed = math.inf, False
    while not (reports.are_over or reports.read_failed):
        wait = service.step()
        now = time.monotonic()
        if service.ending is not ending and service.ending is not None:
            ending = service.ending
            deadline = now + ending.grace
            if ending.grace and watch.init:
                launcher.stop(watch.init)
        if now >= deadline:
            if killed:
                break
            killed, deadline = True, now + _LAST_WORDS_SECONDS
            if watch.init:
                launcher.kill(watch.init)
        reports.turn(min(wait, deadline - now))
        if reports.has_started:
            reports.has_started = False
            on_start()
    return ending


def _drain(waiter: Waiter, network: ProgramNetwork) -> None:
    """Let go out what a program had sent that is gone, as its own kernel would."""
    deadline = time.monotonic() + _LAST_WORDS_SECONDS
    while not network.is_drained and (left := deadline - time.monotonic()) > 0:
        waiter.turn(left)


def _end_all(guard: Warden, watch: _Watch, cgroup: str) -> None:
    """Kill whatever is left of the program and wait until it is gone: from here on its outputs stand still."""
    if watch.init:
        launcher.kill(watch.init)
    launcher.kill(guard.pid)  # it has ended by itself, unless something in its way never does
    if cgroup:
        with open(f"{cgroup}/cgroup.kill", "wb", buffering=0) as file:
            file.write(b"1")
    deadline = time.monotonic() + _END_SECONDS
    while not _is_over(guard.pid, cgroup):
        if time.monotonic() > deadline:
            raise Unavailable("a process of the program does not end", code="program-alive", hint=_PROCESS)
        time.sleep(_PAUSE)


def _is_over(pid: int, cgroup: str) -> bool:
    with contextlib.suppress(ChildProcessError):  # it was waited for the last time
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            return False
    if not cgroup:
        return True
    with open(f"{cgroup}/cgroup.events", "rb") as file:
        return b"populated 0" in file.read(_READ).split(b"\n")


def _note_lines(watch: _Watch, pending: bytearray, data: bytes) -> bool:
    """Take in events, of which the last may be `pending`; true when the program's start is among them."""
    pending += data
    if len(pending) > MAX_EVENTS:
        raise Malformed("the launcher reports too much", code="warden")
    *lines, rest = bytes(pending).split(b"\n")
    pending[:] = rest
    started = [_note(watch, line) for line in lines]
    return any(started)


def _note(watch: _Watch, line: bytes) -> bool:
    """Take in one event; true when it is the program's start."""
    top = fields.Fields(canonical.loads(line, what="event", max_bytes=8192), "event")
    event = top.text("event", max_length=32)
    if event == "init":
        watch.init = top.integer("pid", low=1, high=1 << 30)
    elif event == "starting":
        watch.started = watch.started or time.monotonic()
    elif event == "not-started":
        code, reason = top.text("code", max_length=32), top.text("reason", max_length=_REASON)
        watch.failed = watch.failed or (code if code in DETAILS else "container-failed")
        watch.reason = watch.reason or reason
    elif event == "ended":
        watch.status = top.integer("status", low=0, high=0xFFFF)
    elif event == "reloaded":
        watch.reloaded = top.integer("status", low=0, high=0xFFFF)
    elif event == "restarts":
        watch.remark(
            f"the program ended (wait status {top.integer('status', low=0, high=0xFFFF)}) and is started again"
        )
    top.done()
    return event == "starting"
