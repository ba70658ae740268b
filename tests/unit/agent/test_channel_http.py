"""The channel, and HTTP over pinned TLS through it, against a real TLS server."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.agent import channel as channel_module
from strongroom.agent import http
from strongroom.errors import Malformed, NotFound, Refused, Unavailable
from strongroom.model.party import BROKER_URL, BrokerAddress
from strongroom.model.room import channel as wire
from tests.effort import examples
from tests.unit.agent.node_end import NodeEnd, TlsServer


@contextlib.contextmanager
def broker(tmp_path, handler, **options):
    server = TlsServer(tmp_path, handler, **options)
    node = NodeEnd({"alice": server.address})
    address = BrokerAddress(
        url="https://broker.example:7443", pin=server.pin, ledger_key=bytes(32), authority=server.pin
    )
    try:
        yield node, address, server
    finally:
        node.close()
        server.close()


@examples(300)
@given(st.from_regex(BROKER_URL, fullmatch=True))
@example("https://.x:1")
@example("https://a..b:1")
@example("https://" + "x" * 64 + ".c:1")
def test_no_address_that_a_contract_may_hold_is_a_defect(url):
    """A counterparty names its broker; the room that is to ask it ends with a reason, not with a traceback."""

    class Nobody:
        def open_stream(self, _party):
            raise Unavailable("nobody there")

    if BROKER_URL.fullmatch(url) is None:
        return
    address = BrokerAddress(url=url, pin="sha256:" + "0" * 64, ledger_key=bytes(32), authority="")
    with pytest.raises(Unavailable, match="nobody there"):
        http.BrokerConnection(Nobody(), "bob", address, timeout=1)


def echo(path, body):
    return 200, path.encode() + b" " + body


def test_several_requests_on_one_connection(tmp_path):
    with broker(tmp_path, echo) as (node, address, server):
        connection = http.BrokerConnection(node.channel, "alice", address, timeout=60)
        for body in (b"{}", b"x" * 300_000, b""):
            answer = connection.post("/v1/x", body, max_answer=400_000, timeout=60)
            assert (answer.status, answer.body) == (200, b"/v1/x " + body)
        connection.close()
        assert b"Host: broker.example:7443" in server.requests[0][1]


def test_a_certificate_of_any_age_does_when_its_key_is_pinned(tmp_path):
    with broker(tmp_path, echo, lifetime_days=-500) as (node, address, _):
        assert http.BrokerConnection(node.channel, "alice", address, timeout=60)


def test_another_key_is_refused_before_a_byte_is_sent(tmp_path):
    with broker(tmp_path, echo) as (node, address, server):
        other = BrokerAddress(
            url=address.url, pin="sha256:" + "0" * 64, ledger_key=bytes(32), authority=address.pin
        )
        with pytest.raises(Refused) as caught:
            http.BrokerConnection(node.channel, "alice", other, timeout=60)
        assert caught.value.code == "wrong-pin"
        assert server.requests == []


def test_older_tls_is_refused(tmp_path):
    with (
        broker(tmp_path, echo, maximum=ssl.TLSVersion.TLSv1_2) as (node, address, _),
        pytest.raises(Unavailable, match="TLSV1_ALERT_PROTOCOL_VERSION"),
    ):
        http.BrokerConnection(node.channel, "alice", address, timeout=60)


def test_an_absent_broker_is_unavailable_and_says_so(tmp_path):
    with broker(tmp_path, echo) as (node, address, _), pytest.raises(Unavailable, match="cannot be reached"):
        http.BrokerConnection(node.channel, "bob", address, timeout=60)


def test_a_broker_that_dies_in_mid_answer(tmp_path):
    with broker(tmp_path, lambda path, body: None) as (node, address, _):
        connection = http.BrokerConnection(node.channel, "alice", address, timeout=60)
        with pytest.raises(Unavailable, match="the broker of alice cannot be reached, or closed the"):
            connection.post("/", b"", max_answer=10, timeout=60)


def test_a_silent_broker_times_out(tmp_path):
    with broker(tmp_path, lambda path, body: (time.sleep(2), None)[1]) as (node, address, _):
        connection = http.BrokerConnection(node.channel, "alice", address, timeout=60)
        with pytest.raises(Unavailable, match="nothing came in time"):
            connection.post("/", b"", max_answer=10, timeout=0.3)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0", "not an HTTP/1.1 answer"),
        (b"HTTP/1.1 200 OK", "expected a length of at most 100 bytes"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 0",
            "a content length that is no number, or there twice",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1", "a content length that is no number, or there twice"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: +1", "a content length that is no number, or there twice"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 101", "expected a length of at most 100 bytes"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "a transfer encoding, where a plain length is expected",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n folded: x", "a header that is none"),
        (b"HTTP/1.1 099 OK\r\ncontent-length: 1", "not an HTTP/1.1 answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length : 1", "a header that is none"),
        (b"", "not an HTTP/1.1 answer"),
    ],
)
def test_heads_that_are_refused(head, why):
    with pytest.raises(Malformed, match=why):
        http.parse_head(head, max_answer=100)


def test_head_that_is_taken():
    assert http.parse_head(b"HTTP/1.1 403 Forbidden\r\ndate: now\r\nContent-Length: 100", max_answer=100) == (
        403,
        100,
    )


def test_an_endless_head_is_cut_off(tmp_path):
    with broker(tmp_path, lambda path, body: b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000) as (
        node,
        address,
        _,
    ):
        connection = http.BrokerConnection(node.channel, "alice", address, timeout=60)
        with pytest.raises(Malformed, match="its head is too long"):
            connection.post("/", b"", max_answer=10, timeout=60)


def test_controls_and_files_arrive():
    node = NodeEnd({})
    try:
        node.control(kind="start")
        assert node.channel.receive_control(60) == b'{"kind": "start"}'
        big = os.urandom(1_000_000)
        node.channel.send_file("out-0.tar.age", big)
        node.channel.send_control("done")
        for _ in range(3000):
            if {"kind": "done"} in node.controls:
                break
            time.sleep(0.02)
        assert node.files["out-0.tar.age"] == big
    finally:
        node.close()


def test_no_message_in_time():
    node = NodeEnd({})
    try:
        with pytest.raises(Unavailable, match="nothing came in time"):
            node.channel.receive_control(0.1)
    finally:
        node.close()


def test_both_sides_may_write_at_once():
    """A node that writes before it reads must not stop an agent that writes, too."""
    node = NodeEnd({})
    try:
        stream = node.channel.open_stream("nobody")
        flood = threading.Thread(
            target=lambda: [node.send(wire.FrameType.DATA, 999, bytes(60_000)) for _ in range(50)],
            daemon=True,
        )
        flood.start()
        for _ in range(50):
            stream.write(bytes(60_000))
        # An agent that has done its part reads no more, and the node would wait for it for ever.
        while flood.is_alive():
            stream.write(bytes(60_000))
    finally:
        node.close()


@pytest.mark.parametrize("kind", ["control", "data"])
def test_a_flooding_node_is_cut_off(kind):
    node = NodeEnd({})
    try:
        stream = node.channel.open_stream("nobody")
        stream.ended = False

        def flood():
            with contextlib.suppress(OSError):
                for _ in range(400):
                    if kind == "control":
                        node.control(kind="start")
                    else:
                        node.send(wire.FrameType.DATA, stream.id, bytes(60_000))

        threading.Thread(target=flood, daemon=True).start()

        def pump():
            while True:
                node.channel.pump(time.monotonic() + 5, "a flood")

        with pytest.raises(Malformed) as caught:
            pump()
        assert caught.value.code == "flooded"
    finally:
        node.close()


def test_port_is_found_by_its_name(tmp_path):
    for entry, name in (("vport0p0", "\n"), ("vport1p1", "strongroom\n")):
        (tmp_path / entry).mkdir()
        (tmp_path / entry / "name").write_text(name)
    assert channel_module.find_port(str(tmp_path)) == "/dev/vport1p1"
    with pytest.raises(NotFound, match="no virtio-serial port is named 'strongroom'"):
        channel_module.find_port(str(tmp_path / "absent"))
