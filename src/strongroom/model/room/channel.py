"""The frames between the agent and the node, on a virtio-serial port or (Nitro) a vsock connection.

Frame: type(1) ‖ stream(4, big-endian) ‖ length(4, big-endian) ‖ payload.

CONTROL  stream 0, a JSON object with `kind` (below)
OPEN     agent → node: connect `stream` to the broker of the party named in the payload
DATA     bytes of a stream, either way
CLOSE    no more bytes from this side; for a stream of a broker it ends both ways

Control messages, node → agent::

    {"kind": "start", "agreement": BASE64, "room": which of the contract's rooms this is, "launch_record": BASE64,
     "issuers": BASE64 of the DER certificates from the attestation key's issuer to the root, concatenated,
     "manifests": {serial: BASE64 of the signed manifest},    serial: "image", "data-0", "data-1", …
     "earlier": [BASE64 of an earlier version's envelope]}     for brokers that do not know it yet

agent → node::

    {"kind": "hello"}
    {"kind": "phase", "name": text, "milliseconds": uptime}    what a bystander may know
    {"kind": "file", "stream": n, "name": text}                DATA and CLOSE on that stream follow
    {"kind": "failed", "code", "message", "hint", "checks": [Check]}
    {"kind": "done"}

Nothing on this channel is trusted by either side: the agent checks every byte against digests and
pinned keys, the node connects only to brokers that the contract names and writes only plain file names.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed
from strongroom.model import manifest
from strongroom.model.contracts import agreement, contract
from strongroom.model.identifiers import RoomName
from strongroom.model.room import launch

PORT_NAME = "strongroom"
VSOCK_CHANNEL, VSOCK_DISKS = (
    21330,
    21331,
)  # where the node listens: for this channel, and for its disks by NBD
HEADER = 9
MAX_CONTROL = 8 * 1024 * 1024
MAX_DATA = 64 * 1024
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
    CLOSE = 4


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame."""

    type: FrameType
    stream: int
    payload: bytes

    def encode(self) -> bytes:
        """Header and payload."""
        head = bytes([self.type]) + self.stream.to_bytes(4, "big")
        return head + len(self.payload).to_bytes(4, "big") + self.payload


class Decoder:
    """Turns bytes as they come into frames. `feed` raises `Malformed` on a bad header."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take `data`; return the frames that are complete."""
        self._buffer += data
        frames = []
        offset = 0
        while len(self._buffer) - offset >= HEADER:
            kind = self._buffer[offset]
            length = int.from_bytes(self._buffer[offset + 5 : offset + 9], "big")
            if kind not in FrameType.__members__.values():
                raise Malformed(f"channel frame: type {kind}, expected 1 to {len(FrameType)}")
            most = MAX_CONTROL if kind == FrameType.CONTROL else MAX_DATA
            if length > most:
                raise Malformed(f"channel frame: {length} bytes, at most {most} allowed")
            end = offset + HEADER + length
            if len(self._buffer) < end:
                break
            frames.append(
                Frame(
                    type=FrameType(kind),
                    stream=int.from_bytes(self._buffer[offset + 1 : offset + 5], "big"),
                    payload=bytes(self._buffer[offset + HEADER : end]),
                )
            )
            offset = end
        del self._buffer[:offset]
        return frames


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
