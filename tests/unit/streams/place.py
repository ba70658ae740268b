"""One side of a connection with a loop in a thread of its own, and sockets at the ends of its streams, for tests."""

from __future__ import annotations

import contextlib
import socket
import threading

from strongroom.errors import Malformed
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.streams.loop import Loop
from strongroom.streams.socket_end import SocketEnd

HTTP = Destination(kind=Kind.PORT, name="http")


class Place:
    """One side, with a loop in a thread of its own; `act` has something done in it."""

    def __init__(self, sock, side):
        self.sock, self.controls = sock, []
        self.loop = Loop(sock.fileno(), side, self.controls.append)
        self.waker, self.woken = socket.socketpair()
        self.loop.watch(self.woken.fileno(), self._wake)
        self.acts, self.ended, self.failure = [], False, None
        self.thread = threading.Thread(target=self._run)

    def start(self):
        self.thread.start()
        return self

    def _wake(self, _events):
        for _ in self.woken.recv(100):
            self.acts.pop(0)()

    def _run(self):
        try:
            while not (self.ended or self.loop.lost):
                self.loop.turn(60)
        except Malformed as failure:
            self.failure = failure

    def act(self, do):
        done, out = threading.Event(), []

        def act():
            out.append(do())
            done.set()

        self.acts.append(act)
        self.waker.send(b"w")
        assert done.wait(60)
        return out[0]

    def dial(self, where=HTTP):
        """A socket that is joined to a new stream."""
        ours, theirs = socket.socketpair()
        ours.settimeout(60)

        def act():
            end = SocketEnd(self.loop)
            end.attach(self.loop.dial(where, end), theirs)

        self.act(act)
        return ours

    def listen(self, kind, serve):
        """Have `serve(connection)` run in a thread for each stream that the other side opens."""

        def answer(stream, name):
            if name != "http":
                return Reason.REFUSED
            ours, theirs = socket.socketpair()
            end = SocketEnd(self.loop)
            end.attach(stream, theirs)
            stream.accept()
            if serve is not None:
                threading.Thread(target=serve, args=(ours,), daemon=True).start()
            else:
                ours.close()
            return end

        self.loop.listen(kind, answer)

    def close(self):
        with contextlib.suppress(OSError):
            self.acts.append(lambda: setattr(self, "ended", True))
            self.waker.send(b"w")
        self.thread.join(60)
        self.loop.close()
        for one in (self.sock, self.waker, self.woken):
            one.close()
