"""Connections that take their time are made in threads, and joined to their streams by the one that has the loop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import StrongroomError
from strongroom.model.room.destination import Reason
from strongroom.streams.mux import MAX_OPEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.streams.loop import Loop
    from strongroom.streams.mux import Stream

    Settled = Callable[[Exception | None], None]

MOST_THREADS = 32
MOST_WAITING = 2 * MAX_OPEN  # of which half may be of streams that are over


class Connecting(Protocol):
    """The end of a stream that waits for its connection."""

    stream: Stream

    def attach(self, stream: Stream, connection: socket.socket) -> None:
        """Take the connection over."""


class Connector:
    """Joins streams to connections.

    reach: makes one, in a thread; raises `OSError` or `StrongroomError`. settled: called once in the loop's thread, with why not, or None.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Connecting, Callable[[], socket.socket], Settled]] = deque()
        self._settled: deque[tuple[Connecting, socket.socket | None, Exception | None, Settled]] = deque()
        self._threads = 0
        self._lock = threading.Lock()
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        loop.watch(self._woken.fileno(), self._take)

    def connect(self, end: Connecting, reach: Callable[[], socket.socket], settled: Settled) -> None:
        """Have `end` joined to what `reach` makes and its stream accepted, or else reset."""
        with self._lock:
            if (
                len(self._waiting) >= MOST_WAITING
            ):  # a program connects and leaves, to a host that never answers
                wanted = [each for each in self._waiting if not each[0].stream.is_over]
                self._waiting.clear()
                self._waiting.extend(wanted)
            self._waiting.append((end, reach, settled))
            if self._threads >= MOST_THREADS:
                return
            self._threads += 1
        threading.Thread(target=self._work, name="connect", daemon=True).start()

    def close(self) -> None:
        """Make none any more, and close those that no stream has got."""
        self._waiting.clear()
        self._waker.close()
        self._woken.close()
        self._close_settled()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                end, reach, settled = self._waiting.popleft()
            if end.stream.is_over:
                continue  # nobody wants it any more
            try:
                self._settled.append((end, reach(), None, settled))
            except (OSError, StrongroomError) as cause:
                self._settled.append((end, None, cause, settled))
            try:
                self._waker.send(b"w")
            except OSError:  # the room has ended meanwhile
                self._close_settled()

    def _close_settled(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._settled.popleft()[1]
                if connection is not None:
                    connection.close()

    def _take(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._settled:
            end, connection, cause, settled = self._settled.popleft()
            settled(cause)
            if connection is not None:
                end.attach(end.stream, connection)
                end.stream.accept()
            elif cause is not None:
                end.stream.reset(reason_of(cause))


def reason_of(cause: Exception) -> Reason:
    """What a room learns of it."""
    if isinstance(cause, ConnectionRefusedError):
        return Reason.REFUSED
    if isinstance(cause, StrongroomError) and cause.code == "forbidden-address":
        return Reason.NOT_ALLOWED
    return Reason.UNREACHABLE
