"""The states of a handshake, without TLS beneath: what comes out of its order, or for somebody else, is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.errors import Refused
from strongroom.model import tunnel
from strongroom.model.tunnel import TlsSide, TunnelFrame, Wants
from strongroom.tunnel.handshake import Handshake
from strongroom_testing import tunnels

CHANNEL = tunnel.TlsFacts(exporter=b"e" * 32, client_leaf=b"c" * 32, server_leaf=b"s" * 32)


def client(room, **changes):
    return Handshake(room.ours(**changes), CHANNEL, TlsSide.CLIENT, peer=tunnels.DB, port="sql")


def server(room, **changes):
    return Handshake(room.ours(**changes), CHANNEL, TlsSide.SERVER, peer=tunnel.OUTSIDE, port="")


def frames(end):
    """What it says, frame by frame."""
    data, out = bytes(end.outgoing), []
    end.outgoing.clear()
    while data:
        kind, length = tunnel.parse_header(data[: tunnel.HEADER], wants=Wants.EVIDENCE)
        out.append((kind, data[tunnel.HEADER : tunnel.HEADER + length]))
        data = data[tunnel.HEADER + length :]
    return out


def say(end, other, room):
    """Have `end`, of `room`, sign what it has to, and the other take all of what it says."""
    if end.to_sign is not None:
        end.signed(room.signs(end.to_sign.message()))
    for kind, payload in frames(end):
        other.take(kind, payload)


@pytest.fixture
def both_ends(web, db):
    return client(web), server(db)


def refused(code, act):
    with pytest.raises(Refused) as caught:
        act()
    assert caught.value.code == code
    return caught.value


def test_each_proves_itself_in_three_steps(both_ends, web, db):
    one, other = both_ends
    say(one, other, web)
    assert other.to_sign.role == "db"
    say(other, one, db)
    assert one.peer.role == "db"
    assert not one.done
    assert one.to_sign.role == "web"
    say(one, other, web)
    assert (one.done, other.done, other.peer.role) == (True, True, "web")
    one.take(TunnelFrame.READY, b"")
    assert one.ready


@pytest.mark.parametrize("kind", [TunnelFrame.STATEMENT, TunnelFrame.READY])
def test_nothing_comes_before_the_hello(both_ends, kind):
    for end in both_ends:
        refused("tunnel-order", lambda end=end: end.take(kind, bytes(80)))


def test_nothing_comes_twice(both_ends, web, db):
    one, other = both_ends
    ((kind, hello),) = frames(one)
    other.take(kind, hello)
    refused("tunnel-order", lambda: other.take(kind, hello))
    say(other, one, db)
    say(one, other, web)
    one.take(TunnelFrame.READY, b"")
    refused("tunnel-order", lambda: one.take(TunnelFrame.READY, b""))
    refused("tunnel-order", lambda: other.take(TunnelFrame.READY, b""))


def test_a_signature_that_nobody_asked_for(both_ends):
    refused("tunnel-order", lambda: both_ends[0].signed(bytes(64)))


def test_a_room_is_not_its_own_peer(db):
    ((kind, hello),) = frames(client(db))
    refused("tunnel-role", lambda: server(db).take(kind, hello))


@pytest.mark.parametrize(("field", "value"), [("role", "web"), ("port", "admin"), ("peer", "db")])
def test_a_server_that_answers_for_something_else(both_ends, field, value, db):
    one, other = both_ends
    ((kind, hello),) = frames(one)
    other.take(kind, hello)
    other.signed(db.signs(other.to_sign.message()))
    kind, answer = frames(other)[0]
    lied = replace(tunnel.parse_hello(answer), **{field: value})
    refused("tunnel-role", lambda: one.take(kind, lied.encode()))


def test_a_proof_that_is_judged_to_be_of_another_role(web, db):
    one, other = client(web), server(db)
    judge = one._ours.judge
    one._ours = replace(one._ours, judge=lambda data, role: replace(judge(data, role), role="web"))
    say(one, other, web)
    refused("tunnel-role", lambda: say(other, one, db))


def test_a_renewal_that_comes_while_another_is_signed_is_shown_too(both_ends, web, db):
    one, other = both_ends
    say(one, other, web)
    say(other, one, db)
    say(one, other, web)
    other.renew(other._ours.proofs)
    first = other.to_sign
    other.renew(other._ours.proofs)
    assert other.to_sign is first
    say(other, one, db)
    assert other.to_sign.sequence == first.sequence + 1
    say(other, one, db)
    assert one._theirs == 3
