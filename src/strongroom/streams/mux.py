"""The streams of one connection, as states: what comes in is given frame by frame, what goes out is asked for. No input or output.

Rules, for either side (frames: `model/room/channel.py`); whoever breaks one is cut off with `Malformed`, never for load alone:

  1 numbers: the room's are odd, the node's even, each side's grow. So none is used twice, and no list of them is kept
  2 every OPEN gets one answer, ACCEPT or RESET. The opener may send before it, within the first window; the other may not
  3 DATA stays within the credit: `FIRST_WINDOW` at first, and what CREDIT frames add, `WINDOW` at most
  4 nothing but CREDIT comes after END, and no frame for a stream that was never opened. A frame for a stream that is over
    is dropped, since both sides may end it at once
  5 who leaves more answers unread than a side that keeps to the rules can is cut off

At most `MAX_OPEN` streams are open at once. A stream beyond that is reset with `too-many`.

What the other side can make this one hold: a stream's window each, `FIRST_WINDOW` for all and up to `WINDOW` while there is
room in `SHARED`, of which every stream may have a quarter of what is left. So a stream whose bytes nobody takes keeps its
own share and stops no other: every other can still move `FIRST_WINDOW` at a time.

Going out, control messages and answers come first, credit next, then one frame of each stream in turn.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Malformed, Unavailable
from strongroom.model.room import channel as wire
from strongroom.model.room import destination
from strongroom.model.room.channel import FrameType
from strongroom.model.room.destination import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.room.destination import Destination, Kind

    Answer = Callable[["Stream", str], "StreamEnd | Reason"]

WINDOW = 256 * 1024
FIRST_WINDOW = 8 * 1024
SHARED = 8 * 1024 * 1024
MAX_OPEN = 2048
_MAX_NUMBER = (1 << 32) - 1
_MAX_UNSENT = 8 * MAX_OPEN  # frames: answers to as many streams as can be open, and more of this side's own
_LEAST_ROOM = 512  # bytes: no frame of DATA is made into less
_DATA = int(FrameType.DATA)
_CREDIT_FRAME = wire.HEADER + 4


class Side(enum.IntEnum):
    """Which end of the connection this is; the value is the number of its first stream."""

    ROOM = 1
    NODE = 2


class StreamEnd(Protocol):
    """What a stream ends in on this side: a socket, a file, a buffer."""

    def take(self, data: memoryview) -> None:
        """Bytes have come. They are valid until this returns; `Stream.consumed` gives the credit back."""

    def fill(self, view: memoryview) -> int:
        """Write what is to be sent into `view`, which may be empty: how many bytes, 0 for none now, -1 for none ever again."""

    def accepted(self) -> None:
        """The other side has connected the stream."""

    def ended(self) -> None:
        """The other side sends no more."""

    def over(self, reason: Reason | None) -> None:
        """The stream is over: both sides have ended it and all that came is consumed, it was reset, which `reason` says, or this
        side's mux is closed.
        """


class Stream:
    """One stream, as its end on this side sees it."""

    __slots__ = (
        *("_mux", "number", "own", "end", "answered", "credit", "window", "held", "given"),
        *("sent_end", "got_end", "is_over", "in_turn", "owes"),
    )

    def __init__(self, mux: Mux, number: int, *, own: bool) -> None:
        self._mux = mux
        self.number = number
        self.own = own  # opened by this side
        self.end: StreamEnd
        self.answered = False
        self.credit = FIRST_WINDOW  # what this side may send
        self.window = FIRST_WINDOW  # what the other side may send
        self.held = 0  # what came and is not consumed
        self.given = FIRST_WINDOW  # the sum of both when credit was given last
        self.sent_end = self.got_end = self.is_over = False
        self.in_turn = self.owes = False

    def accept(self) -> None:
        """Answer the other side's OPEN: it is connected."""
        if not self.answered and not self.is_over:
            self.answered = True
            self._mux.send(FrameType.ACCEPT, self.number)
            self.ready()

    def ready(self) -> None:
        """The end may have something to send, or nothing ever again."""
        if not (self.in_turn or self.sent_end or self.is_over) and (self.own or self.answered):
            self.in_turn = True
            self._mux.turns.append(self)

    def consumed(self, count: int) -> None:
        """So many bytes of what came are out of this side's memory."""
        if self.is_over:
            return
        self._mux.take_back(self, count)
        if self.got_end:
            self._mux.end_if_over(self)
        elif not self.owes and self._mux.grant(self):
            self.owes = True
            self._mux.credits.append(self)

    def reset(self, reason: Reason) -> None:
        """Give the stream up, both ways and at once. `StreamEnd.over` is called."""
        if not self.is_over:
            self._mux.give_up(self, reason)


class Mux:
    """One side of the connection. on_control: called with the bytes of each control message."""

    def __init__(self, side: Side, on_control: Callable[[bytes], None]) -> None:
        self._side = side
        self._on_control = on_control
        self._next = int(side)
        self._theirs = 0  # the highest number of theirs
        self._streams: dict[int, Stream] = {}
        self._given_up: set[int] = set()  # own ones, reset before their answer came: it still comes
        self._answers: dict[Kind, Answer] = {}
        self._urgent: deque[memoryview] = deque()
        self._lent = 0  # of `SHARED`
        self.credits: deque[Stream] = deque()
        self.turns: deque[Stream] = deque()

    @property
    def open_streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    @property
    def has_output(self) -> bool:
        """Whether `fill` may have something."""
        return bool(self._urgent or self.credits or self.turns)

    def listen(self, kind: Kind, answer: Answer) -> None:
        """Have `answer(stream, name)` say what a stream to that kind of destination ends in, or why it is not connected.

        `Stream.accept` says that it is connected, then or later. Kinds that nobody listens for are refused.
        """
        self._answers[kind] = answer

    def dial(self, where: Destination, end: StreamEnd) -> Stream:
        """Open a stream, which may be sent on at once. Raises `Unavailable` (`too-many`) at the bound."""
        if len(self._streams) + len(self._given_up) >= MAX_OPEN or len(self._urgent) >= MAX_OPEN:
            raise Unavailable(
                f"{MAX_OPEN} streams are open, which is the most at once",
                code="too-many",
                hint="close some, or wait until some end",
            )
        if self._next > _MAX_NUMBER:
            raise Unavailable(
                "all numbers of streams are used",
                code="too-many",
                hint=f"a connection has {_MAX_NUMBER // 2} streams in its life: start another room",
            )
        stream = Stream(self, self._next, own=True)
        self._next += 2
        stream.end = end
        self._streams[stream.number] = stream
        self.send(FrameType.OPEN, stream.number, where.encode())
        stream.ready()
        return stream

    def send_control(self, payload: bytes) -> None:
        """Send a control message."""
        self.send(FrameType.CONTROL, 0, payload)

    def send(self, kind: FrameType, number: int, payload: bytes = b"") -> None:
        """Send a frame before all DATA. Raises `Malformed` when the other side reads nothing and asks on."""
        if len(self._urgent) >= _MAX_UNSENT:
            raise Malformed(  # rule 5
                "the other side of the channel asks for more than it reads answers to", code="flooded"
            )
        self._urgent.append(memoryview(wire.Frame(type=kind, stream=number, payload=payload).encode()))

    def fill(self, view: memoryview) -> int:
        """Write frames into `view`, of `wire.PIECE` bytes; how many bytes, 0 for none now."""
        at, size = 0, len(view)
        urgent = self._urgent
        while urgent:
            frame = urgent[0]
            count = min(len(frame), size - at)
            view[at : at + count] = frame[:count]
            at += count
            if count < len(frame):
                urgent[0] = frame[count:]
                return at
            urgent.popleft()
        while self.credits and size - at >= _CREDIT_FRAME:
            at = self._give_credit(self.credits.popleft(), view, at)
        while self.turns and size - at >= _LEAST_ROOM:
            at = self._send_from(self.turns.popleft(), view, at)
            if urgent:  # something that the end did meanwhile
                break
        return at

    def receive(self, kind: int, number: int, payload: memoryview) -> None:
        """Take one frame in. Raises `Malformed`, and what ends and listeners raise."""
        if kind == _DATA:
            stream = self._streams.get(number)
            if stream is None:
                self._drop(number)
                return
            count = len(payload)
            if (
                count > stream.window
                or not count
                or stream.got_end
                or not (stream.answered or not stream.own)
            ):
                raise _broken(stream, count)
            stream.window -= count
            stream.held += count
            stream.end.take(payload)
        elif kind == FrameType.CONTROL:
            if number:
                raise Malformed(f"a control message on stream {number}", code="bad-channel")
            self._on_control(bytes(payload))
        elif kind == FrameType.OPEN:
            self._take_open(number, bytes(payload))
        elif kind == FrameType.ACCEPT:
            self._take_accept(number)
        elif kind == FrameType.RESET:
            self._take_reset(number, destination.parse_reason(bytes(payload)))
        elif kind == FrameType.CREDIT:
            self._take_credit(number, bytes(payload))
        else:
            self._take_end(number)

    def take_back(self, stream: Stream, count: int) -> None:
        """So many bytes less are held for the stream."""
        self._count_lent(stream, -1)
        stream.held -= count
        self._count_lent(stream, 1)

    def close(self) -> None:
        """End all streams on this side alone."""
        for stream in tuple(self._streams.values()):
            self._forget(stream)
            stream.end.over(None)

    def grant(self, stream: Stream) -> int:
        """How much more the other side may send on `stream`: 0 until half of what it was given is consumed."""
        exposed = stream.window + stream.held
        if 2 * exposed > stream.given:
            return 0
        left = SHARED - self._lent + max(0, exposed - FIRST_WINDOW)
        return max(0, FIRST_WINDOW + min(WINDOW - FIRST_WINDOW, left // 4) - exposed)

    def end_if_over(self, stream: Stream) -> None:
        """Forget the stream if both sides have ended it and nothing of it is held."""
        if stream.sent_end and stream.got_end and not stream.held and not stream.is_over:
            self._forget(stream)
            stream.end.over(None)

    def give_up(self, stream: Stream, reason: Reason) -> None:
        """Reset the stream from this side."""
        self._forget(stream)
        if stream.own and not stream.answered:
            self._given_up.add(stream.number)
        self.send(FrameType.RESET, stream.number, reason.encode("ascii"))
        stream.end.over(reason)

    def _forget(self, stream: Stream) -> None:
        stream.is_over = True
        self._count_lent(stream, -1)
        del self._streams[stream.number]

    def _count_lent(self, stream: Stream, sign: int) -> None:
        self._lent += sign * max(0, stream.window + stream.held - FIRST_WINDOW)

    def _give_credit(self, stream: Stream, view: memoryview, at: int) -> int:
        stream.owes = False
        more = 0 if stream.is_over or stream.got_end else self.grant(stream)
        if not more:
            return at
        self._count_lent(stream, -1)
        stream.window += more
        stream.given = stream.window + stream.held
        self._count_lent(stream, 1)
        wire.write_head(view, at, FrameType.CREDIT, stream.number, 4)
        view[at + wire.HEADER : at + _CREDIT_FRAME] = more.to_bytes(4, "big")
        return at + _CREDIT_FRAME

    def _send_from(self, stream: Stream, view: memoryview, at: int) -> int:
        stream.in_turn = False
        if stream.is_over or stream.sent_end:
            return at
        body = at + wire.HEADER
        count = stream.end.fill(view[body : body + min(stream.credit, wire.MAX_DATA)])
        if count > 0:
            stream.credit -= count
            wire.write_head(view, at, _DATA, stream.number, count)
            if not stream.is_over:
                stream.in_turn = True
                self.turns.append(stream)
            return body + count
        if count < 0 and not stream.is_over:
            stream.sent_end = True
            wire.write_head(view, at, FrameType.END, stream.number, 0)
            self.end_if_over(stream)
            return body
        return at

    def _take_open(self, number: int, payload: bytes) -> None:
        if number % 2 == self._side % 2 or number <= self._theirs:
            raise Malformed(  # rule 1
                f"the other side of the channel opens stream {number}, expected one of its own above {self._theirs}",
                code="bad-channel",
            )
        self._theirs = number
        where = destination.parse(payload)
        if len(self._streams) >= MAX_OPEN:
            self.send(FrameType.RESET, number, Reason.TOO_MANY.encode("ascii"))
            return
        answer = self._answers.get(where.kind)
        stream = Stream(self, number, own=False)
        end = Reason.NOT_ALLOWED if answer is None else answer(stream, where.name)
        if isinstance(end, Reason):
            stream.is_over = True
            self.send(FrameType.RESET, number, end.encode("ascii"))
        else:
            stream.end = end
            self._streams[number] = stream

    def _take_accept(self, number: int) -> None:
        if number in self._given_up:
            self._given_up.remove(number)
            return
        stream = self._streams.get(number)
        if stream is None or not stream.own or stream.answered:
            raise Malformed(  # rule 2
                f"the other side of the channel accepts stream {number}, which waits for no answer",
                code="bad-channel",
            )
        stream.answered = True
        stream.end.accepted()

    def _take_reset(self, number: int, reason: Reason) -> None:
        if number in self._given_up:
            self._given_up.remove(number)
            return
        stream = self._streams.get(number)
        if stream is None:
            self._drop(number)
            return
        if not stream.own and not stream.answered:  # rule 2
            self.send(FrameType.RESET, number, Reason.RESET.encode("ascii"))
        self._forget(stream)
        stream.end.over(reason)

    def _take_credit(self, number: int, payload: bytes) -> None:
        more = int.from_bytes(payload, "big")
        stream = self._streams.get(number)
        if len(payload) != 4 or not more:
            raise Malformed(f"stream {number}: a credit of nothing", code="bad-channel")
        if stream is None:
            self._drop(number)
            return
        if stream.own and not stream.answered:
            raise _broken(stream, 0)
        if stream.credit + more > WINDOW:
            raise Malformed(  # rule 3
                f"stream {number}: a credit of {stream.credit + more} bytes, at most {WINDOW} allowed",
                code="bad-channel",
            )
        stream.credit += more
        stream.ready()

    def _take_end(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            self._drop(number)
            return
        if stream.got_end or (stream.own and not stream.answered):
            raise _broken(stream, 0)
        stream.got_end = True
        stream.end.ended()
        self.end_if_over(stream)

    def _drop(self, number: int) -> None:
        """A frame of a stream that is over is dropped. Raises `Malformed` for one that never was (rule 4)."""
        last = self._next - 1 if number % 2 == self._side % 2 else self._theirs
        if not 0 < number <= last:
            raise Malformed(
                f"the other side of the channel sends on stream {number}, which was never opened",
                code="bad-channel",
            )


def _broken(stream: Stream, count: int) -> Malformed:
    if stream.own and not stream.answered:
        return Malformed(f"stream {stream.number}: used before it is accepted", code="bad-channel")  # rule 2
    if stream.got_end:
        return Malformed(f"stream {stream.number}: more after its end", code="bad-channel")  # rule 4
    if not count:
        return Malformed(f"stream {stream.number}: data of no bytes", code="bad-channel")
    return Malformed(  # rule 3
        f"stream {stream.number}: {count} bytes, more than the {stream.window} that were asked for",
        code="flooded",
    )
