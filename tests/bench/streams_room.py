"""The room's side of `bench_streams`, run by a room's own Python: first the raw port, then
streams that end in memory, then streams that end in the sockets of another process, then those of the agent's relay to a
program in a network namespace of its own.
"""

import os
import resource
import socket
import sys
import time

from strongroom.agent import value_classes

sys.modules["dataclasses"] = value_classes  # as in a room, which has no other

from strongroom.agent import channel, kernel  # noqa: E402
from strongroom.agent.network import namespace, relay  # noqa: E402
from strongroom.model.contracts.network_terms import Port  # noqa: E402
from strongroom.model.room.destination import Kind, Reason  # noqa: E402
from strongroom.streams.loop import Loop  # noqa: E402
from strongroom.streams.mux import Side  # noqa: E402
from strongroom.streams.socket_end import SocketEnd  # noqa: E402

SERVERS = "\0bench-"
PORTS = {"relay-sink": 1001, "relay-source": 1002, "relay-echo": 1003}


class Memory:
    """Eats what comes; sends back as much as it is worth: all of it, nothing, or zeros without end."""

    def __init__(self, stream, name):
        self.stream, self.name = stream, name
        self.outgoing, self.has_ended = bytearray(), False

    def take(self, data):
        if self.name == "echo":
            self.outgoing += data
            self.stream.ready()
        self.stream.consumed(len(data))

    def fill(self, view):
        if self.name == "source":
            return len(view)
        count = min(len(view), len(self.outgoing))
        view[:count] = self.outgoing[:count]
        del self.outgoing[:count]
        return count or (-1 if self.has_ended else 0)

    def accepted(self):
        pass

    def ended(self):
        self.has_ended = True
        self.stream.ready()

    def over(self, reason):
        pass


def program(end):
    """A program with a network of its own, and its servers."""
    kernel.unshare(kernel.CLONE_NEWNET)
    namespace.bring_up()
    for name, number in PORTS.items():
        listener = socket.create_server(("127.0.0.1", number), backlog=128)
        if not os.fork():
            serve(name.partition("-")[2], listener)
        listener.close()
    namespace.hand_over(end.fileno(), ())
    os._exit(0)


def network(loop):
    """The agent's relay to it."""
    ours, theirs = socket.socketpair()
    if not os.fork():
        program(theirs)
    ports = tuple(Port(name=name, number=number, open=True) for name, number in PORTS.items())
    joined = relay.ProgramNetwork(loop, ports=ports, ways=())
    joined.join(namespace.take_over(ours.fileno(), ()), lambda line: None)
    return joined


def loopback(joined):
    """The same without streams: connections a second to the program's server, and the median round trip in microseconds."""
    inner, trips, count = joined._handed.namespace, [], 200
    begun = time.perf_counter()
    for number in range(2 * count):
        if number % count == 0:
            rate = count / (time.perf_counter() - begun)
        if number <= count:
            connection = inner.socket(socket.AF_INET)
            connection.setblocking(True)
            connection.connect(("127.0.0.1", PORTS["relay-echo"]))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = time.perf_counter()
        connection.sendall(b"x")
        connection.recv(1)
        trips.append((time.perf_counter() - at) * 1e6)
        if number < count:
            connection.close()
    connection.close()
    return f"{rate} {sorted(trips[count:])[count // 2]}"


def answer(loop, joined, stream, name):
    """The end of a stream to the port of that name."""
    if name in PORTS:
        return joined._open_port(stream, name)
    if name == "loopback":
        end = Memory(stream, "echo")
        end.outgoing += loopback(joined).encode()
    elif name == "memory":
        end = Memory(stream, "echo")
        end.outgoing += str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode()
    elif name.startswith("socket-"):
        end = SocketEnd(loop)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(SERVERS + name.partition("-")[2])
        end.attach(stream, connection)
    elif name == "quit":
        sys.exit(0)
    elif name in ("echo", "sink", "source"):
        end = Memory(stream, name)
    else:
        return Reason.REFUSED
    stream.accept()
    return end


def serve(name, listener):
    """A process of a program, with one connection after the other."""
    buffer = memoryview(bytearray(1 << 16))
    while True:
        connection, _ = listener.accept()
        try:
            while name == "source":
                connection.sendall(buffer)
            while count := connection.recv_into(buffer):
                if name == "echo":
                    connection.sendall(buffer[:count])
        except OSError:
            pass
        connection.close()


def raw(fd, size):
    """As the other side asks by one byte: take all, send all, or send each byte back."""
    zeros = bytes(1 << 15)
    while True:
        asked = os.read(fd, 1)
        if asked == b"i":
            left = size
            while left:
                left -= len(os.read(fd, min(left, 1 << 15)))
            os.write(fd, b"k")
        elif asked == b"o":
            left = size
            while left:
                left -= os.write(fd, zeros[: min(left, len(zeros))])
        elif asked == b"e":
            os.write(fd, b"e")
        elif asked == b"q":
            return


def main(fd, size, ends):
    """Until the other side is done."""
    for name in ("sink", "source", "echo"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(SERVERS + name)
        listener.listen(64)
        if not os.fork():
            serve(name, listener)
        listener.close()
    os.write(fd, b"r")
    raw(fd, size)
    loop = Loop(fd, Side.ROOM, print, ends=ends)
    joined = network(loop)
    loop.listen(Kind.PORT, lambda stream, name: answer(loop, joined, stream, name))
    while not loop.lost:
        loop.turn(60)


if len(sys.argv) > 2:
    main(int(sys.argv[1]), int(sys.argv[2]), True)
else:
    main(os.open(channel.find_port(), os.O_RDWR), int(sys.argv[1]), False)
