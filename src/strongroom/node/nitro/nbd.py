"""A read-only NBD server for sealed disks, for rooms that have no disks of their own (Nitro enclaves, over vsock).

Spec: NBD protocol, doc/proto.md (fixed newstyle negotiation, simple replies). It serves the disks of one room by their
serials, and nothing else: exports are names of a table, never paths. Writing is refused, and what the other side may
make this one hold is bounded. Nobody needs to trust it: the room verifies every block it reads (dm-verity).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, StrongroomError
from strongroom.model.room import nbd as wire

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_CONNECTIONS = 256
MAX_OPTIONS = 64
IDLE_SECONDS = 60.0  # in the negotiation; a disk that is in use may rest
_PERMISSION, _INVALID = 1, 22
_PIECE = 1 << 20


class NbdServer:
    """Serves `disks` (path by serial), which are open from here on: a file exchanged later is not what is served."""

    def __init__(self, disks: Mapping[str, Path]) -> None:
        self._files: dict[str, tuple[int, int]] = {}
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        try:
            for serial, path in disks.items():
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._files[serial] = (fd, os.fstat(fd).st_size)
        except BaseException:
            self.close()
            raise

    def take(self, connection: socket.socket) -> None:
        """Serve a connection (taken over) in a thread of its own. One too many is closed."""
        with self._lock:
            if len(self._sockets) >= MAX_CONNECTIONS:
                connection.close()
                return
            self._sockets.add(connection)
        thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Hang up on everybody and close the disks."""
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for fd, _ in self._files.values():
            os.close(fd)
        self._files.clear()

    def _run(self, connection: socket.socket) -> None:
        try:
            # A client that breaks the protocol, or goes, is no event: it gets nothing more.
            with contextlib.suppress(OSError, StrongroomError):
                connection.settimeout(IDLE_SECONDS)
                chosen = self._negotiate(connection)
                if chosen is not None:
                    connection.settimeout(None)
                    _transmit(connection, *chosen)
        finally:
            with self._lock:
                self._sockets.discard(connection)
            connection.close()

    def _negotiate(self, connection: socket.socket) -> tuple[int, int] | None:
        """The file and size that the client chose; None when it left."""
        connection.sendall(struct.pack(">QQH", wire.MAGIC, wire.OPTION_MAGIC, wire.FIXED | wire.NO_ZEROES))
        flags = struct.unpack(">I", wire.receive(connection, 4))[0]
        if flags & ~(wire.FIXED | wire.NO_ZEROES) or not flags & wire.FIXED:
            raise Malformed("NBD: unknown client flags")
        for _ in range(MAX_OPTIONS):
            magic, option, length = struct.unpack(">QII", wire.receive(connection, 16))
            if magic != wire.OPTION_MAGIC or length > wire.MAX_OPTION:
                raise Malformed("NBD: not an option, or too long an option")
            data = wire.receive(connection, length)
            if option == wire.EXPORT_NAME:
                return self._export_by_name(connection, data, zeroes=not flags & wire.NO_ZEROES)
            if option == wire.ABORT:
                _reply(connection, option, wire.ACK)
                return None
            if option in (wire.INFO, wire.GO):
                export = self._inform(connection, option, data)
                if export is not None and option == wire.GO:
                    return export
            elif option == wire.LIST and not data:
                for serial in self._files:
                    name = serial.encode()
                    _reply(connection, option, wire.SERVER, struct.pack(">I", len(name)) + name)
                _reply(connection, option, wire.ACK)
            else:
                _reply(connection, option, wire.UNSUPPORTED)
        raise Malformed("NBD: too many options")

    def _export_by_name(self, connection: socket.socket, name: bytes, *, zeroes: bool) -> tuple[int, int]:
        export = self._files.get(name.decode("utf-8", "replace"))
        if export is None:
            raise Malformed("NBD: no such export")  # the protocol knows no answer to that but hanging up
        connection.sendall(struct.pack(">QH", export[1], wire.FLAGS) + bytes(124 if zeroes else 0))
        return export

    def _inform(self, connection: socket.socket, option: int, data: bytes) -> tuple[int, int] | None:
        name = wire.asked_name(data)
        export = self._files.get(name.decode("utf-8", "replace"))
        if export is None:
            _reply(connection, option, wire.UNKNOWN)
            return None
        _reply(connection, option, wire.INFORM, struct.pack(">HQH", wire.INFO_EXPORT, export[1], wire.FLAGS))
        sizes = struct.pack(">HIII", wire.INFO_BLOCK_SIZE, 1, wire.BLOCK, wire.MAX_REQUEST)
        _reply(connection, option, wire.INFORM, sizes)
        _reply(connection, option, wire.ACK)
        return export


def _transmit(connection: socket.socket, fd: int, size: int) -> None:
    while True:
        magic, _, kind, cookie, offset, length = struct.unpack(wire.REQUEST, wire.receive(connection, 28))
        if magic != wire.REQUEST_MAGIC or (kind in (wire.READ, wire.WRITE) and length > wire.MAX_REQUEST):
            raise Malformed("NBD: not a request, or too large a request")
        if kind == wire.DISCONNECT:
            return
        error = 0
        if kind == wire.WRITE:
            for start in range(0, length, _PIECE):
                wire.receive(connection, min(_PIECE, length - start))  # its data follow, and are let go
        if kind != wire.READ:
            error = _PERMISSION if kind in wire.WRITING else _INVALID
        elif offset + length > size:
            error = _INVALID
        connection.sendall(struct.pack(">IIQ", wire.REPLY_MAGIC, error, cookie))
        if kind == wire.READ and not error:
            _send(connection, fd, offset, length)


def _send(connection: socket.socket, fd: int, offset: int, length: int) -> None:
    end = offset + length
    while offset < end:
        count = os.sendfile(connection.fileno(), fd, offset, min(_PIECE, end - offset))
        if not count:
            raise OSError("the disk has become shorter")
        offset += count


def _reply(connection: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    connection.sendall(struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, option, kind, len(data)) + data)
