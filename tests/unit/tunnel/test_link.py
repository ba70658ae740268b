"""Two ends joined: the program's bytes arrive whole, ends travel by themselves, and a cut is no end."""

from __future__ import annotations

import hashlib
import os
import socket
import threading

import pytest

from strongroom.model import tunnel
from strongroom_testing import tunnels


def joined(end, pair, web, db):
    return pair(end(web.ours(), web.signs), end(db.ours(), db.signs))


def test_bytes_arrive_both_ways(end, pair, loop, web, db):
    client, server = joined(end, pair, web, db)
    assert (client.cause, server.cause) == (None, None)
    assert client.peer.run_id == db.room.keys.run_id
    assert server.peer.run_id == web.room.keys.run_id
    assert client.peer.simulated
    client.program.sendall(b"select 1")
    tunnels.turn(loop, lambda: ready(server.program))
    assert server.program.recv(100) == b"select 1"
    server.program.sendall(b"1")
    tunnels.turn(loop, lambda: ready(client.program))
    assert client.program.recv(100) == b"1"
    assert client.link.handshake.ready


def ready(connection):
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK)) or True
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(tunnels.PATIENCE)


@pytest.mark.parametrize("size", [0, 1, tunnel.MAX_DATA, tunnel.MAX_DATA + 1, 3_000_000])
def test_an_end_travels_by_itself_behind_all_bytes(end, pair, loop, web, db, size):
    client, server = joined(end, pair, web, db)
    data, came = os.urandom(size), bytearray()

    def send():
        client.program.sendall(data)
        client.program.shutdown(socket.SHUT_WR)

    def receive():
        while piece := server.program.recv(1 << 16):
            came.extend(piece)
        server.program.sendall(hashlib.sha256(came).digest())
        server.program.shutdown(socket.SHUT_WR)

    workers = [threading.Thread(target=act) for act in (send, receive)]
    for worker in workers:
        worker.start()
    tunnels.turn(loop, lambda: client.is_closed and server.is_closed)
    for worker in workers:
        worker.join()
    assert bytes(came) == data
    assert client.program.recv(100) == hashlib.sha256(data).digest()
    assert client.program.recv(100) == b""
    assert client.cause is server.cause is None


def test_what_nobody_reads_is_held_within_one_buffer(end, pair, loop, web, db):
    client, server = joined(end, pair, web, db)
    client.program.setblocking(False)
    sent = 0
    for _ in range(2000):
        try:
            sent += client.program.send(bytes(1 << 16))
        except BlockingIOError:
            loop.turn(0.001)
    assert len(server.link._held) <= tunnel.MAX_DATA + tunnel.HEADER
    assert len(client.link._unsent) <= tunnel.MAX_DATA + tunnel.HEADER
    assert sent < 8 << 20  # what sockets and one buffer each hold
    came = 0
    server.program.setblocking(False)

    def drained():
        nonlocal came
        try:
            while piece := server.program.recv(1 << 20):
                came += len(piece)
        except BlockingIOError:
            pass
        return came == sent

    tunnels.turn(loop, drained)


def test_a_cut_is_no_end(end, loop, web, db):
    """Whoever carries the stream cuts it: the program sees a reset, not the end of a file."""
    one, other = socket.socketpair()
    client, server = end(web.ours(), web.signs), end(db.ours(), db.signs)
    carrier = other.dup()
    server.start(tunnel.TlsSide.SERVER, other)
    client.start(tunnel.TlsSide.CLIENT, one, peer=tunnels.DB, port="sql")
    tunnels.turn(loop, lambda: client.is_proven and server.is_proven)
    server.program.sendall(b"half of an ans")
    tunnels.turn(loop, lambda: ready(client.program))
    carrier.shutdown(socket.SHUT_RDWR)
    carrier.close()
    tunnels.turn(loop, lambda: client.is_closed and server.is_closed)
    assert client.code == server.code == "tunnel-cut"


def test_the_program_is_not_touched_before_both_are_proven(end, pair, loop, web, db):
    """A server whose program comes late holds the client's bytes, and the client is told when it took the connection."""
    server = end(db.ours(), db.signs)
    server.holds = True
    client, server = pair(end(web.ours(), web.signs), server)
    client.program.sendall(b"early")
    for _ in range(20):
        loop.turn(0.005)
    assert not client.link.handshake.ready
    server.connect()
    tunnels.turn(loop, lambda: client.link.handshake.ready and ready(server.program))
    assert server.program.recv(10) == b"early"


def test_who_says_nothing_is_cut(end, loop, db, monkeypatch):
    one, other = socket.socketpair()
    server = end(db.ours(), db.signs)
    server.start(tunnel.TlsSide.SERVER, other)
    monkeypatch.setattr(server.link, "_deadline", 0.0)
    tunnels.turn(loop, lambda: server.is_closed)
    assert server.code == "tunnel-cut"
    one.close()
