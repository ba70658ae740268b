"""A stream that ends in a socket: bytes go from one to the other and nowhere else, each direction ends by itself."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import TYPE_CHECKING

from strongroom.model.room.destination import Reason

if TYPE_CHECKING:
    from strongroom.streams.carrier import Carrier
    from strongroom.streams.mux import Stream

_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_AT_ONCE = struct.pack("ii", 1, 0)


def reset_on_close(connection: socket.socket) -> None:
    """Have its close be a reset: what was cut off is not to look as if it were whole."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


class SocketEnd:
    """The end of a stream, which a socket joins by `attach`, at once or later. Until then, and while it is slow, what came on
    the stream is held, within the stream's window.
    """

    __slots__ = ("_connection", "_held", "_is_over", "_loop", "_readable", "_stream", "_writable")

    def __init__(self, loop: Carrier) -> None:
        self._loop = loop
        self._stream: Stream | None = None
        self._connection: socket.socket | None = None
        self._held = bytearray()
        self._is_over = self._readable = self._writable = False

    def attach(self, stream: Stream, connection: socket.socket) -> None:
        """Take the socket over. It is closed with the stream, at once where that is over already."""
        if self._is_over:
            connection.close()
            return
        connection.setblocking(False)
        self._stream, self._connection = stream, connection
        self._readable = self._writable = True
        self._loop.join(connection, self._serve)
        self._flush()
        stream.ready()

    def take(self, data: memoryview) -> None:
        """To the socket, or held until it takes more."""
        if self._connection is None or self._stream is None or self._held or not self._writable:
            self._held += data
            return
        try:
            count = self._connection.send(data)
        except BlockingIOError:
            count, self._writable = 0, False
        except OSError:
            self._stream.reset(Reason.RESET)
            return
        if count < len(data):
            self._held += data[count:]
        self._stream.consumed(count)
        self._flush()

    def fill(self, view: memoryview) -> int:
        """From the socket."""
        if self._connection is None or self._stream is None or not self._readable or not view:
            return 0
        try:
            return self._connection.recv_into(view) or -1
        except BlockingIOError:
            self._readable = False
        except OSError:
            self._stream.reset(Reason.RESET)
        return 0

    def accepted(self) -> None:
        """Nothing is to be done: what there was to send was sent before."""

    def ended(self) -> None:
        """The socket's end follows what is held for it."""
        self._flush()

    def over(self, reason: Reason | None) -> None:
        """Close the socket; after a reset so that whoever reads from it sees that this is no end."""
        self._is_over = True
        self._held.clear()
        if self._connection is not None:
            if reason is not None:
                reset_on_close(self._connection)
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _serve(self, events: int) -> None:
        if events & _WRITABLE:
            self._writable = True
            self._flush()
        if events & _READABLE and self._stream is not None:
            self._readable = True
            self._stream.ready()

    def _flush(self) -> None:
        """Send what is held, and the end behind it."""
        stream = self._stream
        if stream is None or not self._writable:
            return
        while self._held and self._connection is not None:
            try:
                with memoryview(self._held) as view:
                    count = self._connection.send(view)
            except BlockingIOError:
                self._writable = False
                return
            except OSError:
                stream.reset(Reason.RESET)
                return
            del self._held[:count]
            stream.consumed(count)
        if stream.got_end and self._connection is not None:
            with contextlib.suppress(OSError):  # the other end has gone: reading says so
                self._connection.shutdown(socket.SHUT_WR)
