"""The relay against a fake agent and real TCP peers: what it carries, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from dataclasses import replace

import pytest

from strongroom.encoding import canonical
from strongroom.errors import Malformed, PolicyDenied, Refused, Unavailable
from strongroom.model.room import channel as wire
from strongroom.model.room import destination
from strongroom.node import relay, run_folder
from strongroom.streams import mux
from tests import samples

CONTRACT = samples.a_contract()
PATIENCE = relay.Patience(hello=10, silence=10, total=20)
START = b'{"kind":"start"}'


class Agent:
    """The room's end."""

    def __init__(self, end):
        self.end = end
        self.decoder = wire.Decoder()
        self.frames = []
        end.settimeout(10)

    def control(self, kind, **values):
        self.frame(wire.FrameType.CONTROL, 0, canonical.dumps({"kind": kind, **values}))

    def frame(self, kind, stream, payload=b""):
        self.end.sendall(wire.Frame(type=kind, stream=stream, payload=payload).encode())

    def next(self):
        while not self.frames:
            data = self.end.recv(1 << 16)
            if not data:
                raise EOFError
            self.frames += self.decoder.feed(data)
        return self.frames.pop(0)

    def open(self, stream, kind, name):
        where = destination.Destination(kind=kind, name=name)
        self.frame(wire.FrameType.OPEN, stream, where.encode())

    def file(self, stream, name):
        self.open(stream, destination.Kind.FILE, name)

    def broker(self, stream, name="alice"):
        self.open(stream, destination.Kind.BROKER, name)

    def answer(self, stream, kind, payload=b""):
        frame = self.next()
        assert (frame.type, frame.stream, frame.payload) == (kind, stream, payload)

    def hello(self):
        self.control("hello")
        assert self.next().payload == START


class World:
    def __init__(self, folder, brokers):
        ours, theirs = socket.socketpair()
        self.agent = Agent(theirs)
        self.phases, self.notes = [], []
        self.inbox = run_folder.Inbox(folder, CONTRACT, "main")
        self.died = os.eventfd(0)
        self.relay = relay.Relay(
            ours,
            brokers=brokers,
            start=START,
            inbox=self.inbox,
            on_phase=lambda name, moment: self.phases.append((name, moment)),
            on_note=self.notes.append,
            watched={self.died: self._end},
        )

    def _end(self):
        raise Unavailable("it died", code="room-died")

    def play(self, script, patience=PATIENCE):
        """Run `script(agent)` beside the relay; what either raises is raised here."""
        failure = []

        def act():
            try:
                script(self.agent)
            except BaseException as cause:  # noqa: BLE001 - raised again in the test's own thread
                failure.append(cause)
                self.agent.end.close()

        thread = threading.Thread(target=act)
        thread.start()
        try:
            self.relay.serve(patience)
        finally:
            self.relay.close()
            self.inbox.close()
            thread.join(60)
            self.agent.end.close()
            os.close(self.died)
            if failure:
                raise failure[0]


@contextlib.contextmanager
def broker(serve):
    """A TCP server on loopback; `serve(connection)` runs for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads = []

        def accept():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

        def handle(connection):
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                serve(connection)

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield server.getsockname()
        finally:
            server.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for one in threads:
                one.join()


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def test_phases_files_and_the_end(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        agent.control("phase", name="attesting", milliseconds=1200)
        agent.control("phase", name="attested:alice", milliseconds=1300)
        agent.file(3, "receipt.json")
        agent.frame(wire.FrameType.DATA, 3, b"half ")
        agent.frame(wire.FrameType.DATA, 3, b"and half")
        agent.frame(wire.FrameType.END, 3)
        agent.answer(3, wire.FrameType.ACCEPT)
        agent.answer(3, wire.FrameType.END)
        agent.control("done")

    world.play(script)
    assert world.phases == [("attesting", 1200), ("attested:alice", 1300)]
    assert (tmp_path / "receipt.json").read_bytes() == b"half and half"
    assert [one.name for one in tmp_path.iterdir()] == ["receipt.json"]


class Sender:
    """What an agent may send on its streams, as the relay gives credit."""

    def __init__(self, agent, streams):
        self.agent = agent
        self.credit = dict.fromkeys(streams, mux.FIRST_WINDOW)

    def take(self, frame):
        """Returns the bytes of a frame, whose credit is given back."""
        if frame.type == wire.FrameType.CREDIT:
            self.credit[frame.stream] += int.from_bytes(frame.payload, "big")
        elif frame.type == wire.FrameType.DATA:
            self.agent.frame(wire.FrameType.CREDIT, frame.stream, len(frame.payload).to_bytes(4, "big"))
            return frame.payload
        return b""

    def send(self, stream, data):
        """Returns what could not be sent yet."""
        while piece := data[: min(self.credit[stream], wire.MAX_DATA)]:
            self.credit[stream] -= len(piece)
            self.agent.frame(wire.FrameType.DATA, stream, piece)
            data = data[len(piece) :]
        return data


def test_two_streams_at_once_carry_megabytes_both_ways(tmp_path):
    with broker(echo) as address:
        world = World(tmp_path, {"alice": address})
        blob = {1: os.urandom(3 << 20), 3: os.urandom(3 << 20)}
        back = {1: bytearray(), 3: bytearray()}

        def script(agent):
            agent.hello()
            for stream in blob:
                agent.broker(stream)
            sender, left = Sender(agent, blob), dict(blob)
            while any(len(back[stream]) < len(data) for stream, data in blob.items()):
                for stream in blob:
                    left[stream] = sender.send(stream, left[stream])
                frame = agent.next()
                back[frame.stream] += sender.take(frame)
            agent.control("done")

        world.play(script)
    assert back == blob


def test_a_slow_broker_stops_no_other_and_holds_no_more_than_its_window(tmp_path):
    release = threading.Event()

    def slow_then_echo(connection):
        if connection.recv(4, socket.MSG_PEEK) == b"slow":
            release.wait(60)
        else:
            echo(connection)

    with broker(slow_then_echo) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.broker(1)
            agent.frame(wire.FrameType.DATA, 1, b"slow")
            sender = Sender(agent, (1, 3))
            sender.credit[1] -= 4
            agent.answer(1, wire.FrameType.ACCEPT)
            # All that the relay gives credit for: what the kernel takes for a peer that reads nothing, and one window.
            agent.end.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    sender.send(1, bytes(mux.WINDOW))
                    sender.take(agent.next())
            held = max(len(end._held) for end in world.relay._to_brokers)
            assert 0 < held <= mux.WINDOW
            agent.end.settimeout(10)
            agent.broker(3)
            left, back = os.urandom(3 << 20), bytearray()
            whole = bytes(left)
            left = sender.send(3, left)
            while len(back) < len(whole):
                frame = agent.next()
                back += sender.take(frame)
                left = sender.send(3, left)
            assert back == whole
            agent.control("done")

        try:
            world.play(script)
        finally:
            release.set()


def test_a_room_that_sends_past_its_credit_is_ended(tmp_path):
    release = threading.Event()
    with broker(lambda _connection: release.wait(60)) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.broker(1)
            with contextlib.suppress(OSError):
                for _ in range(2000):
                    agent.frame(wire.FrameType.DATA, 1, bytes(mux.FIRST_WINDOW))

        try:
            with pytest.raises(Malformed, match=r"more than the \d+ that were asked for") as caught:
                world.play(script)
        finally:
            release.set()
    assert caught.value.code == "flooded"


def test_a_party_without_broker_gets_no_connection(tmp_path):
    with broker(echo) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.broker(1, "bob")
            agent.answer(1, wire.FrameType.RESET, b"not-allowed")
            for stream, kind, name in (
                (3, destination.Kind.EGRESS, "127.0.0.1:22"),
                (5, destination.Kind.PEER, "worker:http"),
                (7, destination.Kind.PORT, "http"),
            ):
                agent.open(stream, kind, name)
                agent.answer(stream, wire.FrameType.RESET, b"not-allowed")
            agent.control("done")

        world.play(script)
    assert len(world.notes) == 1
    assert "contract names no broker" in world.notes[0]


def test_a_room_that_asks_without_end_writes_no_log_without_end(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        for stream in range(1, 4001, 2):
            agent.broker(stream, "bob")
            agent.answer(stream, wire.FrameType.RESET, b"not-allowed")
        agent.control("done")

    world.play(script)
    assert len(world.notes) == 1000


def test_a_broker_that_is_not_there_closes_the_stream(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    world = World(tmp_path, {"alice": address})

    def script(agent):
        agent.hello()
        agent.broker(1)
        agent.frame(wire.FrameType.DATA, 1, b"into the void")
        agent.answer(1, wire.FrameType.RESET, b"refused")
        agent.frame(wire.FrameType.DATA, 1, b"late bytes are dropped")
        agent.control("done")

    world.play(script)
    assert "alice" in world.notes[0]


def test_each_direction_ends_by_itself(tmp_path):
    got = []

    def keep_then_answer(connection):
        while data := connection.recv(65536):
            got.append(data)
        connection.sendall(b"all of it")

    with broker(keep_then_answer) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.broker(1)
            sender, left = Sender(agent, (1,)), bytes(2_000_000)
            while left := sender.send(1, left):
                sender.take(agent.next())
            agent.frame(wire.FrameType.END, 1)
            frame = agent.next()
            while frame.type in (wire.FrameType.CREDIT, wire.FrameType.ACCEPT):
                frame = agent.next()
            assert (frame.type, frame.payload) == (wire.FrameType.DATA, b"all of it")
            agent.answer(1, wire.FrameType.END)
            assert world.relay._loop.open_streams == 0
            agent.control("done")

        world.play(script)
    assert sum(map(len, got)) == 2_000_000


def test_a_stream_that_the_room_gives_up_closes_its_connection(tmp_path):
    closed = threading.Event()

    def wait(connection):
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        closed.set()

    with broker(wait) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.broker(1)
            agent.answer(1, wire.FrameType.ACCEPT)
            agent.frame(wire.FrameType.RESET, 1, b"reset")
            assert closed.wait(60)
            agent.frame(wire.FrameType.DATA, 1, b"on its way when the stream was given up")
            agent.control("done")

        world.play(script)


def test_a_broker_that_breaks_the_connection_resets_the_stream(tmp_path):
    def break_it(connection):
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with broker(break_it) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.broker(1)
            agent.answer(1, wire.FrameType.ACCEPT)
            agent.frame(wire.FrameType.DATA, 1, b"x")
            agent.answer(1, wire.FrameType.RESET, b"reset")
            agent.control("done")

        world.play(script)


def test_connections_are_counted_until_they_are_there_or_not(tmp_path, monkeypatch):
    """A room that opens and gives up costs no thread each time."""
    release, asked = threading.Event(), []

    def connect(address, **_):
        asked.append(address)
        release.wait(60)
        raise OSError("nobody there")

    monkeypatch.setattr(relay.socket, "create_connection", connect)
    world = World(tmp_path, {"alice": ("alice.example", 1)})
    streams = range(1, 200, 2)

    def script(agent):
        agent.hello()
        for stream in streams:
            agent.broker(stream)
            agent.frame(wire.FrameType.RESET, stream, b"reset")
        answers = [agent.next().payload for _ in streams]
        assert answers.count(b"reset") == relay.MAX_BROKER_STREAMS
        assert answers.count(b"too-many") == len(streams) - relay.MAX_BROKER_STREAMS
        release.set()
        agent.control("done")

    world.play(script)
    assert len(asked) == relay.MAX_BROKER_STREAMS


def test_failed_is_a_refusal_with_every_check(tmp_path):
    world = World(tmp_path, {})
    check = {
        "name": "reference.kernel",
        "expected": {"a\x1b": ["\x1b"]},
        "got": "b\x1b[31m",
        "ok": False,
        "words": {"expected": "\x1b", "got": "y", "hint": "h", "source": ""},
    }
    good = {**check, "ok": True, "name": "nonce"}

    def script(agent):
        agent.hello()
        agent.control("failed", code="denied", message="alice said no", hint="read", checks=[good, check])

    with pytest.raises(PolicyDenied) as caught:
        world.play(script)
    assert caught.value.code == "denied"
    assert [one.name for one in caught.value.verdict.failed] == ["reference.kernel"]
    failed = caught.value.verdict.failed[0]
    # Nothing of the room reaches the terminal raw.
    assert (failed.expected, failed.got, failed.words.expected) == ({"a?": ["?"]}, "b?[31m", "?")


@pytest.mark.parametrize(("code", "kind"), [("disk-corrupted", Refused), ("tpm-failed", Unavailable)])
def test_failed_without_checks_keeps_its_code_and_says_where_to_look(tmp_path, code, kind):
    """A room does not know the commands of this side, and no broker is at fault for its disks or its TPM."""
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        agent.control("failed", code=code, message="block 7", hint="", checks=[])

    with pytest.raises(kind) as caught:
        world.play(script)
    assert caught.value.code == code
    assert "strongroom base verify" in caught.value.hint
    assert "start the broker" not in caught.value.hint


def test_what_trying_again_may_help_is_unavailable_and_names_the_broker(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    world = World(tmp_path, {"alice": address})

    def script(agent):
        agent.hello()
        agent.broker(1)
        agent.answer(1, wire.FrameType.RESET, b"refused")
        agent.control("failed", code="cut-off", message="cannot be reached", hint="", checks=[])

    with pytest.raises(Unavailable, match=f"127.0.0.1:{address[1]}: .*refused") as caught:
        world.play(script)
    assert caught.value.code == "broker-unreachable"
    assert caught.value.hint


def test_the_last_words_count_before_the_death(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        for number in range(200):
            agent.control("phase", name=f"p{number}", milliseconds=0)
        agent.control("done")
        agent.end.close()
        with contextlib.suppress(OSError):  # the relay may be done already
            os.eventfd_write(world.died, 1)

    world.play(script)
    assert len(world.phases) == 200


def test_last_words_without_end_are_not_waited_for(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        os.eventfd_write(world.died, 1)
        with contextlib.suppress(OSError):  # the relay has ended
            while True:
                agent.control("phase", name="on", milliseconds=0)

    with pytest.raises(Unavailable, match="it died"):
        world.play(script)


def test_death_without_a_word(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        agent.file(1, "receipt.json")
        agent.frame(wire.FrameType.DATA, 1, b"cut of")
        agent.end.close()
        os.eventfd_write(world.died, 1)

    with pytest.raises(Unavailable) as caught:
        world.play(script)
    assert caught.value.code == "room-died"
    assert list(tmp_path.iterdir()) == []  # what was cut short is not kept


@pytest.mark.parametrize(
    ("patience", "code"),
    [
        (relay.Patience(hello=0.2, silence=10, total=20), "room-silent"),
        (relay.Patience(hello=10, silence=10, total=0.2), "room-overran"),
    ],
)
def test_nobody_waits_for_ever(tmp_path, patience, code):
    world = World(tmp_path, {})
    with pytest.raises(Unavailable) as caught:
        world.play(lambda _agent: None, patience)
    assert caught.value.code == code


def test_silence_after_hello(tmp_path):
    world = World(tmp_path, {})
    with pytest.raises(Unavailable) as caught:
        world.play(lambda agent: agent.hello(), relay.Patience(hello=10, silence=0.2, total=20))
    assert caught.value.code == "room-silent"


BAD = {
    "data before hello": (
        lambda agent: agent.frame(wire.FrameType.DATA, 1, b"x"),
        "stream 1, which was never opened",
    ),
    "a broker before hello": (lambda agent: agent.broker(1), "opens a stream before it says hello"),
    "a file before hello": (
        lambda agent: agent.file(1, "receipt.json"),
        "opens a stream before it says hello",
    ),
    "unknown frame": (lambda agent: agent.end.sendall(b"\x09" + bytes(8)), "type 9, expected 1 to 7"),
    "a frame too long": (
        lambda agent: agent.end.sendall(b"\x03" + bytes(4) + b"\xff" * 4),
        "4294967295 bytes, at most",
    ),
    "not JSON": (lambda agent: agent.frame(wire.FrameType.CONTROL, 0, b"{"), "not JSON"),
    "unknown kind": (lambda agent: agent.control("reboot"), "unknown kind 'reboot'"),
    "unknown key": (lambda agent: agent.control("hello", more=1), "unknown key 'more'"),
    "hello twice": (lambda agent: (agent.control("hello"), agent.control("hello")), "says hello twice"),
    "a stream used twice": (
        lambda agent: (agent.control("hello"), agent.broker(1, "bob"), agent.broker(1, "bob")),
        "opens stream 1, expected one of its own above 1",
    ),
    "a stream of the node's": (
        lambda agent: (agent.control("hello"), agent.broker(2)),
        "opens stream 2, expected one of its own above 0",
    ),
    "the control stream as a broker's": (
        lambda agent: (agent.control("hello"), agent.broker(0)),
        "opens stream 0, expected one of its own above 0",
    ),
    "a party's name that is none": (
        lambda agent: (agent.control("hello"), agent.frame(wire.FrameType.OPEN, 1, b"\x01\xff\x00")),
        "kind 1 and 2 bytes, expected",
    ),
    "a file that is given up": (
        lambda agent: (
            agent.control("hello"),
            agent.file(1, "receipt.json"),
            agent.frame(wire.FrameType.RESET, 1, b"reset"),
        ),
        "gives up a file",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_room_that_breaks_the_protocol_is_ended(tmp_path, name):
    world = World(tmp_path, {})
    script, why = BAD[name]
    with pytest.raises(Malformed, match=why) as caught:
        world.play(script)
    assert "strongroom base verify" in caught.value.hint


def test_a_stop_reaches_the_room_once_and_its_end_is_waited_for(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        for _ in range(2):
            world.relay.stop()
        frame = agent.next()
        assert (frame.type, canonical.loads(frame.payload, what="stop", max_bytes=100)) == (
            wire.FrameType.CONTROL,
            {"kind": "stop"},
        )
        agent.control("done")

    world.play(script, replace(PATIENCE, stopping=10))


def test_a_room_that_does_not_end_when_it_is_asked_is_given_up(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        world.relay.stop()
        agent.next()
        with contextlib.suppress(EOFError, OSError):
            agent.next()

    with pytest.raises(Unavailable, match="within 0 s after it was asked to") as caught:
        world.play(script, replace(PATIENCE, stopping=0.2))
    assert caught.value.code == "room-overran"


def test_renewals_without_end_are_passed_on_once_a_second_at_most(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        for _ in range(1200):
            agent.control("phase", name="renewed:alice", milliseconds=1)
        for _ in range(10):
            agent.control("phase", name="other", milliseconds=1)
        agent.control("done")

    world.play(script)
    assert 1000 < len(world.phases) < 1190
    assert world.phases[-1][0] == "renewed:alice"
