"""Who stands between two rooms, or has taken something from one, gets nothing: rules 19 to 23, each by its name."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from OpenSSL import SSL

from strongroom.crypto import sign
from strongroom.model import tunnel
from strongroom.model.tunnel import TlsSide, TunnelFrame, Wants
from strongroom.tunnel.tls import Credentials
from strongroom_testing import tunnels

NEVER = timedelta(days=2)


def credentials(room):
    return Credentials(now=room.clock(), random=secrets.token_bytes)


def proven(*ends):
    return [one.is_proven for one in ends]


class Between(threading.Thread):
    """Has stolen TLS keys, ends the TLS of both and passes on what is said within."""

    def __init__(self, to_client, to_server, as_server, as_client):
        super().__init__(daemon=True)
        self.client, self.server = to_client, to_server
        self.ends = [
            as_server.connection(TlsSide.SERVER, to_client),
            as_client.connection(TlsSide.CLIENT, to_server),
        ]
        self.passed = bytearray()

    def run(self):
        for link in (self.client, self.server):
            link.setblocking(False)
        deadline = time.monotonic() + tunnels.PATIENCE
        with contextlib.suppress(SSL.Error, OSError):
            for end in self.ends:
                while time.monotonic() < deadline:
                    with contextlib.suppress(SSL.WantReadError, SSL.WantWriteError):
                        end.do_handshake()
                        break
                    time.sleep(0.002)
            while time.monotonic() < deadline:
                for one, other in (self.ends, self.ends[::-1]):
                    with contextlib.suppress(SSL.WantReadError):
                        data = one.recv(1 << 16)
                        self.passed += data
                        while data:
                            data = data[other.send(data) :]
                time.sleep(0.002)
        for link in (self.client, self.server):
            link.close()


def test_rule_20_a_stolen_tls_key_with_a_live_relay(end, loop, web, db):
    """The relay has both rooms' TLS keys, and so their very certificates: only the exporters differ."""
    keys = {one.room.role: credentials(one) for one in (web, db)}
    client = end(web.ours(), web.signs, keys[tunnels.WEB])
    server = end(db.ours(), db.signs, keys[tunnels.DB])
    (one, two), (three, four) = socket.socketpair(), socket.socketpair()
    relay = Between(two, three, keys[tunnels.DB], keys[tunnels.WEB])
    relay.start()
    server.start(TlsSide.SERVER, four)
    client.start(TlsSide.CLIENT, one)
    client.program.sendall(b"a secret of the program")
    tunnels.turn(loop, lambda: client.is_closed and server.is_closed)
    relay.join()
    assert client.code == "tunnel-signature"
    assert proven(client, server) == [False, False]
    assert len(relay.passed) > 1000  # the genuine statement did pass
    assert b"a secret of the program" not in relay.passed


def test_rule_20_the_same_with_a_client_that_the_relay_plays_itself(end, pair, db, web):
    """It answers with the genuine room's hello and statement of another connection, word by word."""
    first = end(db.ours(), db.signs)
    kept = []

    def record(message):
        kept.append(db.signs(message))
        return kept[-1]

    first.signs = record
    pair(end(web.ours(), web.signs), first)
    again = end(db.ours(random=lambda _: bytes(32)), lambda _: kept[0])
    client, server = pair(end(web.ours(), web.signs), again)
    assert client.code == "tunnel-signature"
    assert proven(client, server) == [False, False]


def test_rule_21_diversion_to_a_genuine_room_of_another_contract(end, pair, world, web):
    other = tunnels.room(world, tunnels.agreement(world, id="trains"), tunnels.DB)
    client, server = pair(end(web.ours(), web.signs), end(other.ours(), other.signs))
    assert (client.code, server.code) == ("tunnel-refused", "tunnel-contract")
    assert "tunnel-contract" in client.cause.message


def test_rule_21_a_room_of_another_contract_that_claims_to_be_of_this(end, pair, world, agreement, web):
    other = tunnels.room(world, tunnels.agreement(world, id="trains"), tunnels.DB)
    client, _ = pair(end(web.ours(), web.signs), end(other.ours(contract=agreement.contract), other.signs))
    assert client.code == "tunnel-proof"
    assert not client.is_proven


def test_rule_21_diversion_to_another_run_where_one_is_meant(end, pair, world, agreement, web, db):
    another = tunnels.room(world, agreement, tunnels.DB)
    client, _ = pair(end(web.ours(), web.signs), end(another.ours(), another.signs), run=db.room.keys.run_id)
    assert client.code == "tunnel-run"
    client, server = pair(end(web.ours(), web.signs), end(db.ours(), db.signs), run=db.room.keys.run_id)
    assert proven(client, server) == [True, True]


def test_rule_21_the_proof_of_one_run_with_the_signature_of_another(end, pair, world, agreement, web, db):
    another = tunnels.room(world, agreement, tunnels.DB)
    client, _ = pair(end(web.ours(), web.signs), end(db.ours(), another.signs))
    assert client.code == "tunnel-signature"


def test_rule_21_another_room_of_the_contract_answers(end, pair, world, agreement, web):
    """A genuine second web room, to which the stream to db is led."""
    second = tunnels.room(world, agreement, tunnels.WEB)
    client, _ = pair(end(web.ours(), web.signs), end(second.ours(), second.signs))
    assert client.code == "tunnel-refused"
    client, _ = pair(end(web.ours(), web.signs), end(second.ours(role=tunnels.DB), second.signs))
    assert client.code == "tunnel-proof"
    assert "room: expected db, got web" in client.cause.message


def test_rule_23_a_binding_for_hpke_alone_relayed(end, pair, web, db):
    """Who has all that a room ever showed, but not its signing key: its own key signs, or is put into the binding."""
    own = sign.generate()
    client, _ = pair(end(web.ours(), web.signs), end(db.ours(), own.sign))
    assert client.code == "tunnel-signature"
    releases = tuple(
        replace(
            release,
            binding=replace(release.binding, keys=replace(release.binding.keys, signing=own.public.raw)),
        )
        for release in db.proof.releases
    )
    changed = tunnels.proofs(replace(db.proof, releases=releases))
    client, _ = pair(end(web.ours(), web.signs), end(db.ours(proofs=changed), own.sign))
    assert client.code == "tunnel-proof"


def test_rule_19_each_side_and_each_field_is_signed(web, db, agreement):
    signed = tunnel.StatementFacts(
        channel=tunnel.TlsFacts(exporter=bytes(32), client_leaf=bytes(32), server_leaf=bytes(32)),
        contract_digest=agreement.contract.digest,
        client_role=tunnels.WEB,
        server_role=tunnels.DB,
        port="sql",
        client_nonce=bytes(32),
        server_nonce=bytes(32),
        signer=TlsSide.CLIENT,
        sequence=0,
        proof_digest=bytes(32),
    )
    ones = b"\x01" * 32
    others = [
        replace(signed, channel=replace(signed.channel, **{name: ones}))
        for name in ("exporter", "client_leaf", "server_leaf")
    ] + [
        replace(signed, **{name: value})
        for name, value in {
            "contract_digest": "sha256:" + "1" * 64,
            "client_role": tunnels.DB,
            "server_role": tunnels.WEB,
            "port": "sq",
            "client_nonce": ones,
            "server_nonce": ones,
            "signer": TlsSide.SERVER,
            "sequence": 1,
            "proof_digest": ones,
        }.items()
    ]
    # What a field loses at its end the next one gains at its beginning.
    others.append(replace(signed, client_role="we", server_role="bdb"))
    messages = [one.message() for one in (signed, *others)]
    assert len(set(messages)) == len(messages)


def test_roles_reflected(end, loop, web):
    """Who has no key sends a room's own frames back to it."""
    one, other = socket.socketpair()
    client = end(web.ours(), web.signs)
    mirror = credentials(web).connection(TlsSide.SERVER, other)
    other.setblocking(False)
    client.start(TlsSide.CLIENT, one)
    is_up = False
    for _ in range(500):
        loop.turn(0.005)
        with contextlib.suppress(SSL.Error):
            if not is_up:
                mirror.do_handshake()
                is_up = True
            mirror.send(mirror.recv(1 << 16))
        if client.is_closed:
            break
    assert client.code == "tunnel-role"
    other.close()


def test_a_statement_of_the_other_direction_counts_for_nothing(end, pair, web, db):
    """A db room that is made to sign as a client (for a tunnel of its own) has not signed as this server."""

    def as_client(message):
        return db.signs(message.replace(b"server", b"client"))

    client, _ = pair(end(web.ours(), web.signs), end(db.ours(), as_client))
    assert client.code == "tunnel-signature"


def test_a_certificate_of_the_right_name_without_evidence(end, pair, loop, web, db, agreement, monkeypatch):
    """A client with the web room's own certificate, by its owner's authority, and its key: but no statement."""
    der = web.proof.releases[0].certificates[0]
    thief = credentials(web)
    monkeypatch.setattr(thief, "_der", der)
    monkeypatch.setattr(thief, "_key", web.room.tls)
    monkeypatch.setattr(thief, "_contexts", {side: thief._context(side) for side in TlsSide})
    client, server = end(web.ours(), sign.generate().sign, thief), end(db.ours(), db.signs)
    pair(
        client,
        server,
        until=lambda: client.is_closed and server.is_closed,
    )
    assert server.code == "tunnel-signature"
    assert client.code == "tunnel-refused"
    assert not server.is_proven


def test_who_sends_bytes_in_place_of_a_statement_is_cut(end, pair, loop, web, db):
    """It says that it is the web room, and goes on as if it had proven it."""
    server = end(db.ours(), db.signs)
    client = end(web.ours(), None)
    one, other = socket.socketpair()
    server.start(TlsSide.SERVER, other)
    client.start(TlsSide.CLIENT, one)
    tunnels.turn(loop, lambda: client.link.handshake is not None and client.link.handshake.peer is not None)
    client.link._control += tunnel.frame(TunnelFrame.DATA, b"drop table flights")
    client.link.serve()
    tunnels.turn(loop, lambda: server.is_closed)
    assert server.code == "tunnel-cut"
    assert not server.is_proven


@pytest.mark.parametrize("side", TlsSide)
def test_downgrade(end, loop, web, db, side):
    """The other end, or whoever rewrites what it says, offers TLS 1.2 at best."""
    one, other = socket.socketpair()
    mine = end(web.ours(), web.signs) if side is TlsSide.CLIENT else end(db.ours(), db.signs)
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    connection = SSL.Connection(context, other)
    (connection.set_accept_state if side is TlsSide.CLIENT else connection.set_connect_state)()
    other.setblocking(False)
    mine.start(side, one)
    for _ in range(500):
        loop.turn(0.005)
        with contextlib.suppress(SSL.Error):
            connection.do_handshake()
        if mine.is_closed:
            break
    assert mine.code == "tunnel-tls"
    other.close()


@pytest.mark.parametrize("protocols", [[], [b"http/1.1"]])
def test_a_client_of_another_protocol(end, loop, db, protocols):
    one, other = socket.socketpair()
    server = end(db.ours(), db.signs)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if protocols:
        context.set_alpn_protos(protocols)
    connection = SSL.Connection(context, other)
    connection.set_connect_state()
    other.setblocking(False)
    server.start(TlsSide.SERVER, one)
    for _ in range(500):
        loop.turn(0.005)
        with contextlib.suppress(SSL.Error):
            connection.do_handshake()
        if server.is_closed:
            break
    assert server.code == "tunnel-tls"
    other.close()


def test_rule_22_no_session_is_resumed(end, loop, web, db):
    """A client that offers what it kept of its last connection does the whole handshake again."""
    keys, kept = credentials(web), None
    for _ in range(2):
        one, other = socket.socketpair()
        server = end(db.ours(), db.signs)
        server.start(TlsSide.SERVER, other)
        connection = keys.connection(TlsSide.CLIENT, one)
        one.setblocking(False)
        if kept is not None:
            connection.set_session(kept)
        is_up = False
        for _ in range(500):
            loop.turn(0.005)
            with contextlib.suppress(SSL.WantReadError):
                if not is_up:
                    connection.do_handshake()
                    is_up = True
                connection.recv(1)
            if server.link.handshake is not None:
                break
        kept = connection.get_session()
        assert SSL._lib.SSL_session_reused(connection._ssl) == 0
        assert server.link._tls.get_peer_certificate(as_cryptography=True) is not None
        one.close()


def test_rule_22_a_tunnel_ends_with_the_verdict(end, pair, loop, web, db):
    late = {"now": web.clock()}
    client, server = pair(end(web.ours(now=lambda: late["now"]), web.signs), end(db.ours(), db.signs))
    assert client.is_proven
    late["now"] = client.peer.expires
    tunnels.turn(loop, lambda: client.is_closed and server.is_closed)
    assert (client.code, server.code) == ("tunnel-expired", "tunnel-refused")


def test_rule_22_no_tunnel_is_made_after_the_verdict(end, pair, web, db):
    client, _ = pair(end(web.ours(judge=_late(web)), web.signs), end(db.ours(), db.signs))
    assert client.code == "tunnel-expired"


def _late(room):
    from strongroom.tunnel import records

    contract = room.room.agreement.contract
    return lambda data, role: records.verify(data, contract, role, now=room.clock() + NEVER)


def test_rule_22_a_renewal_keeps_the_tunnel(end, pair, loop, web, db):
    late, later = {"now": web.clock()}, timedelta(minutes=1)
    client, server = pair(end(web.ours(now=lambda: late["now"]), web.signs), end(db.ours(), db.signs))
    before = client.peer.expires
    server.link.renew(tunnels.proofs(db.renewed(later)))
    tunnels.turn(loop, lambda: client.link.handshake.peer.expires == before + later)
    late["now"] = before
    client.link.check_time(0)
    assert not client.is_closed
    late["now"] = before + later
    client.link.check_time(0)
    assert client.code == "tunnel-expired"


def test_a_renewal_by_another_run_is_refused(end, pair, loop, world, agreement, web, db):
    another = tunnels.room(world, agreement, tunnels.DB)
    client, server = pair(end(web.ours(), web.signs), end(db.ours(), db.signs))
    server.signs = another.signs
    server.link.renew(tunnels.proofs(another.proof))
    tunnels.turn(loop, lambda: client.is_closed)
    assert client.code == "tunnel-run"


def test_a_statement_does_not_come_twice(end, pair, loop, web, db):
    client, server = pair(end(web.ours(), web.signs), end(db.ours(), db.signs))
    server.link.handshake._own_next = 0
    server.link.renew(server.ours.proofs)
    server.link.handshake._own_next = 1
    server.link.handshake.renew(server.ours.proofs)
    server.link.handshake.to_sign = replace(server.link.handshake.to_sign, sequence=0)
    server.link.serve()
    tunnels.turn(loop, lambda: client.is_closed)
    assert client.code == "tunnel-order"


@pytest.mark.parametrize(
    ("who", "whom", "port", "may"),
    [
        ("web", "db", "sql", True),
        ("web", "db", "admin", False),
        ("web", "db", "nothing", False),
        ("db", "web", "http", False),
        ("", "web", "http", True),
        ("", "db", "sql", False),
        ("", "db", "admin", True),
    ],
)
def test_the_contract_says_who_comes_where(end, pair, both, who, whom, port, may):
    rooms, agreement = both, both["web"].room.agreement
    web = rooms["web"]
    ours = rooms[who].ours() if who else tunnels.outside(agreement, web.clock)
    client, server = pair(
        end(ours, rooms[who].signs if who else None),
        end(rooms[whom].ours(), rooms[whom].signs),
        peer=rooms[whom].room.role,
        port=port,
    )
    assert (client.is_proven, server.is_proven) == (may, may)
    if not may:
        assert (client.code, server.code) == ("tunnel-refused", "tunnel-port")


def test_an_open_port_is_for_those_outside_too(end, pair, world):
    from strongroom.model.contracts import network_terms

    signed = tunnels.agreement(
        world, id="open", db={"ports": (network_terms.Port(name="sql", number=5432, open=True),)}
    )
    db = tunnels.room(world, signed, tunnels.DB)
    client, server = pair(end(tunnels.outside(signed, db.clock)), end(db.ours(), db.signs))
    assert proven(client, server) == [True, True]
    assert server.peer is None
    assert client.peer.run_id == db.room.keys.run_id


def test_who_is_outside_shows_nothing_and_cannot(end, pair, loop, agreement, web):
    """A statement of who said that it is no room is out of order."""
    client, server = pair(
        end(tunnels.outside(agreement, web.clock)), end(web.ours(), web.signs), peer=tunnels.WEB, port="http"
    )
    statement = tunnel.RoomStatement(sequence=0, signature=bytes(64), proof=web.proof.encode(Wants.RECORDS))
    client.link._control += tunnel.frame(TunnelFrame.STATEMENT, statement.encode())
    client.link.serve()
    tunnels.turn(loop, lambda: server.is_closed)
    assert server.code == "tunnel-order"
