"""A room that is reached over TCP, its program an echo, in a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading

from strongroom.model.tunnel import TlsSide
from strongroom.tunnel.loop import TunnelLoop
from strongroom_testing import tunnels


class Served(threading.Thread):
    """Answers for `room` until `close`. connections: how many the program has taken; causes: codes of what was refused."""

    def __init__(self, room, **changes):
        super().__init__(daemon=True)
        self.room, self.changes = room, changes
        self.loop = TunnelLoop()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.loop.watch(self.listener.fileno(), self.accept)
        self.ends, self.echoes = [], []
        self.over = threading.Event()
        self.start()

    @property
    def at(self):
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def connections(self):
        return sum(end.is_proven for end in self.ends)

    @property
    def causes(self):
        return [end.code for end in self.ends]

    def accept(self):
        with contextlib.suppress(BlockingIOError):
            net, _ = self.listener.accept()
            end = tunnels.End(self.loop, self.room.ours(**self.changes), self.room.signs)
            self.ends.append(end)
            end.start(TlsSide.SERVER, net)
            echo = threading.Thread(target=answer, args=(end.program,), daemon=True)
            echo.start()
            self.echoes.append(echo)

    def run(self):
        while not self.over.is_set():
            self.loop.turn(0.02)

    def close(self):
        self.over.set()
        self.join()
        for end in self.ends:
            end.close()
        self.loop.close()
        self.listener.close()


def answer(program):
    with contextlib.suppress(OSError):
        while data := program.recv(1 << 16):
            program.sendall(data.upper())
        program.shutdown(socket.SHUT_WR)
