"""Sealed disks of a room that has none of its own (a Nitro enclave): NBD over vsock, into the kernel's /dev/nbdN.

The agent negotiates with the node's server, then hands a socket to the kernel, which reads blocks over it from then
on. The kernel's driver takes TCP and Unix sockets alone, so that it gets one end of a pair, and a thread carries the
bytes between the other end and the vsock connection. Nothing is believed: dm-verity checks every block against the
manifest's root hash, a size that is too small is found by `open.open_disk`, and reads that fail by `reads`.

Specs: NBD protocol (`model/room/nbd`); Linux include/uapi/linux/nbd.h. NBD_DO_IT returns when the disk is gone, hence a
thread; it has every signal blocked, since one that met it would end the disk. The disk has its size once the thread
is within that call, so whoever attaches it waits. When the call returns, requests that the server took and never
answered still wait, for the timeout: NBD_CLEAR_SOCK ends them, with an error.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Malformed, NotFound, Refused, Unavailable
from strongroom.model.room import nbd as wire

if TYPE_CHECKING:
    from collections.abc import Callable

_NODE = "the node serves the disks otherwise than this base expects: both have to be of one version"

SET_SOCK, SET_BLOCK_SIZE, DO_IT, CLEAR_SOCK, SET_SIZE_BLOCKS, SET_TIMEOUT, SET_FLAGS = (
    0xAB00,
    0xAB01,
    0xAB03,
    0xAB04,
    0xAB07,
    0xAB09,
    0xAB0A,
)
TIMEOUT_SECONDS = 300
ATTACH_SECONDS = 30.0
MAX_BYTES = 1 << 50
_DEVICES = "/dev"
_PIECE = 256 * 1024
_PAUSE = 0.005


class Ioctl(Protocol):
    """The kernel's side: `fcntl.ioctl`, or a test's."""

    def __call__(self, fd: int, request: int, argument: int, /) -> int:
        """One request. Raises `OSError`."""
        ...


class NbdDisks:
    """Attaches disks by their serials, each to the next free device. `find` serves `room` as `disks.find` does."""

    def __init__(
        self, connect: Callable[[], socket.socket], *, folder: str = _DEVICES, ioctl: Ioctl | None = None
    ) -> None:
        self._connect = connect
        self._folder = folder
        self._ioctl: Ioctl = ioctl or fcntl.ioctl
        self._attached: dict[str, str] = {}

    def find(self, serial: str) -> str:
        """The name of the block device with that disk, attached when it is first asked for. Raises `NotFound`."""
        if serial not in self._attached:
            name = f"nbd{len(self._attached)}"
            connection = self._connect()
            try:
                self._attach(f"{self._folder}/{name}", connection, negotiate(connection, serial))
            except BaseException:
                connection.close()
                raise
            self._attached[serial] = name
        return self._attached[serial]

    def _attach(self, path: str, connection: socket.socket, size: int) -> None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as cause:
            raise _unattached(path, cause) from None
        kernels, ours = socket.socketpair()
        try:
            for request, argument in (
                (SET_BLOCK_SIZE, wire.BLOCK),
                (SET_SIZE_BLOCKS, size // wire.BLOCK),
                (SET_FLAGS, wire.FLAGS),
                (SET_TIMEOUT, TIMEOUT_SECONDS),
                (SET_SOCK, kernels.fileno()),
            ):
                self._ioctl(fd, request, argument)
        except OSError as cause:
            for end in (kernels, ours):
                end.close()
            os.close(fd)
            raise _unattached(path, cause) from None
        connection.settimeout(None)
        threading.Thread(target=_carry, args=(ours, connection), daemon=True).start()
        seen = os.dup(fd)  # the thread closes its own when the disk is gone
        try:
            threading.Thread(target=self._serve, args=(fd, kernels), daemon=True).start()
            ends = time.monotonic() + ATTACH_SECONDS
            while os.lseek(seen, 0, os.SEEK_END) != size:
                if time.monotonic() > ends:
                    raise _unattached(
                        path, TimeoutError(errno.ETIMEDOUT, "the kernel shows no disk of that size")
                    )
                time.sleep(_PAUSE)
        finally:
            os.close(seen)

    def _serve(self, fd: int, kernels: socket.socket) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # Whoever reads from a disk that is gone meets an error, which is recorded (`reads`).
        with kernels:
            for request in (DO_IT, CLEAR_SOCK):
                with contextlib.suppress(OSError):
                    self._ioctl(fd, request, 0)
        os.close(fd)


def _carry(ours: socket.socket, connection: socket.socket) -> None:
    """Pass on all that comes on either, until one of them ends. Requests are small, and the kernel always takes answers."""
    # ValueError: somebody else has closed the connection.
    with contextlib.suppress(OSError, ValueError), ours, connection:
        while True:
            for source in select.select([ours, connection], [], [])[0]:
                data = source.recv(_PIECE)
                if not data:
                    return
                (connection if source is ours else ours).sendall(data)


def _unattached(path: str, cause: OSError) -> Unavailable:
    return Unavailable(
        f"attaching {path}: {cause.strerror}", code="no-disk", hint="the base's kernel needs the module nbd"
    )


def negotiate(connection: socket.socket, serial: str) -> int:
    """Choose the export `serial`; its size in bytes, of whole blocks. Raises `NotFound`, `Malformed`, `Refused`."""
    magic, option, flags = struct.unpack(">QQH", wire.receive(connection, 18))
    if (magic, option) != (wire.MAGIC, wire.OPTION_MAGIC) or not flags & wire.FIXED:
        raise Malformed("NBD: not a server of the fixed newstyle negotiation", hint=_NODE)
    name = serial.encode()
    asked = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    connection.sendall(
        struct.pack(">I", wire.FIXED | (wire.NO_ZEROES & flags))
        + struct.pack(">QII", wire.OPTION_MAGIC, wire.GO, len(asked))
        + asked
    )
    export: tuple[int, int] | None = None
    for _ in range(wire.MAX_REPLIES):
        reply, answered, kind, length = struct.unpack(">QIII", wire.receive(connection, 20))
        if (reply, answered) != (wire.OPTION_REPLY_MAGIC, wire.GO) or length > wire.MAX_OPTION:
            raise Malformed("NBD: not a reply to what was asked, or too long a reply", hint=_NODE)
        data = wire.receive(connection, length)
        if kind == wire.ACK and export is not None:
            return _checked(*export)
        if kind == wire.INFORM:
            if data[:2] == struct.pack(">H", wire.INFO_EXPORT) and len(data) == 12:
                export = struct.unpack(">QH", data[2:])
        else:
            raise NotFound(
                f"no disk has the serial {serial!r}", code="no-disk", hint="the node must serve every disk"
            )
    raise Malformed("NBD: the server does not come to an end", hint=_NODE)


def _checked(size: int, flags: int) -> int:
    if not flags & wire.READ_ONLY:
        raise Refused("NBD: the node serves a disk that can be written", code="writable-disk", hint=_NODE)
    if not 0 < size <= MAX_BYTES or size % wire.BLOCK:
        raise Malformed(f"NBD: a disk of {size} bytes, expected whole blocks of {wire.BLOCK}", hint=_NODE)
    return size
