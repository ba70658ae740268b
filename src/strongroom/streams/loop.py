"""The loop that owns one connection between a room and its node, and moves bytes between it and what streams end in.

One thread, one epoll. Sockets are registered once, for edges; the connection for levels, since a virtio port that is not
connected reads as ended. It is always read, and written from one buffer of `wire.PIECE` bytes, which the ends of streams
fill directly: what goes out is held nowhere else.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from strongroom.model.room import channel as wire
from strongroom.streams.mux import Mux
from strongroom.streams.poll import Poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.room.destination import Destination, Kind
    from strongroom.streams.mux import Answer, Side, Stream, StreamEnd

_HOST_ABSENT_PAUSE = 0.01
_PAGE = 4096  # what virtio_console gives at most in one read: less than that is most often all there is
_MOST_UNREAD = 2 * wire.PIECE  # bytes that are read before their frames are served
_MOST_READS = 32  # of so much, and writes, in one turn: then sockets have theirs


class Loop(Poll):
    """A carrier over one file descriptor, which is made non-blocking and stays the caller's to close.

    on_control: called with the bytes of each control message. ends: whether a read of nothing is the end, as of a socket;
    a virtio port reads so while the host is not there.
    """

    def __init__(
        self, fd: int, side: Side, on_control: Callable[[bytes], None], *, ends: bool = True
    ) -> None:
        super().__init__()
        os.set_blocking(fd, False)
        self._fd = fd
        self._ends = ends
        self._mux = Mux(side, on_control)
        self._decoder = wire.Decoder()
        self._buffer = memoryview(bytearray(wire.PIECE))
        self._unsent = self._buffer[:0]
        self._events = select.EPOLLIN
        self._epoll.register(fd, self._events)
        self.received = 0  # bytes in all
        self.lost = ""  # why the connection has ended

    @property
    def open_streams(self) -> int:
        """How many are open."""
        return self._mux.open_streams

    @property
    def is_sent(self) -> bool:
        """Whether everything that there is to send is out, or can not be sent any more."""
        return bool(self.lost) or not (self._unsent or self._mux.has_output)

    def dial(self, where: Destination, end: StreamEnd) -> Stream:
        """As of a carrier."""
        return self._mux.dial(where, end)

    def listen(self, kind: Kind, answer: Answer) -> None:
        """As of a carrier."""
        self._mux.listen(kind, answer)

    def send_control(self, payload: bytes) -> None:
        """As of a carrier."""
        self._mux.send_control(payload)

    def turn(self, timeout: float) -> bool:
        """As of a carrier. Raises `Malformed` when the other side breaks the rules, and what those who are called raise."""
        was_lost = bool(self.lost)
        self.write()
        if self.lost and not was_lost:
            return True
        ready = self._epoll.poll(max(0.0, timeout))
        readable = False
        for fd, events in ready:
            act = self._watched.get(fd)
            if act is not None:
                act(events)
            elif fd == self._fd and events & ~select.EPOLLOUT:
                readable = True
        if readable:
            self.read()
        self.write()
        return bool(ready)

    def read(self) -> None:
        """Take in what has come over the connection."""
        for _ in range(_MOST_READS):
            if self.lost or not self._read_once():
                return

    def write(self) -> None:
        """As of a carrier."""
        for _ in range(_MOST_READS):
            if self.lost:
                return
            unsent = self._unsent or self._buffer[: self._mux.fill(self._buffer)]
            if not unsent:
                break
            try:
                self._unsent = unsent[os.write(self._fd, unsent) :]
            except BlockingIOError:
                self._unsent = unsent
                break
            except OSError as cause:
                self._lose(f"writing to the other side: {cause.strerror}")
                return
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._unsent or self._mux.has_output else 0)
        if wanted != self._events:
            self._epoll.modify(self._fd, wanted)
            self._events = wanted

    def close(self) -> None:
        """End all streams and watch nothing any more. The connection is for others to close."""
        self._mux.close()
        super().close()

    def _read_once(self) -> bool:
        """Whether there may be more."""
        decoder, fd = self._decoder, self._fd
        space, come = decoder.space(), 0
        most = min(len(space), _MOST_UNREAD)
        while come < most:
            try:
                count = os.readv(fd, [space[come:]])
            except BlockingIOError:
                break
            except OSError as cause:
                self._lose(f"reading from the other side: {cause.strerror}")
                break
            if not count:
                self._nothing()
                break
            come += count
            if count % _PAGE:
                break
        decoder.took(come)
        self.received += come
        receive = self._mux.receive
        for kind, number, payload in decoder.frames():
            receive(kind, number, payload)
        return come >= most

    def _nothing(self) -> None:
        if self._ends:
            self._lose("the other side hung up")
        else:
            time.sleep(_HOST_ABSENT_PAUSE)

    def _lose(self, why: str) -> None:
        self.lost = why
        self._epoll.unregister(self._fd)
