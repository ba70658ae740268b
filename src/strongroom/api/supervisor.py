"""Several processes that serve one address: each has its own store and its own share of the connections.

The kernel spreads connections over their sockets (SO_REUSEPORT), which belong to the supervisor: who connects while
a worker is dead waits for its successor. A worker that dies is replaced; what it had committed is in the database,
and what it had not never happened. Workers end with their supervisor.

A worker that does not last is not replaced for ever: each time in a row that one at its place has ended within
`LASTING` seconds, the next one waits twice as long, and after `MOST` times the supervisor stops all and says so.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

from strongroom.api import server
from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[[socket.socket, Callable[[], None]], None]

PAUSE = 1.0
LONGEST_PAUSE = 16.0
LASTING = 30.0
MOST = 8
_PR_SET_PDEATHSIG = 1


def bind_all(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets on one address. Raises `Unavailable` when somebody else has it already."""
    with server.bind(host, port) as alone:
        port = int(alone.getsockname()[1])
    bound = []
    for _ in range(count):
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        bound.append(listener)
    return bound


class Supervisor:
    """Starts workers, replaces those that die, and stops them all on SIGTERM or SIGINT."""

    def __init__(self, serve: Serve, sockets: list[socket.socket]) -> None:
        self._serve = serve
        self._sockets = sockets
        self._workers: dict[int, int] = {}
        self._begun = [0.0] * len(sockets)
        self._short_lived = [0] * len(sockets)
        self._stopping = False

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until asked to stop; `ready` is called once all workers are.

        Raises `Unavailable` when a worker does not start, or those at one place do not last.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        heard = [self._start(place) for place in range(len(self._sockets))]
        said = [_hear(fd) for fd in heard]
        started = all(said)
        if started:
            ready()
        elif not self._stopping:
            self._stop()
        gave_up = False
        while self._workers:
            pid, _ = os.wait()
            place = self._workers.pop(pid, None)
            if place is None or self._stopping:
                continue
            gave_up = not self._replace(place)
            if gave_up:
                self._stop()
        if not started:
            raise Unavailable(
                "broker: a worker did not start",
                code="worker-failed",
                hint="mend what it said above, and start again",
            )
        if gave_up:
            raise Unavailable(
                f"broker: {MOST} workers in a row ended within {LASTING:g} seconds of their start",
                code="worker-failed",
                hint="mend what they said above; if they said nothing, see what ends processes here (too little memory?)",
            )

    def _replace(self, place: int) -> bool:
        """Start another worker after a pause. False, and none started: the last ones there did not last."""
        lasted = time.monotonic() - self._begun[place] >= LASTING
        count = self._short_lived[place] = 0 if lasted else self._short_lived[place] + 1
        if count >= MOST:
            return False
        until = time.monotonic() + min(LONGEST_PAUSE, PAUSE * 2 ** max(0, count - 1))
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))  # a signal to stop does not end a sleep
        if not self._stopping:
            os.close(self._start(place))
        return True

    def _start(self, place: int) -> int:
        """Start a worker; return the end of a pipe on which it says that it is ready."""
        self._begun[place] = time.monotonic()
        hear, say = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(say)
            self._workers[pid] = place
            return hear
        os.close(hear)
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if os.getppid() == parent:
                self._serve(self._sockets[place], lambda: _say(say))
        finally:
            os._exit(0)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for pid in list(self._workers):
            os.kill(pid, signal.SIGTERM)


def _say(fd: int) -> None:
    try:
        os.write(fd, b"r")
    except BrokenPipeError:
        pass  # a replaced worker's readiness is nobody's news
    finally:
        os.close(fd)


def _hear(fd: int) -> bool:
    try:
        return os.read(fd, 1) == b"r"
    finally:
        os.close(fd)
