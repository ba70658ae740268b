"""Streams in any order of acts: what arrives is what was sent, in order; nobody who keeps the rules is cut off; credit holds."""

from __future__ import annotations

import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from strongroom.errors import Malformed, Unavailable
from strongroom.model.room import destination
from strongroom.model.room.channel import MAX_DATA, MAX_DESTINATION, Frame, FrameType
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.streams import mux
from tests.effort import examples
from tests.unit.streams.two_sides import Half

SIDES = ("room", "node")
sides = st.sampled_from(SIDES)
picks = st.integers(0, 1 << 16)


@examples(40)
class Streams(RuleBasedStateMachine):
    """Two sides with frames on their way between them, delivered when a rule says so."""

    def __init__(self):
        super().__init__()
        self.halves = {"room": Half(mux.Side.ROOM), "node": Half(mux.Side.NODE)}
        self.on_the_way = {"room": [], "node": []}  # to that side
        self.sent = {"room": {}, "node": {}}  # by that side: number to bytes
        self.resets = set()

    def end(self, side, pick):
        ends = [end for end in self.halves[side].ends if not end.is_over]
        return ends[pick % len(ends)] if ends else None

    @rule(side=sides)
    def dial(self, side):
        self.halves[side].dial()

    @rule(side=sides, how=st.sampled_from(["accept", "accept", "refuse", "later"]))
    def answer(self, side, how):
        self.halves[side].answer = how

    @rule(side=sides, pick=picks)
    def accept(self, side, pick):
        end = self.end(side, pick)
        if end is not None and not end.stream.own:
            end.stream.accept()

    @rule(side=sides, pick=picks, size=st.integers(1, 100_000))
    def send(self, side, pick, size):
        end = self.end(side, pick)
        if end is not None and not end.finishes:
            sent = self.sent[side].setdefault(end.stream.number, bytearray())
            data = bytes((len(sent) + at) % 251 for at in range(0, size, 97)) * 97
            sent += data
            end.send(data)

    @rule(side=sides, pick=picks)
    def finish(self, side, pick):
        end = self.end(side, pick)
        if end is not None:
            end.finish()

    @rule(side=sides, pick=picks)
    def reset(self, side, pick):
        end = self.end(side, pick)
        if end is not None:
            self.resets.add(end.stream.number)
            end.stream.reset(Reason.RESET)

    @rule(side=sides, pick=picks, size=st.integers(1, 300_000))
    def eat(self, side, pick, size):
        end = self.end(side, pick)
        if end is not None:
            end.eat(size)

    @rule(side=sides, most=st.integers(1, 100_000))
    def say(self, side, most):
        other = SIDES[1 - SIDES.index(side)]
        self.on_the_way[other] += self.halves[side].frames(most)

    @rule(side=sides, count=st.integers(1, 20))
    def hear(self, side, count):
        frames = self.on_the_way[side]
        self.halves[side].take(frames[:count])
        del frames[:count]

    @invariant()
    def what_came_is_what_was_sent(self):
        for side in SIDES:
            other = SIDES[1 - SIDES.index(side)]
            for end in self.halves[side].ends:
                sent = self.sent[other].get(end.stream.number, b"")
                assert sent[: len(end.came)] == end.came
                assert len(end.came) - end.eaten <= mux.WINDOW
                if end.got_end:
                    assert len(end.came) == len(sent)

    @invariant()
    def what_may_be_held_is_bounded(self):
        for half in self.halves.values():
            streams = half.mux._streams.values()
            exposed = sum(stream.window + stream.held for stream in streams)
            over = sum(max(0, stream.window + stream.held - mux.FIRST_WINDOW) for stream in streams)
            assert over == half.mux._lent <= mux.SHARED
            assert exposed <= len(streams) * mux.FIRST_WINDOW + mux.SHARED

    def teardown(self):
        """At last everybody eats and finishes: all ends, and all that was sent and not given up has come."""
        for half in self.halves.values():
            half.answer = "accept"
        busy = True
        while busy:
            busy = False
            for side in SIDES:
                for end in self.halves[side].ends:
                    if not end.is_over:
                        if not end.stream.own:
                            end.stream.accept()
                        end.eat()
                        end.finish()
                self.say(side, 1 << 30)
            for side in SIDES:
                busy = busy or bool(self.on_the_way[side])
                self.hear(side, 1 << 30)
        for side in SIDES:
            other = SIDES[1 - SIDES.index(side)]
            assert not self.halves[side].mux._streams
            assert not self.halves[side].mux._given_up
            assert self.halves[side].mux._lent == 0
            for end in self.halves[side].ends:
                assert end.is_over
                if end.reason is None:
                    assert end.came == self.sent[other].get(end.stream.number, b"")


TestStreams = Streams.TestCase

frame = st.builds(
    Frame,
    type=st.sampled_from([kind for kind in FrameType if kind is not FrameType.CONTROL]),
    stream=st.integers(0, 8),
    payload=st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\x05http", b"\x01alice", b"", b"reset", b"refused", b"\0\0\x10\0", bytes(5000)]),
    ),
)


@examples(400)
@hypothesis.given(st.sampled_from(mux.Side), st.lists(frame, max_size=30), st.integers(0, 3))
def test_whatever_comes_is_taken_or_malformed_and_never_held_beyond_the_windows(side, frames, own):
    half = Half(side)
    for _ in range(own):
        half.dial()
    with contextlib.suppress(Malformed):
        for one in frames:
            half.take([one])
    held = sum(len(end.came) - end.eaten for end in half.ends if not end.is_over)
    assert held <= half.mux.open_streams * mux.FIRST_WINDOW
    with contextlib.suppress(Unavailable):
        half.dial()
    half.frames()


@examples(300)
@hypothesis.given(st.one_of(st.binary(max_size=300), st.binary(max_size=80).map(lambda name: b"\x03" + name)))
def test_any_payload_of_open_is_a_destination_or_malformed(data):
    with contextlib.suppress(Malformed):
        where = destination.parse(data)
        assert where.encode() == data
        assert len(data) <= MAX_DESTINATION
        assert str(where).isprintable()
    with contextlib.suppress(Malformed):
        assert destination.parse_reason(data).encode() == data


def test_destinations_that_are_names_and_that_are_none():
    good = {
        Kind.BROKER: ("alice", "a.b-c_d"),
        Kind.FILE: ("receipt.json", "out-12.tar.age", "evidence-alice.json"),
        Kind.EGRESS: ("a.example:443", "127.0.0.1:22", "x:1", f"{'a' * 63}.{'b' * 63}:65535"),
        Kind.PEER: ("worker:http", "a:b"),
        Kind.PORT: ("http", "grpc-1"),
    }
    bad = {
        Kind.BROKER: ("", "Alice", "a/b", "a" * 65, ".a", "alice\n"),
        Kind.FILE: ("", ".hidden", "a/b", "..", "A", "a" * 129),
        Kind.EGRESS: (
            "a.example",
            "a.example:0443",
            "a.example:",
            ":1",
            "a..b:1",
            "-a:1",
            "a:123456",
            "[::1]:1",
            f"{'a.' * 121}a:1",
        ),
        Kind.PEER: ("worker", "worker:", ":http", "a:b:c"),
        Kind.PORT: ("", "80/tcp", "a:b"),
        Kind.TUNNEL: ("", "80/tcp", "a:b"),
    }
    for kind, names in good.items():
        for name in names:
            where = Destination(kind=kind, name=name)
            assert destination.parse(where.encode()) == where
    for kind, names in bad.items():
        for name in names:
            with pytest.raises(Malformed) as caught:
                destination.parse(Destination(kind=kind, name=name).encode())
            assert caught.value.code == "bad-channel"
    for data in (b"", b"\x05", b"\x00http", b"\x07http", b"\x05" + b"a" * 256, b"\x05\xff"):
        with pytest.raises(Malformed, match="stream's destination: "):
            destination.parse(data)


def test_frames_have_room_in_one_write_of_the_port():
    assert len(Frame(type=FrameType.DATA, stream=1, payload=bytes(MAX_DATA)).encode()) == 32 * 1024
