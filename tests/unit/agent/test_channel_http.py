"""The channel, and HTTP over pinned TLS through it, against a real TLS server."""

from __future__ import annotations

import contextlib
import os
import socket
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
from strongroom.streams import mux
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
        stream = node.channel.open_file("out-0.tar.age")
        refused = node.channel.open_stream("nobody")
        flood = threading.Thread(
            target=lambda: [
                node.send(wire.FrameType.DATA, refused._stream.number, bytes(30_000)) for _ in range(100)
            ],
            daemon=True,
        )
        while not refused.is_ended:
            node.channel.pump(time.monotonic() + 60, "the refusal")
        flood.start()
        for _ in range(50):
            stream.write(bytes(60_000))
        # An agent that has done its part reads no more, and the node would wait for it for ever.
        while flood.is_alive():
            stream.write(bytes(60_000))
    finally:
        node.close()


class Wire:
    """A node that says what a test says, byte for byte, and the agent's channel to it."""

    def __init__(self):
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(60)
        self.channel = channel_module.Channel(theirs.detach(), ends=True)
        self.decoder = wire.Decoder()

    def send(self, type, stream, payload=b""):
        self.sock.sendall(wire.Frame(type=type, stream=stream, payload=payload).encode())

    def heard(self):
        return self.decoder.feed(self.sock.recv(1 << 20))

    def pump(self):
        self.channel.pump(time.monotonic() + 60, "the node")

    def close(self):
        self.sock.close()
        os.close(self.channel._fd)


@pytest.fixture
def wired():
    made = Wire()
    yield made
    made.close()


def test_a_node_that_sends_more_control_messages_than_anybody_reads_is_cut_off(wired):
    for _ in range(channel_module.MAX_CONTROLS + 1):
        wired.send(wire.FrameType.CONTROL, 0, b"{}")
    with pytest.raises(Malformed) as caught:
        wired.pump()
    assert caught.value.code == "flooded"


def test_a_node_that_sends_more_than_was_asked_for_is_cut_off(wired):
    wired.channel.open_stream("alice")
    wired.send(wire.FrameType.ACCEPT, 1)
    wired.send(wire.FrameType.DATA, 1, bytes(mux.FIRST_WINDOW))
    wired.send(wire.FrameType.DATA, 1, b"x")
    with pytest.raises(Malformed, match="more than the 0 that were asked for") as caught:
        wired.pump()
    assert caught.value.code == "flooded"


def test_a_stream_that_the_node_opens_is_not_allowed(wired):
    for number, where in ((2, b"\x05http"), (4, b"\x01alice"), (6, b"\x02receipt.json")):
        wired.send(wire.FrameType.OPEN, number, where)
    wired.pump()
    assert [(frame.type, frame.stream, frame.payload) for frame in wired.heard()] == [
        (wire.FrameType.RESET, number, b"not-allowed") for number in (2, 4, 6)
    ]


def test_a_file_that_the_node_does_not_take_is_no_success(wired):
    stream = wired.channel.open_file("receipt.json")
    wired.send(wire.FrameType.RESET, 1, b"not-allowed")
    wired.pump()
    with pytest.raises(Unavailable, match=r"does not take the file receipt\.json: not-allowed") as caught:
        stream.finish()
    assert caught.value.code == "channel-lost"
    assert stream.write(b"into the void") == 13


def test_a_node_that_hangs_up_ends_every_wait(wired):
    stream = wired.channel.open_stream("alice")
    wired.sock.close()
    for act in (lambda: stream.read(time.monotonic() + 60), lambda: wired.channel.send_control("phase")):
        with pytest.raises(Unavailable) as caught:
            act()
        assert caught.value.code == "channel-lost"
    stream.close()


def test_what_is_written_is_out_in_the_order_in_which_it_was_said(wired):
    """`done` after a file's end, or the node would keep no file."""
    heard = []

    def listen():
        while not heard or heard[-1].type != wire.FrameType.CONTROL:
            for frame in wired.heard():
                heard.append(frame)
                if frame.type == wire.FrameType.OPEN:
                    wired.send(wire.FrameType.ACCEPT, frame.stream)
                elif frame.type == wire.FrameType.DATA:
                    wired.send(wire.FrameType.CREDIT, frame.stream, len(frame.payload).to_bytes(4, "big"))

    thread = threading.Thread(target=listen)
    thread.start()
    wired.channel.send_file("out-0.tar.age", bytes(300_000))
    wired.channel.send_control("done")
    thread.join(60)
    kinds = [frame.type.name for frame in heard]
    assert kinds[0] == "OPEN"
    assert set(kinds[1:-2]) == {"DATA"}
    assert kinds[-2:] == ["END", "CONTROL"]
    assert sum(len(frame.payload) for frame in heard[1:-1]) == 300_000


def test_failed_requests_give_their_streams_back(tmp_path):
    with broker(tmp_path, echo) as (node, address, _):
        other = BrokerAddress(
            url=address.url, pin="sha256:" + "0" * 64, ledger_key=bytes(32), authority=address.pin
        )
        for _ in range(5):
            with pytest.raises(Refused):
                http.BrokerConnection(node.channel, "alice", other, timeout=60)
        assert node.channel.carrier.open_streams == 0


def test_port_is_found_by_its_name(tmp_path):
    for entry, name in (("vport0p0", "\n"), ("vport1p1", "strongroom\n")):
        (tmp_path / entry).mkdir()
        (tmp_path / entry / "name").write_text(name)
    assert channel_module.find_port(str(tmp_path)) == "/dev/vport1p1"
    with pytest.raises(NotFound, match="no virtio-serial port is named 'strongroom'"):
        channel_module.find_port(str(tmp_path / "absent"))


def test_a_node_that_takes_nothing_keeps_no_room_from_its_end():
    """The node holds the stream of a renewal back, so that a pause, the verdict's end and the contract's end would wait for it."""
    ours, theirs = socket.socketpair()
    channel = channel_module.Channel(ours.detach(), ends=True)
    stream = channel.open_stream("alice")
    asked = []
    channel.must_hurry = lambda: asked.append(1) or len(asked) > 1
    given_up = threading.Timer(20, theirs.close)  # else this would wait for ever
    given_up.start()
    try:
        with pytest.raises(Unavailable) as caught:
            stream.write(bytes(10 * mux.FIRST_WINDOW))
        assert caught.value.code == "stopped"
    finally:
        given_up.cancel()
        theirs.close()
