"""The room's end of the channel: one virtio-serial port or vsock connection, many streams (frames: `model/room/channel.py`).

Blocking and single-threaded: whoever waits for something turns the loop (`strongroom.streams.loop`) until it is there. The
loop reads whenever it can, so that two full pipes cannot wait for each other.
What the node may make the agent hold is bounded; a node that sends more is cut off.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from strongroom.encoding import canonical
from strongroom.errors import Malformed, NotFound, Unavailable
from strongroom.model.room import channel as wire
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.streams.loop import Loop
from strongroom.streams.mux import Side

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.identifiers import PartyName
    from strongroom.streams.carrier import Carrier

PORTS = "/sys/class/virtio-ports"
MAX_CONTROLS = 16
_LOOK = 1.0  # seconds between two looks at whether to go on waiting for the node


def find_port(ports: str = PORTS) -> str:
    """The device path of the port that is named as `wire.PORT_NAME`. Raises `NotFound`."""
    for entry in sorted(os.listdir(ports)) if os.path.isdir(ports) else []:
        with open(f"{ports}/{entry}/name", "rb") as file:
            if file.read(64).strip() == wire.PORT_NAME.encode():
                return f"/dev/{entry}"
    raise NotFound(
        f"no virtio-serial port is named {wire.PORT_NAME!r}",
        code="no-channel",
        hint="the room must be started by `strongroom run`, which gives it one",
    )


def open_port(path: str) -> Channel:
    """Open the port's device."""
    return Channel(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def open_any() -> Channel:
    """The channel of this room: its virtio-serial port, or where there is none (a Nitro enclave) a vsock connection."""
    try:
        return open_port(find_port())
    except NotFound:
        from strongroom.agent import vsock  # noqa: PLC0415

        vsock.report_boot()
        return Channel(vsock.connect(vsock.CHANNEL).detach(), ends=True)


class Channel:
    """Control messages, broker streams and files over one file descriptor (taken over, non-blocking).

    ends: whether a read of nothing is the end, as of a socket; a virtio port reads so while the host is not there.
    Streams that the node opens are refused, unless somebody listens for them at the `carrier`.
    """

    def __init__(self, fd: int, *, ends: bool = False) -> None:
        self._fd = fd
        self.ends = ends
        self._controls: list[bytes] = []
        self.must_hurry: Callable[[], bool] = lambda: False  # whether whoever waits for bytes is to give up
        self.carrier: Carrier = Loop(fd, Side.ROOM, self._take_control, ends=ends)

    def send_control(self, kind: str, **values: object) -> None:
        """Send one control message; returns when it is out."""
        self.carrier.send_control(canonical.dumps({"kind": kind, **values}))
        self.wait_until(lambda: True)

    def receive_control(self, timeout: float) -> bytes:
        """The next control message's bytes, within `timeout` seconds. Raises `Unavailable`."""
        deadline = time.monotonic() + timeout
        while not self._controls:
            self.pump(deadline, "the node's message")
        return self._controls.pop(0)

    def take_controls(self) -> list[bytes]:
        """The bytes of control messages that have come."""
        taken, self._controls = self._controls, []
        return taken

    def open_stream(self, party: PartyName) -> BlockingStream:
        """A stream that the node connects to the broker of `party`."""
        return BlockingStream(self, self.carrier, Destination(kind=Kind.BROKER, name=party))

    def open_file(self, name: str) -> BlockingStream:
        """A stream that the node writes to the file `name` of the run's folder; finish it when done."""
        return BlockingStream(self, self.carrier, Destination(kind=Kind.FILE, name=name))

    def send_file(self, name: str, content: bytes) -> None:
        """Send a whole small file."""
        stream = self.open_file(name)
        stream.write(content)
        stream.finish()

    def pump(self, deadline: float, what: str) -> None:
        """Take in what has arrived, waiting for it until `deadline` (monotonic). Raises `Unavailable`."""
        left = deadline - time.monotonic()
        if left <= 0 or not self._turn(left):
            raise Unavailable(f"waiting for {what}: nothing came in time", code="timed-out")
        self._complain_if_hurried(what)

    def _complain_if_hurried(self, what: str) -> None:
        if self.must_hurry():
            raise Unavailable(
                f"waiting for {what}: the room is to end",
                code="stopped",
                hint="the node or a broker asked for it meanwhile",
            )

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Move bytes until that holds and all is out, however long the node takes. Raises `Unavailable` when it is gone, or the room is to end."""
        self.carrier.write()
        while not (holds() and self.carrier.is_sent):
            self._turn(_LOOK)
            self._complain_if_hurried("the node to take what is sent")
        self._must_have_node()

    def _turn(self, seconds: float) -> bool:
        is_busy = self.carrier.turn(seconds)
        self._must_have_node()
        return is_busy

    def _must_have_node(self) -> None:
        if self.carrier.lost:
            raise Unavailable(f"the channel to the node: {self.carrier.lost}", code="channel-lost")

    def _take_control(self, payload: bytes) -> None:
        if len(self._controls) >= MAX_CONTROLS:
            raise Malformed("the node sends more control messages than anybody reads", code="flooded")
        self._controls.append(payload)


class BlockingStream:
    """One stream, which blocks. `is_ended` is set when the other side will send no more, `reason` when it gave the stream up."""

    def __init__(self, channel: Channel, carrier: Carrier, where: Destination) -> None:
        self._channel = channel
        self._where = where
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")
        self._is_finishing = False
        self.is_ended = False
        self.reason: Reason | None = None
        self._stream = carrier.dial(where, self)

    def write(self, data: bytes) -> int:
        """Send all of `data`; returns its length. To a stream that the node has given up, it goes nowhere."""
        self._outgoing = memoryview(data)
        self._stream.ready()
        self._channel.wait_until(lambda: not self._outgoing or self._stream.is_over)
        self._outgoing = memoryview(b"")
        return len(data)

    def read(self, deadline: float) -> bytes:
        """What has arrived, at least one byte; empty at the end. Raises `Unavailable` at `deadline`."""
        while not self._incoming and not self.is_ended:
            self._channel.pump(deadline, "the broker's answer")
        data = bytes(self._incoming)
        self._incoming.clear()
        self._stream.consumed(len(data))
        return data

    def finish(self) -> None:
        """Say that nothing more comes; returns when that is out. Raises `Unavailable` if the node has not taken all of it."""
        self._is_finishing = True
        self._stream.ready()
        self._channel.wait_until(lambda: self._stream.sent_end or self._stream.is_over)
        if self.reason is not None:
            raise Unavailable(f"the node does not take the {self._where}: {self.reason}", code="channel-lost")

    def close(self) -> None:
        """Give the stream back, whatever still comes."""
        self._stream.reset(Reason.RESET)
        with contextlib.suppress(Unavailable):  # a node that is gone has given up the stream, too
            self._channel.wait_until(lambda: True)

    def take(self, data: memoryview) -> None:
        """Of the stream: keep what came."""
        self._incoming += data

    def fill(self, view: memoryview) -> int:
        """Of the stream: what `write` has."""
        count = min(len(self._outgoing), len(view))
        view[:count] = self._outgoing[:count]
        self._outgoing = self._outgoing[count:]
        return -1 if self._is_finishing and not count and not self._outgoing else count

    def accepted(self) -> None:
        """Of the stream: nobody waits for that."""

    def ended(self) -> None:
        """Of the stream: the other side sends no more."""
        self.is_ended = True

    def over(self, reason: Reason | None) -> None:
        """Of the stream: it is over."""
        self.is_ended, self.reason = True, reason
