"""One non-blocking socket of the relay, and what is held for it until it takes more."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

_READ = 64 * 1024


class Peer:
    """A socket that may come later; until then, and while it is slow, `send` holds the bytes.

    `held` counts them: the caller reads from the other side only while it is small. `connection` is None
    before `attach` and after `close`; `events` is for the caller's selector. An error of the socket ends it, as an end of file does: what is held is lost.
    """

    def __init__(self, connection: socket.socket | None = None) -> None:
        self.connection: socket.socket | None = None
        self._queue: deque[memoryview] = deque()
        self.held = 0
        self.events = 0
        self.ended = False
        self.closing = False
        if connection is not None:
            self.attach(connection)

    def attach(self, connection: socket.socket) -> None:
        """Take the socket over and send what was held for it."""
        connection.setblocking(False)
        self.connection = connection
        self.flush()

    def send(self, data: bytes) -> None:
        """Send, or hold."""
        if self.ended or not data:
            return
        self._queue.append(memoryview(data))
        self.held += len(data)
        self.flush()

    def flush(self) -> None:
        """Send as much as the socket takes."""
        if self.connection is None:
            return
        try:
            while self._queue:
                count = self.connection.send(self._queue[0])
                self.held -= count
                if count == len(self._queue[0]):
                    self._queue.popleft()
                else:
                    self._queue[0] = self._queue[0][count:]
        except BlockingIOError:
            return
        except OSError:
            self._end()

    def receive(self) -> bytes | None:
        """Bytes that have come, empty at the end, None when there are none yet."""
        if self.connection is None or self.ended:
            return b""
        try:
            data = self.connection.recv(_READ)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self._end()
        return data

    def close(self) -> None:
        """Close the socket and forget what is held."""
        self._end()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _end(self) -> None:
        self.ended = True
        self._queue.clear()
        self.held = 0
