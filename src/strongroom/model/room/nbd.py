"""NBD's numbers and the pieces that both its ends read: the agent's (`agent/disks/nbd`) and the node's (`node/nitro/nbd`).

Spec: NBD protocol, doc/proto.md of the NetworkBlockDevice project. Big-endian throughout.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
REQUEST = ">IHHQQI"  # magic, flags, type, cookie, offset, length
FIXED, NO_ZEROES = 1, 2
EXPORT_NAME, ABORT, LIST, INFO, GO = 1, 2, 3, 6, 7
ACK, SERVER, INFORM = 1, 2, 3
UNSUPPORTED, UNKNOWN = 0x80000001, 0x80000006
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
READ, WRITE, DISCONNECT = 0, 1, 2
WRITING = frozenset({1, 4, 6, 7})  # write, trim, write zeroes, resize
FLAGS = 1 | 2 | 1 << 8  # has flags, read-only, several connections see the same
READ_ONLY = 2
BLOCK = 4096
MAX_OPTION = 4096
MAX_REQUEST = 32 * 1024 * 1024
MAX_REPLIES = 64


class ConnectedSocket(Protocol):
    """A connected socket, as far as it is used here."""

    @property
    def recv(self) -> Callable[[int], bytes]:
        """Some bytes, none at the end."""
        ...


def receive(connection: ConnectedSocket, count: int) -> bytes:
    """Exactly `count` bytes. Raises `Unavailable` when the other side goes before."""
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise Unavailable("NBD: the other side hung up", code="channel-lost")
        data += piece
    return bytes(data)


def asked_name(data: bytes) -> bytes:
    """The export's name in the data of GO or INFO. Raises `Malformed`."""
    if len(data) < 6:
        raise Malformed(f"NBD option: {len(data)} bytes, expected 6 at least")
    length = struct.unpack_from(">I", data)[0]
    rest = data[4 + length :]
    if len(rest) < 2 or len(rest) != 2 + 2 * struct.unpack_from(">H", rest)[0]:
        raise Malformed(f"NBD option: its lengths do not add up to its {len(data)} bytes")
    return data[4 : 4 + length]
