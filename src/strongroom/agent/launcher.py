"""The launcher: a process that the agent forks before it has any key, to run the program later.

So no copy of a key is ever in a process that shares a namespace with the program. The launcher waits
for its launch, makes the namespaces, hands the network's to the agent with its listeners, and forks process 1 of all of them, which builds the container, starts the
program, reaps orphans, and reports. The user namespace is the program's alone: it owns none of the others. When process 1 ends, the kernel kills whatever the program left.

Events, one JSON object a line: {"event": "init", "pid"} · {"event": "starting"} ·
{"event": "not-started", "code", "reason"} · {"event": "ended", "status": wait status of the program} ·
{"event": "reloaded", "status": wait status of the command that makes the program read its certificates again; 0 for a signal} ·
{"event": "restarts", "status"}: as ended, and it is started again.
`code` is one of `_REASONS` and may be recorded; `reason` has the image's own words, and goes into the sealed log alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from strongroom.agent import container, kernel, owners
from strongroom.agent.network import namespace
from strongroom.agent.restarts import NEVER, Restarts
from strongroom.encoding import canonical
from strongroom.errors import StrongroomError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RELOAD = signal.SIGUSR1
"""Sent to process 1 by the agent: the program has new certificates. What is done then, the launch says."""
_UNKILLABLE = b"-1000"
_FIRST_TO_DIE = b"1000"
EXEC_FAILED = 127
_REST = 0.1
_CONTAINER_FAILED = "container-failed"
_NO_REASONS: Mapping[int, str] = {}
_REASONS = {
    errno.ENOENT: "program-missing",
    errno.ENOTDIR: "program-missing",
    errno.ELOOP: "program-missing",
    errno.EACCES: "program-not-executable",
    errno.EPERM: "program-not-executable",
    errno.ENOEXEC: "program-bad-format",
    errno.E2BIG: "arguments-too-long",
}


@dataclass(frozen=True, kw_only=True)
class Warden:
    """The agent's side: pipe ends, all owned by the agent, and the launcher's process id.

    launch: write the launch there, then close. events: lines come out. output: what the program prints. network: a socket, for
    `network.namespace.take_over`.
    """

    pid: int
    launch: int
    events: int
    output: int
    network: int


def spawn() -> Warden:
    """Fork the launcher. To be called before there is anything to keep from it."""
    canonical.dumps({"event": ""})  # loads its codec now: later the agent's file system is out of sight
    launch_read, launch_write = os.pipe()
    events_read, events_write = os.pipe()
    output_read, output_write = os.pipe()
    network, network_end = (end.detach() for end in socket.socketpair())
    pid = os.fork()
    if pid == 0:
        for fd in (launch_write, events_read, output_read, network):
            os.close(fd)
        _guarded(lambda: _launcher(launch_read, events_write, output_write, network_end), events_write)
    for fd in (launch_read, events_write, output_write, network_end):
        os.close(fd)
    return Warden(pid=pid, launch=launch_write, events=events_read, output=output_read, network=network)


def _launcher(launch_fd: int, events: int, output: int, network: int) -> int:
    data = b"".join(iter(lambda: os.read(launch_fd, 1 << 16), b""))
    os.close(launch_fd)
    if not data:
        return 0  # the agent ended without a launch
    launch = container.parse_launch(data)
    _spare_from_memory_shortage()
    if launch.cgroup:
        _write(f"{launch.cgroup}/cgroup.procs", b"0")
    users = owners.make_namespace()
    kernel.unshare(container.NAMESPACES)
    namespace.bring_up()
    namespace.hand_over(network, launch.listeners)
    os.close(network)
    pid = os.fork()
    if pid == 0:
        _guarded(lambda: _init(launch, users, events, output), events)
    os.close(users)
    os.close(output)
    _tell(events, event="init", pid=pid)
    os.waitpid(pid, 0)
    return 0


def _init(launch: container.ContainerLaunch, users: int, events: int, output: int) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # which process 1 of a namespace does not feel
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    container.build(launch, users)
    _Keeper(launch, users, events, output).keep()
    return 0


class _Keeper:
    """Process 1 once the container is made: starts the program, starts it again as the launch says, reaps, and takes the agent's signals.

    RELOAD: there are new certificates. SIGTERM: the program is asked to end, and not started again.
    """

    def __init__(self, launch: container.ContainerLaunch, users: int, events: int, output: int) -> None:
        self._launch, self._users, self._events, self._output = launch, users, events, output
        self._program = 0  # none runs
        self._is_stopping = False
        self._commands: set[int] = set()

    def keep(self) -> None:
        """Returns once the program has ended for good."""
        launch, restarts = self._launch, Restarts(self._launch.restart)
        signal.signal(signal.SIGTERM, self._stop)
        if launch.signal or launch.reload:
            signal.signal(RELOAD, self._reload)
        while True:
            began = time.monotonic()
            self._program = os.fork()
            if self._program == 0:
                _guarded(
                    lambda: _program(launch, self._users, self._events, self._output), self._events, _REASONS
                )
            if launch.restart == NEVER and not launch.reload:
                os.close(self._output)  # so that its end is seen as soon as the program's
            status = self._wait()
            pause = None if self._is_stopping else _pause(restarts, status, time.monotonic() - began)
            if pause is not None:
                _tell(self._events, event="restarts", status=status)
                self._rest(pause)
            if pause is None or self._is_stopping:
                _tell(self._events, event="ended", status=status)
                return

    def _wait(self) -> int:
        """The program's wait status; orphans are reaped meanwhile."""
        while True:
            pid, status = os.wait()
            if pid == self._program:
                self._program = 0
                return status
            if pid in self._commands:
                self._commands.discard(pid)
                _tell(self._events, event="reloaded", status=status)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._is_stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _REST))

    def _stop(self, _number: int, _frame: object) -> None:
        self._is_stopping = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._program:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._program, number)

    def _reload(self, _number: int, _frame: object) -> None:
        """Make the program read its certificates again: by process 1, which never had a key, and knows its own child."""
        if self._launch.signal:
            self._signal(self._launch.signal)
            _tell(self._events, event="reloaded", status=0)
            return
        command = os.fork()
        if command == 0:
            signal.signal(RELOAD, signal.SIG_IGN)
            try:
                _execute(replace(self._launch, arguments=self._launch.reload), self._users, self._output)
            finally:
                os._exit(EXEC_FAILED)
        self._commands.add(command)


def _pause(restarts: Restarts, status: int, ran: float) -> float | None:
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == EXEC_FAILED:
        return None  # it would fail again
    return restarts.after(succeeded=status == 0, ran_seconds=ran)


def _program(launch: container.ContainerLaunch, users: int, events: int, output: int) -> int:
    _execute(launch, users, output, events=events)
    return EXEC_FAILED


def _execute(
    launch: container.ContainerLaunch, users: int, output: int, *, events: int | None = None
) -> None:
    """Become the program, or a command beside it. Returns only by `OSError`. events: where its start is reported; None: nowhere."""
    _write("/proc/self/oom_score_adj", _FIRST_TO_DIE)
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.fchown(
        output, owners.kernel_id(launch.uid), owners.kernel_id(launch.gid)
    )  # so that /dev/stdout opens for the user, too
    for fd, place in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, place)
    # Now, not by the execution: until then the image's own words (its working directory, its interpreters) might lead
    # through /proc/self/fd to what whoever started the agent had open outside.
    kernel.close_all(3, but=(users,) if events is None else (users, events))
    kernel.close_on_exec(3)
    if "HOME" not in launch.environment:
        launch.environment["HOME"] = container.home_of(launch.uid)
    container.become(launch, users)
    if events is not None:
        _tell(events, event="starting")
    container.execute(launch)


def _guarded(act: Callable[[], int], events: int, reasons: Mapping[int, str] = _NO_REASONS) -> NoReturn:
    """Run `act` as a process of its own: whatever happens, it ends here and says why.

    reasons: the code of an `OSError` by its number; any other failure is the container's.
    """
    status = EXEC_FAILED
    try:
        status = act()
    except OSError as cause:
        where = f" {cause.filename}" if cause.filename else ""
        code = reasons.get(cause.errno or 0, _CONTAINER_FAILED)
        _tell(events, event="not-started", code=code, reason=f"{cause.strerror}{where}"[:500])
    except StrongroomError as cause:
        _tell(events, event="not-started", code=_CONTAINER_FAILED, reason=cause.message[:500])
    except Exception as cause:  # noqa: BLE001 - a process that ended without a word would explain nothing
        reason = f"making the container: {type(cause).__name__}"
        _tell(events, event="not-started", code=_CONTAINER_FAILED, reason=reason)
    finally:
        os._exit(status)


def _tell(events: int, **values: object) -> None:
    os.write(events, canonical.dumps(values) + b"\n")


def _spare_from_memory_shortage() -> None:
    try:
        _write("/proc/self/oom_score_adj", _UNKILLABLE)
    except PermissionError:
        return  # outside a room root may lack that right; the program goes first all the same


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def reload(pid: int) -> None:
    """Say to process 1 of the program's namespaces that there are new certificates. Only where its launch has a signal or a command."""
    try:
        os.kill(pid, RELOAD)
    except ProcessLookupError:
        return


def stop(pid: int) -> None:
    """Ask process 1 of the program's namespaces to end the program by SIGTERM, and not to start it again."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def kill(pid: int) -> None:
    """Kill process 1 of the program's namespaces, and with it everything in them."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
