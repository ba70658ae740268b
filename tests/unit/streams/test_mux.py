"""The states of streams: numbers, answers, credit, ends, order, and what is held."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from strongroom.errors import Malformed, Unavailable
from strongroom.model.room.channel import MAX_DATA, Frame, FrameType
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.streams import mux
from tests import effort
from tests.unit.streams.two_sides import Half, Pair

PORT = Destination(kind=Kind.PORT, name="http").encode()


@pytest.fixture
def pair():
    return Pair()


def opened(pair, opener="room"):
    """A stream that is accepted: its end at the opener's side, and the other."""
    one, other = (pair.room, pair.node) if opener == "room" else (pair.node, pair.room)
    end = one.dial()
    pair.move()
    return end, other.ends[-1]


def test_either_side_opens_and_numbers_are_its_own(pair):
    for opener, expected in (("room", 1), ("node", 2), ("room", 3), ("node", 4)):
        end, other = opened(pair, opener)
        assert end.is_accepted
        assert end.stream.number == other.stream.number == expected
        assert other.name == "http"


def test_bytes_go_both_ways_and_each_direction_ends_by_itself(pair):
    end, other = opened(pair)
    end.send(b"question")
    end.finish()
    pair.move()
    assert (bytes(other.came), other.got_end, other.is_over) == (b"question", True, False)
    other.eat()
    other.send(b"answer")
    pair.move()
    assert bytes(end.came) == b"answer"
    end.eat()
    other.finish()
    pair.move()
    assert (end.is_over, other.is_over, end.reason, other.reason) == (True, True, None, None)
    assert (pair.room.mux.open_streams, pair.node.mux.open_streams) == (0, 0)


def test_the_opener_may_send_before_the_answer_and_what_is_refused_is_dropped(pair):
    pair.node.answer = "refuse"
    end = pair.room.dial()
    end.send(bytes(100_000))
    pair.move()
    assert (end.is_over, end.reason, end.is_accepted) == (True, Reason.REFUSED, False)
    assert len(end.outgoing) == 100_000 - mux.FIRST_WINDOW


def test_an_answer_may_come_later(pair):
    pair.node.answer = "later"
    end = pair.room.dial()
    end.send(b"early")
    pair.move()
    other = pair.node.ends[-1]
    other.send(b"not before the answer")
    pair.move()
    assert (bytes(other.came), bytes(end.came), end.is_accepted) == (b"early", b"", False)
    other.stream.accept()
    other.stream.accept()  # once is enough
    pair.move()
    assert (bytes(end.came), end.is_accepted) == (b"not before the answer", True)


def test_kinds_that_nobody_listens_for_are_not_allowed(pair):
    for half in (pair.room, pair.node):
        for kind, name in ((Kind.EGRESS, "a.example:443"), (Kind.PEER, "worker:http"), (Kind.FILE, "a")):
            end = half.dial(name, kind)
            pair.move()
            assert end.reason is Reason.NOT_ALLOWED


def test_a_slow_reader_holds_its_window_and_stops_no_other(pair):
    slow, held = opened(pair)
    fast, other = opened(pair)
    slow.send(bytes(10 << 20))
    fast.send(bytes(10 << 20))
    for _ in range(3000):
        pair.move()
        held.eat(0)
        other.eat()
    assert len(other.came) == 10 << 20
    assert len(held.came) == mux.FIRST_WINDOW
    held.eat()
    pair.move()
    assert mux.FIRST_WINDOW < len(held.came) <= mux.FIRST_WINDOW + mux.WINDOW


def test_all_streams_together_hold_no_more_than_their_first_windows_and_the_shared_part(pair):
    ends = [opened(pair) for _ in range(300)]
    for end, _ in ends:
        end.send(bytes(2 << 20))
    for _ in range(4):
        pair.move()
        for _, other in ends:
            other.eat(mux.FIRST_WINDOW)  # so much that more is given
    pair.move()
    held = sum(len(other.came) - other.eaten for _, other in ends)
    assert held <= 300 * mux.FIRST_WINDOW + mux.SHARED
    assert held > mux.SHARED // 2
    # Nobody is starved: who eats goes on.
    end, other = ends[-1]
    while len(other.came) < 2 << 20:
        before = len(other.came)
        other.eat()
        pair.move()
        assert len(other.came) > before
    # When all is over, nothing is lent any more.
    for end, other in ends:
        end.stream.reset(Reason.RESET)
        pair.move()
        assert other.is_over
    assert pair.node.mux._lent == pair.room.mux._lent == 0


def test_a_few_bytes_borrow_nothing(pair):
    end, other = opened(pair)
    for _ in range(3):
        end.send(b"x" * 1000)
        pair.move()
        other.eat()
    pair.move()
    assert pair.node.mux._lent == 0
    assert end.stream.credit == mux.FIRST_WINDOW - 3000


def test_a_stream_counts_until_all_that_came_is_consumed(pair):
    """Or a room could leave bytes behind in any number of streams that are over."""
    end, other = opened(pair)
    end.send(b"held")
    end.finish()
    other.finish()
    pair.move()
    assert (end.is_over, other.is_over, pair.node.mux.open_streams) == (True, False, 1)
    other.eat(3)
    assert not other.is_over
    other.eat()
    assert (other.is_over, other.reason, pair.node.mux.open_streams) == (True, None, 0)


@pytest.mark.parametrize("own", [True, False])
def test_reset_is_at_once_and_both_ways(pair, own):
    end, other = opened(pair)
    if own:
        end, other = other, end
    end.send(bytes(mux.WINDOW))
    other.send(bytes(mux.WINDOW))
    end.stream.reset(Reason.RESET)
    end.stream.reset(Reason.RESET)
    pair.move()
    assert (end.is_over, other.is_over, other.reason) == (True, True, Reason.RESET)
    assert other.came == b""
    assert (pair.room.mux.open_streams, pair.node.mux.open_streams) == (0, 0)
    end.stream.consumed(0)
    end.stream.ready()
    assert not pair.room.frames()


def test_both_sides_may_end_or_reset_at_once(pair):
    end, other = opened(pair)
    end.finish()
    other.finish()
    from_room, from_node = pair.room.frames(), pair.node.frames()
    pair.node.take(from_room)
    pair.room.take(from_node)
    assert (end.is_over, other.is_over) == (True, True)
    end, other = opened(pair)
    other.send(b"on its way")
    end.stream.reset(Reason.RESET)
    from_room, from_node = pair.room.frames(), pair.node.frames()
    other.stream.reset(Reason.REFUSED)
    from_node += pair.node.frames()
    pair.node.take(from_room)
    pair.room.take(from_node)
    assert (end.reason, other.reason) == (Reason.RESET, Reason.REFUSED)


@pytest.mark.parametrize("answer", ["accept", "refuse", "later"])
def test_every_open_gets_one_answer_also_when_it_is_given_up_before(pair, answer):
    pair.node.answer = answer
    end = pair.room.dial()
    from_room = pair.room.frames()
    end.stream.reset(Reason.RESET)
    pair.node.take(from_room)
    from_node = pair.node.frames()
    pair.node.take(pair.room.frames())
    from_node += pair.node.frames()
    assert [frame.type for frame in from_node] == [
        FrameType.ACCEPT if answer == "accept" else FrameType.RESET
    ]
    assert pair.room.mux._given_up == {1}
    pair.room.take(from_node)
    assert pair.room.mux._given_up == set()
    assert pair.node.mux.open_streams == 0


def test_control_messages_answers_and_credit_do_not_wait_behind_data(pair):
    end, other = opened(pair)
    bulk, _ = opened(pair)
    bulk.stream.credit = mux.WINDOW
    bulk.send(bytes(mux.WINDOW))
    other.send(bytes(mux.FIRST_WINDOW))
    pair.room.take(pair.node.frames())
    end.eat()
    pair.room.dial()
    pair.room.mux.send_control(b"{}")
    assert [frame.type for frame in pair.room.frames(1)][:4] == [
        FrameType.OPEN,
        FrameType.CONTROL,
        FrameType.CREDIT,
        FrameType.DATA,
    ]


def test_a_long_control_message_is_whole(pair):
    message = bytes(range(256)) * 4096
    opened(pair)[0].send(bytes(5000))
    pair.room.mux.send_control(message)
    pair.room.mux.send_control(b"next")
    pair.move()
    assert pair.node.controls == [message, b"next"]


def test_streams_take_turns_frame_by_frame(pair):
    ends = [opened(pair)[0] for _ in range(4)]
    for end in ends:
        end.stream.credit = mux.WINDOW
        end.send(bytes(3 * MAX_DATA))
    order = [frame.stream for frame in pair.room.frames()]
    assert order == [1, 3, 5, 7] * 3


def test_no_more_than_the_most_are_open_and_that_is_told_apart(pair):
    ends = [pair.room.dial() for _ in range(mux.MAX_OPEN)]
    with pytest.raises(Unavailable) as caught:
        pair.room.dial()
    assert caught.value.code == "too-many"
    pair.move()
    assert pair.node.mux.open_streams == mux.MAX_OPEN
    # The node's own view is full, too; a room that opens on is told so.
    number, pair.room.mux._next = pair.room.mux._next, pair.room.mux._next + 2
    pair.node.say(FrameType.OPEN, number, PORT)
    assert pair.node.frames() == [Frame(type=FrameType.RESET, stream=number, payload=b"too-many")]
    ends[0].stream.reset(Reason.RESET)
    pair.room.dial()
    pair.move()


def test_streams_that_are_given_up_before_their_answer_count_until_it_comes(pair):
    for _ in range(mux.MAX_OPEN):
        pair.room.dial().stream.reset(Reason.RESET)
        pair.room.frames()
    with pytest.raises(Unavailable, match="2048 streams are open"):
        pair.room.dial()


def test_no_number_comes_twice_and_the_last_is_the_last(pair):
    pair.room.mux._next = (1 << 32) - 1
    end = pair.room.dial()
    pair.move()
    assert end.is_accepted
    with pytest.raises(Unavailable, match="all numbers of streams are used") as caught:
        pair.room.dial()
    assert caught.value.code == "too-many"


def test_a_side_that_asks_on_and_reads_no_answers_is_cut_off():
    node = Half(mux.Side.NODE)
    node.answer = "refuse"
    tracemalloc.start()
    try:
        with pytest.raises(Malformed) as caught:
            node.take(
                Frame(type=FrameType.OPEN, stream=number, payload=PORT) for number in range(1, 1 << 20, 2)
            )
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "flooded"
    assert held < 16 << 20


def test_streams_that_are_over_leave_nothing_behind(pair):
    def live(count):
        for _ in range(count):
            end, other = opened(pair)
            end.finish()
            other.finish()
            pair.move()
            pair.room.ends.clear(), pair.node.ends.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = live(100)
        after = live(len(effort.some(range(3000))))
    finally:
        tracemalloc.stop()
    assert after - before < 20_000
    assert pair.room.mux.open_streams == pair.node.mux.open_streams == 0


ACCEPTED = [
    (FrameType.OPEN, 1, PORT),
]
BROKEN = {
    "even from the room": ([(FrameType.OPEN, 2, PORT)], "opens stream 2, expected one of its own above 0"),
    "the control stream": ([(FrameType.OPEN, 0, PORT)], "opens stream 0, expected"),
    "a number again": ([*ACCEPTED, (FrameType.OPEN, 1, PORT)], "opens stream 1, expected .* above 1"),
    "a lower number": ([(FrameType.OPEN, 5, PORT), (FrameType.OPEN, 3, PORT)], "stream 3, expected .* above 5"),
    "no destination": ([(FrameType.OPEN, 1, b"")], "0 bytes, expected 2 to 256"),
    "data of nobody's": ([(FrameType.DATA, 1, b"x")], "sends on stream 1, which was never opened"),
    "data on control": ([(FrameType.DATA, 0, b"x")], "sends on stream 0, which was never opened"),
    "data of the node's that is not yet": ([(FrameType.DATA, 2, b"x")], "stream 2, which was never opened"),
    "end of nobody's": ([(FrameType.END, 1, b"")], "sends on stream 1, which was never opened"),
    "credit of nobody's": ([(FrameType.CREDIT, 1, b"\0\0\0\1")], "sends on stream 1, which was never opened"),
    "reset of nobody's": ([(FrameType.RESET, 1, b"reset")], "sends on stream 1, which was never opened"),
    "data of no bytes": ([*ACCEPTED, (FrameType.DATA, 1, b"")], "stream 1: data of no bytes"),
    "data beyond the first window": (
        [*ACCEPTED, (FrameType.DATA, 1, bytes(mux.FIRST_WINDOW + 1))],
        f"{mux.FIRST_WINDOW + 1} bytes, more than the {mux.FIRST_WINDOW} that were asked for",
    ),
    "data in pieces beyond the first window": (
        [*ACCEPTED, *[(FrameType.DATA, 1, bytes(mux.FIRST_WINDOW))] * 2],
        "more than the 0 that were asked for",
    ),
    "data after the end": (
        [*ACCEPTED, (FrameType.END, 1, b""), (FrameType.DATA, 1, b"x")],
        "stream 1: more after its end",
    ),
    "two ends": ([*ACCEPTED, (FrameType.END, 1, b""), (FrameType.END, 1, b"")], "stream 1: more after its end"),
    "a word that is none": ([*ACCEPTED, (FrameType.RESET, 1, b"because")], "expected one of refused, "),
    "a credit of nothing": ([*ACCEPTED, (FrameType.CREDIT, 1, bytes(4))], "a credit of nothing"),
    "half a credit": ([*ACCEPTED, (FrameType.CREDIT, 1, b"\1")], "a credit of nothing"),
    "too much credit": (
        [*ACCEPTED, (FrameType.CREDIT, 1, (mux.WINDOW - mux.FIRST_WINDOW + 1).to_bytes(4, "big"))],
        f"a credit of {mux.WINDOW + 1} bytes, at most {mux.WINDOW} allowed",
    ),
    "an answer to its own": ([*ACCEPTED, (FrameType.ACCEPT, 1, b"")], "accepts stream 1, which waits for no answer"),
    "an answer to nobody": ([(FrameType.ACCEPT, 2, b"")], "accepts stream 2, which waits for no answer"),
    "a control message on a stream": ([*ACCEPTED, (FrameType.CONTROL, 1, b"{}")], "a control message on stream 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_side_that_breaks_a_rule_is_cut_off(name):
    frames, why = BROKEN[name]
    node = Half(mux.Side.NODE)
    with pytest.raises(Malformed, match=why) as caught:
        node.take(Frame(type=kind, stream=stream, payload=payload) for kind, stream, payload in frames)
    assert caught.value.code in ("bad-channel", "flooded")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(FrameType.DATA, b"x"), (FrameType.END, b""), (FrameType.CREDIT, b"\0\0\0\1")],
)
def test_who_was_asked_says_nothing_before_its_answer(kind, payload):
    room = Half(mux.Side.ROOM)
    room.dial()
    with pytest.raises(Malformed, match="stream 1: used before it is accepted"):
        room.say(kind, 1, payload)


def test_an_answer_comes_once():
    room = Half(mux.Side.ROOM)
    room.dial()
    room.say(FrameType.ACCEPT, 1)
    with pytest.raises(Malformed, match="accepts stream 1, which waits for no answer"):
        room.say(FrameType.ACCEPT, 1)


def test_late_frames_of_a_stream_that_is_over_are_dropped():
    node = Half(mux.Side.NODE)
    node.say(FrameType.OPEN, 1, PORT)
    node.say(FrameType.RESET, 1, b"reset")
    for kind, payload in (
        (FrameType.DATA, bytes(30_000)),
        (FrameType.END, b""),
        (FrameType.CREDIT, b"\0\0\0\1"),
        (FrameType.RESET, b"reset"),
    ):
        node.say(kind, 1, payload)
    assert node.mux.open_streams == 0
