"""TLS of the agent's own to a host outside: whom it believes, and what a cut is."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading

import pytest

from strongroom.agent.network import tls
from strongroom.model.contracts.network_terms import Egress
from strongroom.streams.poll import Poll
from tests.unit.agent.tls_hosts import Authority

HOST = "api.example"


class Bridge:
    """A program's socket, a bridge, and the host at the other end in a thread."""

    def __init__(self, authority, serve):
        self.poll, self.failures = Poll(), []
        self.program, inner = socket.socketpair()
        self.program.settimeout(30)
        egress = Egress(host=HOST, port=443, authority=authority)
        wire = tls.bridged(self.poll, inner, egress, self.failures.append)
        self.host = threading.Thread(target=serve, args=(wire,), daemon=True)
        self.ends = threading.Event()
        self.turning = threading.Thread(target=self._turn)
        self.host.start()
        self.turning.start()

    def _turn(self):
        while not self.ends.is_set():
            self.poll.turn(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.close()
        self.host.join(30)
        self.ends.set()
        self.turning.join(30)
        self.poll.close()

    def answer(self):
        """What the program receives until the end, or a reset."""
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.program.recv(1 << 16):
                got += data
        return got


def everything(connection):
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_each_direction_arrives_whole(most, size):
    authority, got = Authority(), []

    def serve(connection):
        while len(b"".join(got)) < size:
            got.append(connection.recv(1 << 16))
        connection.sendall(b"a" * size)

    with Bridge(authority.der, authority.serving(HOST, serve, most=most)) as bridge:
        bridge.program.sendall(b"q" * size)
        assert bridge.answer() == b"a" * size
    assert b"".join(got) == b"q" * size
    assert bridge.failures == []


def test_a_program_that_ends_first_gets_its_answer_still():
    authority = Authority()

    def serve(connection):
        question = everything(connection)
        connection.sendall(question * 2)

    with Bridge(authority.der, authority.serving(HOST, serve, most=ssl.TLSVersion.TLSv1_3)) as bridge:
        bridge.program.sendall(b"question")
        bridge.program.shutdown(socket.SHUT_WR)
        got = b""
        while len(got) < 16:
            got += bridge.program.recv(100)
    assert got == b"questionquestion"


@pytest.mark.parametrize(
    ("served_by", "host", "settings", "why"),
    [
        ("other", HOST, {}, "unable to get local issuer certificate|self-signed|signature failure"),
        ("own", "other.example", {}, "Hostname mismatch"),
        ("own", HOST, {"days": -1}, "certificate has expired"),
        ("own", HOST, {"most": ssl.TLSVersion.TLSv1_1}, "TLS: "),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_whoever_the_contracts_authority_does_not_vouch_for_gets_nothing(served_by, host, settings, why):
    own, other = Authority(), Authority()
    served = []
    whose = own if served_by == "own" else other
    with Bridge(
        own.der, whose.serving(host, lambda connection: served.append(everything(connection)), **settings)
    ) as bridge:
        with contextlib.suppress(BrokenPipeError):
            bridge.program.sendall(b"secret")
        assert bridge.answer() == b""
    assert len(bridge.failures) == 1
    assert re.search(why, bridge.failures[0])
    assert served in ([], [b""])


def test_an_authority_that_is_no_certificate_reaches_nobody():
    with Bridge(b"junk", lambda wire: wire.close()) as bridge:
        assert bridge.answer() == b""
    assert "its authority" in bridge.failures[0]


def test_what_is_cut_off_is_no_end():
    """Without TLS's own end, what came so far may be less than all."""
    authority = Authority()

    def serve(connection):
        connection.sendall(b"half of")
        connection.shutdown(socket.SHUT_RDWR)

    with Bridge(authority.der, authority.serving(HOST, serve)) as bridge:
        bridge.answer()
    assert bridge.failures == ["TLS: it was cut off"]
