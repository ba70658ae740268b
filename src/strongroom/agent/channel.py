"""The room's end of the channel: one virtio-serial port or vsock connection, many streams (frames: `model/room/channel.py`).

Blocking and single-threaded: whoever waits for something pumps the port until it is there. Writing
never waits without reading, so that two full pipes cannot wait for each other.
What the node may make the agent hold is bounded; a node that sends more is cut off.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from strongroom.encoding import canonical
from strongroom.errors import Malformed, NotFound, Unavailable
from strongroom.model.room import channel as wire

if TYPE_CHECKING:
    from strongroom.model.identifiers import PartyName

PORTS = "/sys/class/virtio-ports"
MAX_BUFFERED = 8 * 1024 * 1024
MAX_CONTROLS = 16
_READ = 64 * 1024
_HOST_ABSENT_PAUSE = 0.01


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
    """

    def __init__(self, fd: int, *, ends: bool = False) -> None:
        self._fd = fd
        self.ends = ends
        os.set_blocking(fd, False)
        self._decoder = wire.Decoder()
        self._controls: list[bytes] = []
        self._streams: dict[int, Stream] = {}
        self._next = 1

    def send_control(self, kind: str, **values: object) -> None:
        """Send one control message."""
        payload = canonical.dumps({"kind": kind, **values})
        self.send(wire.Frame(type=wire.FrameType.CONTROL, stream=0, payload=payload))

    def receive_control(self, timeout: float) -> bytes:
        """The next control message's bytes, within `timeout` seconds. Raises `Unavailable`."""
        deadline = time.monotonic() + timeout
        while not self._controls:
            self.pump(deadline, "the node's message")
        return self._controls.pop(0)

    def open_stream(self, party: PartyName) -> Stream:
        """A stream that the node connects to the broker of `party`."""
        stream = self._new_stream()
        self._streams[stream.id] = stream
        self.send(wire.Frame(type=wire.FrameType.OPEN, stream=stream.id, payload=party.encode()))
        return stream

    def open_file(self, name: str) -> Stream:
        """A stream that the node writes to the file `name` of the run's folder; close it when done."""
        stream = self._new_stream()
        self.send_control("file", stream=stream.id, name=name)
        return stream

    def send_file(self, name: str, content: bytes) -> None:
        """Send a whole small file."""
        stream = self.open_file(name)
        stream.write(content)
        stream.close()

    def send(self, frame: wire.Frame) -> None:
        """Send one frame; takes in what arrives meanwhile."""
        data = memoryview(frame.encode())
        while data:
            readable, writable, _ = select.select([self._fd], [self._fd], [])
            if readable:
                self._receive()
            if writable:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    continue
                except OSError as cause:
                    raise Unavailable(f"writing to the node: {cause.strerror}", code="channel-lost") from None

    def pump(self, deadline: float, what: str) -> None:
        """Take in what has arrived, waiting for it until `deadline` (monotonic). Raises `Unavailable`."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._fd], [], [], left)[0]:
            raise Unavailable(f"waiting for {what}: nothing came in time", code="timed-out")
        self._receive()

    def forget(self, stream: int) -> None:
        """Drop what still comes for a stream that nobody listens to any more."""
        self._streams.pop(stream, None)

    def _receive(self) -> None:
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        except OSError as cause:
            raise Unavailable(f"reading from the node: {cause.strerror}", code="channel-lost") from None
        if not data:
            if self.ends:
                raise Unavailable("the node hung up", code="channel-lost")
            # A virtio port reads as ended while the host side is not connected (yet).
            time.sleep(_HOST_ABSENT_PAUSE)
            return
        for frame in self._decoder.feed(data):
            self._take(frame)

    def _take(self, frame: wire.Frame) -> None:
        if frame.type == wire.FrameType.CONTROL:
            if len(self._controls) >= MAX_CONTROLS:
                raise Malformed("the node sends more control messages than anybody reads", code="flooded")
            self._controls.append(frame.payload)
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            return  # of a stream that was given up; its bytes mean nothing any more
        if frame.type == wire.FrameType.DATA:
            stream.take(frame.payload)
        elif frame.type == wire.FrameType.CLOSE:
            stream.ended = True

    def _new_stream(self) -> Stream:
        stream = Stream(self, self._next)
        self._next += 1
        return stream


class Stream:
    """One stream. `ended` is set when the other side will send no more."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self.id = number
        self.ended = False
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        """Send all of `data`, in frames of bounded size; returns its length."""
        for start in range(0, len(data), wire.MAX_DATA):
            piece = bytes(data[start : start + wire.MAX_DATA])
            self._channel.send(wire.Frame(type=wire.FrameType.DATA, stream=self.id, payload=piece))
        return len(data)

    def read(self, deadline: float) -> bytes:
        """What has arrived, at least one byte; empty at the end. Raises `Unavailable` at `deadline`."""
        while not self._buffer and not self.ended:
            self._channel.pump(deadline, "the broker's answer")
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def close(self) -> None:
        """Say that nothing more comes, and listen no more."""
        self._channel.send(wire.Frame(type=wire.FrameType.CLOSE, stream=self.id, payload=b""))
        self._channel.forget(self.id)

    def take(self, data: bytes) -> None:
        """Keep bytes that arrived. Raises `Malformed` when they are more than anybody asked for."""
        if len(self._buffer) + len(data) > MAX_BUFFERED:
            raise Malformed("the node sends more than was asked for", code="flooded")
        self._buffer += data
