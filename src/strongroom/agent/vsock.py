"""AF_VSOCK from a Nitro enclave to its parent instance: the only way out of an enclave, which has no virtio ports.

The agent connects, the node listens (`node/vsock`). What goes over it is believed as little as over a virtio port.
Spec of the first word: AWS Nitro Enclaves tell `nitro-cli` that they have booted by one byte on port 9000, which it
sends back; an enclave that does not is given up by it.
"""

from __future__ import annotations

import contextlib
import socket
import time

from strongroom.errors import Unavailable
from strongroom.model.room import channel as wire

PARENT = 3  # the context identifier (CID) of the parent instance
CHANNEL = wire.VSOCK_CHANNEL
DISKS = wire.VSOCK_DISKS
CONNECT_SECONDS = 60.0
_BOOTED_PORT, _BOOTED = 9000, b"\xb7"
_BOOTED_SECONDS = 5.0
_PAUSE = 0.05


def connect(port: int, *, cid: int = PARENT, seconds: float = CONNECT_SECONDS) -> socket.socket:
    """A connection to the parent's `port`, which may not listen yet. Raises `Unavailable`."""
    ends = time.monotonic() + seconds
    while True:
        try:
            connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as cause:
            raise _no_way(port, cause) from None
        try:
            connection.settimeout(max(_PAUSE, ends - time.monotonic()))
            connection.connect((cid, port))
        except OSError as cause:
            connection.close()
            if time.monotonic() >= ends:
                raise _no_way(port, cause) from None
            time.sleep(_PAUSE)
        else:
            connection.settimeout(None)
            return connection


def report_boot() -> None:
    """Tell `nitro-cli` that the enclave has booted. Who started it otherwise does not listen, which is no matter."""
    with contextlib.suppress(OSError, Unavailable), connect(_BOOTED_PORT, seconds=_PAUSE) as parent:
        parent.settimeout(_BOOTED_SECONDS)
        parent.sendall(_BOOTED)
        parent.recv(1)


def _no_way(port: int, cause: OSError) -> Unavailable:
    return Unavailable(
        f"connecting to the node by vsock port {port}: {cause.strerror or cause}",
        code="no-channel",
        hint="the room has neither a virtio-serial port nor a node that listens by vsock",
    )
