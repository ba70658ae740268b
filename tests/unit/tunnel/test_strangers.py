"""Strangers at a tunnel's port: whatever one of them sends, it ends no tunnel but its own, and holds little of the room's memory."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket

from OpenSSL import SSL, crypto

from strongroom.crypto import tls as tls_keys
from strongroom.model import tunnel
from strongroom.model.tunnel import TlsSide, TunnelFrame, Wants
from strongroom.tunnel import link
from strongroom.tunnel.tls import Credentials
from strongroom_testing import tunnels


def credentials(room):
    return Credentials(now=room.clock(), random=secrets.token_bytes)


def odd_certificate(room):
    """The context of a client whose certificate is of a version that OpenSSL takes and no other library does."""
    shown = credentials(room)
    at = shown._der.index(bytes.fromhex("a003020102")) + 4
    data = shown._der[:at] + b"\x07" + shown._der[at + 1 :]
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([tunnel.ALPN])
    parsed = crypto.load_certificate(crypto.FILETYPE_ASN1, data)
    assert SSL._lib.SSL_CTX_use_certificate(context._context, parsed._x509) == 1
    context.use_privatekey(tls_keys.load(shown._key))
    return context


def test_a_certificate_that_no_library_parses_ends_no_other_tunnel(end, pair, loop, web, db):
    """One handshake of a stranger's ended the process, and with it every tunnel of the room, for good."""
    client, server = pair(end(web.ours(), web.signs), end(db.ours(), db.signs))
    odd = end(db.ours(), db.signs)
    one, other = socket.socketpair()
    stranger = SSL.Connection(odd_certificate(web), one)
    stranger.set_connect_state()
    one.setblocking(False)
    odd.start(TlsSide.SERVER, other)
    for _ in range(500):
        loop.turn(0.005)
        with contextlib.suppress(SSL.WantReadError):
            stranger.do_handshake()
        if odd.link.handshake is not None or odd.is_closed:
            break
    assert odd.link.handshake is not None  # what it shows counts for nothing, and so is looked at by nobody
    client.program.sendall(b"select 1")
    tunnels.turn(loop, lambda: bool(select.select([server.program], [], [], 0)[0]))
    assert server.program.recv(100) == b"select 1"
    one.close()


def test_what_nobody_foresaw_of_one_tunnel_ends_no_other(end, pair, loop, web, db, monkeypatch):
    client, server = pair(end(web.ours(), web.signs), end(db.ours(), db.signs))
    victim, struck = pair(end(web.ours(), web.signs), end(db.ours(), db.signs))

    def defect():
        raise KeyError("a field that nobody looked for")

    monkeypatch.setattr(struck.link, "_outgoing", defect)
    victim.program.sendall(b"x")
    tunnels.turn(loop, lambda: struck.is_closed)
    assert struck.code == "tunnel-cut"
    assert "KeyError" in struck.cause.message
    assert "nobody looked" not in struck.cause.message
    assert not server.is_closed
    client.program.sendall(b"select 1")
    tunnels.turn(loop, lambda: bool(select.select([server.program], [], [], 0)[0]))
    assert server.program.recv(100) == b"select 1"


def test_statements_that_never_come_to_their_end_hold_little_in_all(end, loop, web, db):
    """Each is of 1 MiB at most, of somebody who has proven nothing; a thousand of them would be more than the room keeps for itself."""
    ends, kept = [], []
    start = tunnel.header(TunnelFrame.STATEMENT, tunnel.MAX_RECORDS) + bytes(tunnel.MAX_RECORDS - 1)
    for _ in range(link.MOST_BEYOND // tunnel.MAX_RECORDS + 4):
        one, other = socket.socketpair()
        server, stranger = end(db.ours(), db.signs), credentials(web).connection(TlsSide.CLIENT, one)
        one.setblocking(False)
        server.start(TlsSide.SERVER, other)
        is_up, left = False, b""
        for _ in range(4000):
            loop.turn(0.001)
            with contextlib.suppress(SSL.Error):
                if not is_up:
                    stranger.do_handshake()
                    is_up = True
                    left = hello(db) + start
                with contextlib.suppress(SSL.WantReadError):
                    stranger.recv(1 << 16)
                left = left[stranger.send(left[: 1 << 16]) :]
            if (is_up and not left) or server.is_closed:
                break
        ends.append(server)
        kept.append((one, stranger))
        held = sum(each.link._frames.held for each in ends if not each.is_closed)
        assert held <= link.MOST_BEYOND + len(ends) * link.BUFFER
    assert [each.is_closed for each in ends].count(True) >= 3
    assert not any(each.is_closed for each in ends[:4])
    for one, _ in kept:
        one.close()
    tunnels.turn(loop, lambda: all(each.is_closed for each in ends))
    assert loop.beyond == 0


def hello(db):
    said = tunnel.Hello(
        contract_digest=db.room.agreement.contract.digest,
        role=tunnels.WEB,
        peer=tunnels.DB,
        port="sql",
        nonce=bytes(32),
        wants=Wants.RECORDS,
    )
    return tunnel.frame(TunnelFrame.HELLO, said.encode())
