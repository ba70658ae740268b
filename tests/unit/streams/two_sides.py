"""Both sides of a connection in memory, for tests: ends that keep what comes, and a pipe that a test moves by hand."""

from __future__ import annotations

from strongroom.model.room import channel as wire
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.streams import mux


class Kept:
    """An end that sends what it is given and keeps what comes until `eat`."""

    def __init__(self, stream=None):
        self.stream = stream
        self.outgoing, self.finishes = bytearray(), False
        self.came, self.eaten = bytearray(), 0
        self.is_accepted = self.got_end = self.is_over = False
        self.reason = None

    def send(self, data):
        self.outgoing += data
        self.stream.ready()

    def finish(self):
        self.finishes = True
        self.stream.ready()

    def eat(self, count=None):
        left = len(self.came) - self.eaten
        count = left if count is None else min(count, left)
        if count:
            self.eaten += count
            self.stream.consumed(count)

    def take(self, data):
        assert not self.got_end
        assert not self.is_over
        self.came += data
        assert len(self.came) - self.eaten <= mux.WINDOW

    def fill(self, view):
        count = min(len(view), len(self.outgoing))
        view[:count] = self.outgoing[:count]
        del self.outgoing[:count]
        return -1 if self.finishes and not self.outgoing and not count else count

    def accepted(self):
        self.is_accepted = True

    def ended(self):
        self.got_end = True

    def over(self, reason):
        assert not self.is_over
        self.is_over, self.reason = True, reason


class Half:
    """One side. Streams that the other opens end in `Kept`, are refused, or wait for an answer, as `answer` says."""

    def __init__(self, side):
        self.controls, self.ends = [], []
        self.mux = mux.Mux(side, self.controls.append)
        self.answer = "accept"
        self.decoder = wire.Decoder()
        for kind in (Kind.PORT, Kind.BROKER):
            self.mux.listen(kind, self._open)

    def _open(self, stream, name):
        if self.answer == "refuse":
            return Reason.REFUSED
        end = Kept(stream)
        end.name = name
        self.ends.append(end)
        if self.answer == "accept":
            stream.accept()
        return end

    def dial(self, name="http", kind=Kind.PORT):
        end = Kept()
        end.stream = self.mux.dial(Destination(kind=kind, name=name), end)
        self.ends.append(end)
        return end

    def frames(self, most=1 << 30):
        """What this side sends now, as frames."""
        view, out = memoryview(bytearray(wire.PIECE)), []
        decoder = wire.Decoder()
        while most > 0 and (count := self.mux.fill(view)):
            out += decoder.feed(bytes(view[:count]))
            most -= count
        return out

    def take(self, frames):
        for frame in frames:
            self.mux.receive(frame.type, frame.stream, memoryview(frame.payload))

    def say(self, kind, stream, payload=b""):
        """Take one frame that the other side did not send."""
        self.mux.receive(kind, stream, memoryview(payload))


class Pair:
    """The room and the node."""

    def __init__(self):
        self.room, self.node = Half(mux.Side.ROOM), Half(mux.Side.NODE)

    def move(self):
        """Carry all that either side sends, until none does."""
        moved = True
        while moved:
            moved = False
            for one, other in ((self.room, self.node), (self.node, self.room)):
                frames = one.frames()
                moved = moved or bool(frames)
                other.take(frames)
