"""The process that ends a room's tunnels, and the agent's side of it: two rooms, each with a process of its own."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.agent import attest
from strongroom.agent.network import places, waiting
from strongroom.agent.network import tunnels as agents_side
from strongroom.crypto import sign
from strongroom.errors import Malformed, Unavailable
from strongroom.model import messages, tunnel
from strongroom.model.room import channel as wire
from strongroom.model.room.destination import Kind, Reason
from strongroom.streams.loop import Loop
from strongroom.streams.mux import Side
from strongroom.streams.poll import Poll
from strongroom.streams.socket_end import SocketEnd
from strongroom_testing import packs, tunnels

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    with packs.world(tmp_path_factory.mktemp("tunnels")) as world:
        signed = tunnels.agreement(world)
        yield {role: tunnels.room(world, signed, role) for role in (tunnels.WEB, tunnels.DB)}


def released(room):
    """As the agent has it."""
    return [
        attest.Released(
            party=release.party,
            binding=release.binding,
            evidence=release.evidence,
            answer=messages.ReleaseAnswer(
                sealed=b"",
                watch=b"",
                certificates=release.certificates,
                ledger=release.ledger,
                endorsements=release.endorsements,
            ),
            disk_keys={},
            moment=room.clock(),
            asked=time.monotonic(),
            heard=time.monotonic(),
        )
        for release in room.proof.releases
    ]


def start(room):
    names = [wire.SERIAL_IMAGE, wire.data_serial(0)]
    return wire.Start(
        agreement=room.room.agreement.encode(),
        room=room.room.role,
        launch_record=b"",
        issuers=b"",
        manifests=dict(zip(names, room.proof.manifests, strict=True)),
    )


class RoomSide:
    """A room's agent with its process, its program an echo that counts connections."""

    def __init__(self, room, *, signing=None):
        self.room = room
        self.carrier = Poll()
        self.tunnels = agents_side.spawn()
        keys = attest.Keys(
            signing=signing or room.room.signing, tls=room.room.tls, kem=room.room.kem, public=room.room.keys
        )
        self.tunnels.begin(
            self.carrier, start(room), room.room.agreement.contract.digest, keys, released(room)
        )
        own = room.room.agreement.contract.room(room.room.role)
        self.tunnels.lead_to(own.ports, self.to_program)
        self.ways = places.outward(room.room.agreement.contract, own)
        self.joined, self.programs = [], []

    def to_program(self, number, connected, failed):
        self.joined.append(number)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            self.programs.append(listener.accept()[0])
        connected(one)

    def close(self):
        self.tunnels.close()
        self.carrier.close()
        for program in self.programs:
            program.close()


@pytest.fixture
def side(rooms):
    made = []

    def make(role, **options):
        made.append(RoomSide(rooms[role], **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def carry(one, other):
    """What node and channel do: bytes both ways, of two sockets, until both have ended."""

    def pass_on(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, target):
                end.close()

    for pair in ((one, other), (other, one)):
        threading.Thread(target=pass_on, args=pair, daemon=True).start()


def turn(sides, until):
    deadline = time.monotonic() + tunnels.PATIENCE
    while not until():
        assert time.monotonic() < deadline, "what was waited for never came"
        for side in sides:
            side.carrier.turn(0.01)


def dial(web, db):
    """A connection of web's program to db, and what carries it."""
    program, taken = socket.socketpair()
    program.settimeout(tunnels.PATIENCE)
    outer, inner = web.tunnels.peer_end(taken, web.ways[0]), db.tunnels.tunnel_end()
    carry(outer, inner)
    return program, outer, inner


def test_two_rooms_speak(side):
    web, db = side(tunnels.WEB), side(tunnels.DB)
    program, outer, inner = dial(web, db)
    program.sendall(b"select 1")
    turn((web, db), lambda: db.programs and "db:sql" in web.tunnels.ready)
    assert db.joined == [5432]
    database = db.programs[0]
    database.settimeout(tunnels.PATIENCE)
    assert database.recv(100) == b"select 1"
    database.sendall(b"1")
    database.shutdown(socket.SHUT_WR)
    assert program.recv(100) == b"1"
    assert program.recv(100) == b""
    for link in (program, outer, inner):
        link.close()


def test_who_has_not_the_attested_key_reaches_no_program(side):
    """The agent of the other room signs by another key than the one that its brokers recorded."""
    web, db = side(tunnels.WEB, signing=sign.generate()), side(tunnels.DB)
    program, outer, inner = dial(web, db)
    program.sendall(b"select 1")
    turn((web, db), lambda: bool(select.select([program], [], [], 0)[0]))
    with contextlib.suppress(ConnectionResetError):
        assert program.recv(1) == b""
    assert db.joined == []
    assert web.tunnels.ready == set()
    for link in (program, outer, inner):
        link.close()


def test_a_renewal_reaches_the_process(side, rooms):
    web, db = side(tunnels.WEB), side(tunnels.DB)
    program, outer, inner = dial(web, db)
    turn((web, db), lambda: "db:sql" in web.tunnels.ready)
    signatures = []
    before = db.tunnels._signer.sign
    db.tunnels._signer = replace(
        db.tunnels._signer, sign=lambda message: signatures.append(message) or before(message)
    )
    db.tunnels.renew(released(rooms[tunnels.DB]))
    turn((web, db), lambda: signatures)
    program.sendall(b"still")
    db.programs[0].settimeout(tunnels.PATIENCE)
    assert db.programs[0].recv(10) == b"still"
    for link in (program, outer, inner):
        link.close()


def test_the_agent_signs_for_its_own_room_alone(rooms):
    room = rooms[tunnels.DB]
    signer = agents_side.StatementSigner(
        contract_digest=room.room.agreement.contract.digest, role=tunnels.DB, sign=room.room.signing.sign
    )
    facts = tunnel.StatementFacts(
        channel=tunnel.TlsFacts(exporter=bytes(32), client_leaf=bytes(32), server_leaf=bytes(32)),
        contract_digest=signer.contract_digest,
        client_role=tunnels.WEB,
        server_role=tunnels.DB,
        port="sql",
        client_nonce=bytes(32),
        server_nonce=bytes(32),
        signer=tunnel.TlsSide.SERVER,
        sequence=0,
        proof_digest=bytes(32),
    )
    assert len(signer.statement(facts)) == 64
    for other in (
        replace(facts, signer=tunnel.TlsSide.CLIENT),
        replace(facts, server_role=tunnels.WEB),
        replace(facts, contract_digest="sha256:" + "0" * 64),
    ):
        with pytest.raises(Malformed, match="as another room"):
            signer.statement(other)


def test_the_process_has_no_rights_and_nothing_of_the_agents(side):
    """Another user, no file of the agent's but the socket, and no key: it was forked before there was one."""
    secret, other = os.pipe()
    db = side(tunnels.DB)
    folder = Path(f"/proc/{db.tunnels.pid}")
    turn((db,), lambda: "\nUid:\t65533\t65533\t65533\t65533\n" in (folder / "status").read_text())
    status = (folder / "status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    files = [str(fd.readlink()) for fd in (folder / "fd").iterdir()]
    assert f"pipe:[{os.fstat(secret).st_ino}]" not in files
    os.close(secret)
    os.close(other)


def test_a_process_that_ends_is_noticed(side):
    db = side(tunnels.DB)
    os.kill(db.tunnels.pid, 9)
    turn((db,), lambda: db.tunnels.is_lost)
    own = db.tunnels.tunnel_end()
    own.settimeout(tunnels.PATIENCE)
    assert own.recv(1) == b""
    own.close()


class Lead:
    """A node that leads a room's streams to another room, from the `after`th on; those before reach nobody."""

    def __init__(self, web, db, after):
        ours, theirs = socket.socketpair()
        self.ours, self.theirs = ours, theirs
        self.carrier = Loop(ours.fileno(), Side.ROOM, print)
        self.node = Loop(theirs.fileno(), Side.NODE, print)
        self.asked, self.after, self.db = 0, after, db
        self.node.listen(Kind.PEER, self.answer)
        web.carrier.close()
        web.carrier = self.carrier
        self.carrier.watch(web.tunnels._control.fileno(), web.tunnels._receive)
        self.is_over = threading.Event()
        self.worker = threading.Thread(target=self.run, daemon=True)
        self.worker.start()

    def answer(self, stream, _name):
        self.asked += 1
        if self.asked < self.after:
            return Reason.REFUSED
        end = SocketEnd(self.node)
        end.attach(stream, self.db.tunnels.tunnel_end())
        stream.accept()
        return end

    def run(self):
        while not self.is_over.is_set():
            self.node.turn(0.01)
            self.db.carrier.turn(0.01)

    def close(self):
        self.is_over.set()
        self.worker.join()
        self.node.close()
        for link in (self.ours, self.theirs):
            link.close()


def test_a_program_waits_until_its_peers_program_takes_a_connection(side, monkeypatch):
    """The first two attempts lead nowhere, and at the third the other program is not there yet."""
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.05)
    web, db = side(tunnels.WEB), side(tunnels.DB)
    node = Lead(web, db, after=3)
    absent, to_program = [1], db.to_program

    def reluctant(number, connected, failed):
        if absent:
            absent.pop()
            failed()
        else:
            to_program(number, connected, failed)

    db.tunnels.lead_to(db.room.room.agreement.contract.room("db").ports, reluctant)
    waited = []
    try:
        waiting.await_peers(web.carrier, web.tunnels, web.ways, on_wait=lambda peer: waited.append(peer.room))
        assert waited == ["db"]
        assert node.asked == 4
        assert db.joined == [5432]
        turn((web,), lambda: bool(select.select([db.programs[0]], [], [], 0)[0]))
        assert db.programs[0].recv(1) == b""  # which saw a connection, and its end
    finally:
        node.close()


def test_waiting_ends_with_the_tunnels_process(side):
    web, db = side(tunnels.WEB), side(tunnels.DB)
    node = Lead(web, db, after=1000)
    os.kill(web.tunnels.pid, 9)
    try:
        with pytest.raises(Unavailable, match="the process of the tunnels ended"):
            waiting.await_peers(web.carrier, web.tunnels, web.ways, on_wait=lambda _peer: None)
    finally:
        node.close()
