"""The frames between the agent and the node, on a virtio-serial port or (Nitro) a vsock connection.

Frame: type(1) ‖ stream(4, big-endian) ‖ length(4, big-endian) ‖ payload.

CONTROL  stream 0, a JSON object with `kind` (below)
OPEN     a new stream; the payload says where to (`model/room/destination.py`)
ACCEPT   the answer to OPEN: the stream is connected
DATA     bytes of a stream, at least one, within the credit that the other side has given
END      this side sends no more bytes on the stream; the other still may
RESET    the stream is over at once, both ways; the payload is a word that says why. Also the answer to OPEN: no
CREDIT   the sender of this frame takes so many bytes more (4, big-endian) on the stream

Streams that the room opens have odd numbers, those of the node even ones, and each side's numbers grow. What the frames
of a stream mean, and when they are refused, is in `strongroom.streams.mux`.

Control messages, node → agent::

    {"kind": "start", "agreement": BASE64, "room": which of the contract's rooms this is, "launch_record": BASE64,
     "issuers": BASE64 of the DER certificates from the attestation key's issuer to the root, concatenated,
     "manifests": {serial: BASE64 of the signed manifest},    serial: "image", "data-0", "data-1", …
     "earlier": [BASE64 of an earlier version's envelope]}     for brokers that do not know it yet
    {"kind": "stop"}                                           a service is to end

agent → node::

    {"kind": "hello"}
    {"kind": "phase", "name": text, "milliseconds": uptime}    what a bystander may know
    {"kind": "failed", "code", "message", "hint", "checks": [Check]}
    {"kind": "done"}

Nothing on this channel is trusted by either side: the agent checks every byte against digests and
pinned keys, the node connects only to brokers that the contract names and writes only plain file names.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed
from strongroom.model import manifest
from strongroom.model.contracts import agreement, contract
from strongroom.model.identifiers import RoomName
from strongroom.model.room import launch

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT_NAME = "strongroom"
STOP = "stop"
# Phases of a service: RENEWED:PARTY at each renewal, RENEWAL_WAITS when one fails, CERTIFICATE… for what came of a new certificate.
RENEWED, RENEWAL_WAITS = "renewed", "renewal-waits"
CERTIFICATE = "certificate-"
VSOCK_CHANNEL, VSOCK_DISKS = (
    21330,
    21331,
)  # where the node listens: for this channel, and for its disks by NBD
HEADER = 9
PIECE = 32 * 1024  # the most that virtio_console takes in one write
MAX_CONTROL = 8 * 1024 * 1024
MAX_DATA = PIECE - HEADER
MAX_DESTINATION = 256
MAX_REASON = 16
MAX_ISSUERS = 64 * 1024
MAX_MANIFESTS = 65
MAX_TEXT = 4096  # characters of a failure's message and of its hint
SERIAL_IMAGE = "image"
# What an output's tar may have beyond the contract's bytes: headers and padding of many small files.
TAR_ALLOWANCE = 64 << 20


class FrameType(enum.IntEnum):
    """What a frame is."""

    CONTROL = 1
    OPEN = 2
    DATA = 3
    END = 4
    ACCEPT = 5
    RESET = 6
    CREDIT = 7


_HEAD = struct.Struct(">BII")
_MOST = {
    FrameType.CONTROL: MAX_CONTROL,
    FrameType.OPEN: MAX_DESTINATION,
    FrameType.DATA: MAX_DATA,
    FrameType.END: 0,
    FrameType.ACCEPT: 0,
    FrameType.RESET: MAX_REASON,
    FrameType.CREDIT: 4,
}
_BUFFER = 4 * PIECE


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame."""

    type: FrameType
    stream: int
    payload: bytes

    def encode(self) -> bytes:
        """Header and payload."""
        return _HEAD.pack(self.type, self.stream, len(self.payload)) + self.payload


def write_head(buffer: memoryview, at: int, kind: int, stream: int, length: int) -> None:
    """Write a header into `buffer`, whose payload is written behind it."""
    _HEAD.pack_into(buffer, at, kind, stream, length)


class Decoder:
    """Turns bytes as they come into frames, without copying them: they are read into `space` and counted by `took`."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0

    def space(self) -> memoryview:
        """Where the next bytes go, never empty. What `frames` gave before is overwritten by them."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > _BUFFER:  # a long control message is over
                self._buffer = memoryview(bytearray(_BUFFER))
        elif len(self._buffer) - self._end < PIECE:
            self._move()
        return self._buffer[self._end :]

    def took(self, count: int) -> None:
        """So many bytes came into `space`."""
        self._end += count

    def frames(self) -> Iterator[tuple[int, int, memoryview]]:
        """Type, stream and payload of each frame that is complete. Raises `Malformed` on a bad header."""
        while self._end - self._start >= HEADER:
            kind, stream, length = _HEAD.unpack_from(self._buffer, self._start)
            most = _MOST.get(kind)
            if most is None:
                raise Malformed(f"channel frame: type {kind}, expected 1 to {len(FrameType)}")
            if length > most:
                raise Malformed(f"channel frame: {length} bytes, at most {most} allowed")
            body = self._start + HEADER
            if self._end - body < length:
                return
            self._start = body + length
            yield kind, stream, self._buffer[body : self._start]

    def feed(self, data: bytes) -> list[Frame]:
        """Take `data`; return the frames that are complete, as values. Raises `Malformed` as `frames` does."""
        frames = []
        left = memoryview(data)
        while left:
            space = self.space()
            count = min(len(space), len(left))
            space[:count] = left[:count]
            self.took(count)
            left = left[count:]
            frames += [
                Frame(type=FrameType(kind), stream=stream, payload=bytes(payload))
                for kind, stream, payload in self.frames()
            ]
        return frames

    def _move(self) -> None:
        """The incomplete frame to the front, in a buffer in which it has room."""
        held = self._end - self._start
        size = _BUFFER
        if held >= HEADER:  # its header was checked by `frames`
            size = max(size, HEADER + _HEAD.unpack_from(self._buffer, self._start)[2])
        target = self._buffer if len(self._buffer) >= size else memoryview(bytearray(size))
        target[:held] = self._buffer[self._start : self._end]
        self._buffer, self._start, self._end = target, 0, held


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the node hands to the agent, none of it believed yet.

    agreement: the contract in its envelope. room: which of its rooms this is; a room takes one role in its life. launch_record: the exact bytes that were measured.
    issuers: DER certificates that vouch for the attestation key, issuer first, root last.
    manifests: signed manifests (envelope bytes) by the serial of the disk that they describe.
    earlier: envelopes of the contract's earlier versions, lowest first. The agent hands them to the brokers as they are.
    """

    agreement: bytes
    room: RoomName
    launch_record: bytes
    issuers: bytes
    manifests: dict[str, bytes]
    earlier: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The control message's bytes."""
        return canonical.dumps(
            {
                "kind": "start",
                "agreement": fields.format_data(self.agreement),
                "room": self.room,
                "launch_record": fields.format_data(self.launch_record),
                "issuers": fields.format_data(self.issuers),
                "manifests": {name: fields.format_data(data) for name, data in self.manifests.items()},
                "earlier": [fields.format_data(envelope) for envelope in self.earlier],
            }
        )


def parse_start(data: bytes) -> Start:
    """Parse the start message. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="start message", max_bytes=MAX_CONTROL), "start message")
    top.constant("kind", "start")
    inner = top.object("manifests")
    names = inner.names()
    if len(names) > MAX_MANIFESTS:
        raise Malformed(f"start message: {len(names)} manifests, at most {MAX_MANIFESTS} allowed")
    manifests = {}
    for name in names:
        if fields.NAME.fullmatch(name) is None:
            raise Malformed(
                f"start message.manifests: expected {fields.NAME_LIKE}, got {unexpected.quoted(name)}"
            )
        manifests[name] = inner.data(name, max_bytes=3 * manifest.MAX_BYTES)
    start = Start(
        agreement=top.data("agreement", max_bytes=3 * contract.MAX_BYTES),
        room=RoomName(top.name("room")),
        launch_record=top.data("launch_record", max_bytes=launch.MAX_BYTES),
        issuers=top.data("issuers", max_bytes=MAX_ISSUERS),
        manifests=manifests,
        earlier=agreement.read_earlier(top),
    )
    top.done()
    return start


def data_serial(index: int) -> str:
    """The serial of the disk of the contract's dataset number `index`."""
    return f"data-{index}"
