"""Loops over a socket pair, with sockets at the ends of streams: what the room will have, and the node's side of it."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
import time

import pytest

from strongroom.model.room import channel as wire
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.streams import mux
from strongroom.streams.loop import Loop
from strongroom.streams.mux import Side
from strongroom.streams.socket_end import SocketEnd
from tests.unit.streams.place import HTTP, Place


@pytest.fixture
def places():
    ours, theirs = socket.socketpair()
    room, node = Place(ours, Side.ROOM), Place(theirs, Side.NODE)
    yield room, node
    for place in (room, node):
        place.close()


def echo(connection):
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def receive_all(connection):
    out = bytearray()
    while data := connection.recv(1 << 16):
        out += data
    return bytes(out)


@pytest.mark.parametrize("opener", [0, 1])
def test_megabytes_go_through_sockets_at_both_ends_whoever_opens(places, opener):
    places[1 - opener].listen(Kind.PORT, echo)
    dialer = places[opener]
    for place in places:
        place.start()
    sent = os.urandom(5 << 20)
    with dialer.dial() as connection:

        def send():
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        assert receive_all(connection) == sent
    for place in places:
        assert place.act(lambda place=place: place.loop.open_streams) == 0


def test_a_name_that_nobody_listens_for_and_one_that_is_refused_end_the_socket(places):
    room, node = places
    room.listen(Kind.PORT, echo)
    for place in places:
        place.start()
    for where in (Destination(kind=Kind.PORT, name="other"), Destination(kind=Kind.PEER, name="a:http")):
        with node.dial(where) as connection:
            assert connection.recv(1) == b""
    assert node.act(lambda: node.loop.open_streams) == 0


def test_one_that_reads_nothing_stops_nobody(places):
    room, node = places
    stuck = []
    room.listen(Kind.PORT, lambda connection: stuck.append(connection) if not stuck else echo(connection))
    for place in places:
        place.start()
    with node.dial() as slow, node.dial() as fast:
        slow.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            ends = time.monotonic() + 60
            while time.monotonic() < ends:
                select.select([], [slow], [], 0.5)
                slow.send(bytes(1 << 16))
        sent = os.urandom(3 << 20)
        threading.Thread(target=fast.sendall, args=(sent,), daemon=True).start()
        got = bytearray()
        while len(got) < len(sent):
            got += fast.recv(1 << 16)
        assert bytes(got) == sent
    for connection in stuck:
        connection.close()


def test_a_thousand_streams_are_open_at_once_and_all_answer(places):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 2500:
        pytest.skip("this process may not open so many files")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2500), hard))

    class Echo:
        def __init__(self, stream):
            self.stream, self.held = stream, bytearray()

        def take(self, data):
            self.held += data
            self.stream.ready()

        def fill(self, view):
            count = min(len(view), len(self.held))
            view[:count] = self.held[:count]
            del self.held[:count]
            if count:
                self.stream.consumed(count)
            return count

        def accepted(self): ...

        def ended(self): ...

        def over(self, reason): ...

    def answer(stream, _name):
        stream.accept()
        return Echo(stream)

    room, node = places
    room.loop.listen(Kind.PORT, answer)
    for place in places:
        place.start()
    try:
        connections = [node.dial() for _ in range(1000)]
        for turn in range(3):
            for number, connection in enumerate(connections):
                connection.sendall(b"%d %d" % (turn, number))
            for number, connection in enumerate(connections):
                assert connection.recv(100) == b"%d %d" % (turn, number)
        assert room.act(lambda: room.loop.open_streams) == 1000
        for connection in connections:
            connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_each_direction_ends_by_itself_either_way(places):
    room, node = places

    def answer_after_the_end(connection):
        with connection:
            connection.sendall(b"%d bytes" % len(receive_all(connection)))

    room.listen(Kind.PORT, answer_after_the_end)
    for place in places:
        place.start()
    with node.dial() as connection:
        connection.sendall(bytes(100_000))
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == b"100000 bytes"


def test_a_socket_that_is_gone_resets_the_stream(places):
    room, node = places
    room.listen(Kind.PORT, None)
    for place in places:
        place.start()
    with node.dial() as connection:
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(bytes(1 << 16))
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert node.act(lambda: node.loop.open_streams) == 0


def test_control_messages_arrive_beside_bulk(places):
    room, node = places
    room.listen(Kind.PORT, echo)
    for place in places:
        place.start()
    with node.dial() as connection:
        threading.Thread(
            target=lambda: contextlib.suppress(OSError).__enter__() or connection.sendall(bytes(1 << 20)),
            daemon=True,
        ).start()
        node.act(lambda: node.loop.send_control(b"{}"))
        for _ in range(6000):
            if room.controls:
                break
            time.sleep(0.01)
        assert room.controls == [b"{}"]
        got = 0
        while got < 1 << 20:
            got += len(connection.recv(1 << 16))


def test_an_end_that_comes_before_its_socket_is_kept_and_a_late_socket_is_closed(places):
    room, node = places
    waiting = []

    def answer(stream, _name):
        waiting.append((stream, SocketEnd(room.loop)))
        return waiting[-1][1]

    room.loop.listen(Kind.PORT, answer)
    for place in places:
        place.start()
    with node.dial() as connection:
        connection.sendall(b"all")
        connection.shutdown(socket.SHUT_WR)
        while not waiting or not waiting[0][0].got_end:
            time.sleep(0.01)
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        stream, end = waiting[0]
        room.act(lambda: (end.attach(stream, theirs), stream.accept()))
        with ours:
            assert receive_all(ours) == b"all"
            ours.sendall(b"back")
        assert receive_all(connection) == b"back"
    with node.dial() as connection:
        while len(waiting) < 2:
            time.sleep(0.01)
        stream, end = waiting[1]
        room.act(lambda: stream.reset(Reason.UNREACHABLE))
        assert connection.recv(1) == b""
        ours, theirs = socket.socketpair()
        room.act(lambda: end.attach(stream, theirs))
        assert ours.recv(1) == b""
        ours.close()


def test_who_breaks_the_rules_ends_the_other_sides_loop(places):
    room, node = places
    room.listen(Kind.PORT, echo)
    room.start()
    flood = wire.Frame(type=wire.FrameType.DATA, stream=2, payload=bytes(mux.FIRST_WINDOW)).encode()
    node.sock.setblocking(True)
    node.sock.sendall(
        wire.Frame(type=wire.FrameType.OPEN, stream=2, payload=HTTP.encode()).encode() + flood * 2
    )
    room.thread.join(60)
    assert room.failure is not None
    assert room.failure.code == "flooded"
    node.start()


def test_a_connection_that_breaks_is_lost_and_says_why(places):
    room, node = places
    node.sock.close()
    while not room.loop.lost:
        room.loop.turn(60)
    assert room.loop.lost == "the other side hung up"
    room.loop.send_control(b"{}")
    room.loop.write()
    room.loop.turn(0)
    assert room.loop.is_sent
    room.start()
    node.loop.lost = "closed"
    node.start()


def test_a_port_that_reads_nothing_is_not_connected_yet():
    reader, writer = os.pipe()
    loop = Loop(reader, Side.ROOM, print, ends=False)
    os.close(writer)
    for _ in range(3):
        assert loop.turn(1)
    assert loop.lost == ""
    loop.close()
    os.close(reader)
