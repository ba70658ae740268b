"""The relay against a fake agent and real TCP peers: what it carries, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest

from strongroom.encoding import canonical
from strongroom.errors import Malformed, PolicyDenied, Refused, Unavailable
from strongroom.model.room import channel as wire
from strongroom.node import relay, run_folder
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
        agent.control("file", stream=3, name="receipt.json")
        agent.frame(wire.FrameType.DATA, 3, b"half ")
        agent.frame(wire.FrameType.DATA, 3, b"and half")
        agent.frame(wire.FrameType.CLOSE, 3)
        agent.control("done")

    world.play(script)
    assert world.phases == [("attesting", 1200), ("attested:alice", 1300)]
    assert (tmp_path / "receipt.json").read_bytes() == b"half and half"
    assert [one.name for one in tmp_path.iterdir()] == ["receipt.json"]


def test_two_streams_at_once_carry_megabytes_both_ways(tmp_path):
    with broker(echo) as address:
        world = World(tmp_path, {"alice": address})
        blob = {1: os.urandom(3 << 20), 2: os.urandom(3 << 20)}
        back = {1: bytearray(), 2: bytearray()}

        def script(agent):
            agent.hello()
            for stream in blob:
                agent.frame(wire.FrameType.OPEN, stream, b"alice")

            def write():
                for start in range(0, 3 << 20, 60_000):
                    for stream, data in blob.items():
                        if piece := data[start : start + 60_000]:
                            agent.frame(wire.FrameType.DATA, stream, piece)

            writer = threading.Thread(target=write)
            writer.start()
            while any(len(back[stream]) < len(data) for stream, data in blob.items()):
                frame = agent.next()
                back[frame.stream] += frame.payload
            writer.join()
            agent.control("done")

        world.play(script)
    assert back == blob


def test_a_slow_broker_stops_the_room_not_the_node(tmp_path):
    release = threading.Event()

    def slow(connection):
        release.wait(60)
        while connection.recv(1 << 20):
            pass

    sent = []
    with broker(slow) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.frame(wire.FrameType.OPEN, 1, b"alice")
            agent.end.settimeout(1)
            piece = bytes(wire.MAX_DATA)
            try:
                for _ in range(2000):
                    agent.frame(wire.FrameType.DATA, 1, piece)
                    sent.append(len(piece))
            except TimeoutError:
                pass
            held = max(peer.held for peer in list(world.relay._streams.values()))
            agent.end.close()
            release.set()
            assert held <= relay.MAX_HELD + wire.MAX_DATA + 65536
            os.eventfd_write(world.died, 1)

        with pytest.raises(Unavailable, match="it died"):
            world.play(script)
    assert sum(sent) < 64 << 20  # 125 MiB were offered; what was taken lies in buffers of known size


def test_a_party_without_broker_gets_no_connection(tmp_path):
    with broker(echo) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            for stream, party in enumerate((b"bob", b"127.0.0.1:22", b"\xff\x00"), 1):
                agent.frame(wire.FrameType.OPEN, stream, party)
                frame = agent.next()
                assert (frame.type, frame.stream) == (wire.FrameType.CLOSE, stream)
            agent.control("done")

        world.play(script)
    assert len(world.notes) == 3
    assert "contract names no broker" in world.notes[0]


def test_a_broker_that_is_not_there_closes_the_stream(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    world = World(tmp_path, {"alice": address})

    def script(agent):
        agent.hello()
        agent.frame(wire.FrameType.OPEN, 1, b"alice")
        agent.frame(wire.FrameType.DATA, 1, b"into the void")
        assert agent.next().type == wire.FrameType.CLOSE
        agent.frame(wire.FrameType.DATA, 1, b"late bytes are dropped")
        agent.control("done")

    world.play(script)
    assert "alice" in world.notes[0]


def test_close_reaches_the_broker_after_all_bytes(tmp_path):
    got = []

    def keep(connection):
        while data := connection.recv(65536):
            got.append(data)

    with broker(keep) as address:
        world = World(tmp_path, {"alice": address})

        def script(agent):
            agent.hello()
            agent.frame(wire.FrameType.OPEN, 1, b"alice")
            for _ in range(40):
                agent.frame(wire.FrameType.DATA, 1, bytes(50_000))
            agent.frame(wire.FrameType.CLOSE, 1)
            deadline = time.monotonic() + 60
            while sum(map(len, got)) < 2_000_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            agent.control("done")

        world.play(script)
    assert sum(map(len, got)) == 2_000_000


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
        agent.frame(wire.FrameType.OPEN, 1, b"alice")
        assert agent.next().type == wire.FrameType.CLOSE
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


def test_death_without_a_word(tmp_path):
    world = World(tmp_path, {})

    def script(agent):
        agent.hello()
        agent.control("file", stream=1, name="receipt.json")
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
    "data before hello": lambda agent: agent.frame(wire.FrameType.DATA, 1, b"x"),
    "open before hello": lambda agent: agent.frame(wire.FrameType.OPEN, 1, b"alice"),
    "unknown frame": lambda agent: agent.end.sendall(b"\x09" + bytes(8)),
    "a frame too long": lambda agent: agent.end.sendall(b"\x03" + bytes(4) + b"\xff" * 4),
    "not JSON": lambda agent: agent.frame(wire.FrameType.CONTROL, 0, b"{"),
    "unknown kind": lambda agent: agent.control("reboot"),
    "unknown key": lambda agent: agent.control("hello", more=1),
    "hello twice": lambda agent: (agent.control("hello"), agent.control("hello")),
    "a stream nobody opened": lambda agent: (
        agent.control("hello"),
        agent.frame(wire.FrameType.DATA, 7, b"x"),
    ),
    "a stream used twice": lambda agent: (
        agent.control("hello"),
        agent.frame(wire.FrameType.OPEN, 1, b"bob"),
        agent.frame(wire.FrameType.OPEN, 1, b"bob"),
    ),
    "the control stream as a broker's": lambda agent: (
        agent.control("hello"),
        agent.frame(wire.FrameType.OPEN, 0, b"alice"),
    ),
    "streams without end": lambda agent: (
        agent.control("hello"),
        *(agent.frame(wire.FrameType.OPEN, number, b"bob") for number in range(1, relay.MAX_OPENED + 2)),
    ),
    "a file on a used stream": lambda agent: (
        agent.control("hello"),
        agent.frame(wire.FrameType.OPEN, 1, b"bob"),
        agent.control("file", stream=1, name="receipt.json"),
    ),
}
WHY = {
    "data before hello": "sends before it says hello",
    "open before hello": "sends before it says hello",
    "unknown frame": "type 9, expected 1 to 4",
    "a frame too long": "4294967295 bytes, at most",
    "not JSON": "not JSON",
    "unknown kind": "unknown kind 'reboot'",
    "unknown key": "unknown key 'more'",
    "hello twice": "says hello twice",
    "a stream nobody opened": "on a stream that it never opened",
    "a stream used twice": "opens stream 1 twice",
    "the control stream as a broker's": "opens stream 0 twice",
    "streams without end": "opens stream 131073 twice, or too many",
    "a file on a used stream": "opens stream 1 twice",
}


@pytest.mark.parametrize("name", BAD)
def test_a_room_that_breaks_the_protocol_is_ended(tmp_path, name):
    world = World(tmp_path, {})
    with pytest.raises(Malformed, match=WHY[name]):
        world.play(BAD[name])
