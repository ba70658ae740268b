"""Rooms in AWS Nitro enclaves: `nitro-cli` starts one, its agent connects by vsock for its channel and its disks.

What an enclave is, its PCRs say; the contract goes into PCR 16 by its agent. The node is believed as little as any
other: it relays the channel and serves ciphertext. One room at a time on a parent instance, since agents connect to
fixed ports; whoever connects from another address than this enclave's is hung up on.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.errors import NotFound, Unavailable
from strongroom.model.room import channel
from strongroom.node import doctor, room
from strongroom.node.nitro import cli, nbd

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_SECONDS = 0.2
_LAST_WORDS_SECONDS = 1.0


def listen_by_vsock(port: int) -> socket.socket:
    """A listener for enclaves of this instance. Raises `Unavailable`."""
    with contextlib.ExitStack() as undone:
        try:
            listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            undone.callback(listener.close)
            listener.bind((socket.VMADDR_CID_ANY, port))
            listener.listen(nbd.MAX_CONNECTIONS)
        except OSError as cause:
            raise Unavailable(
                f"listening on vsock port {port}: {cause.strerror}",
                code="address-taken",
                hint="another Nitro room runs on this instance; one at a time can",
            ) from None
        undone.pop_all()
        return listener


def vsock_cid(address: object) -> int | None:
    """The context identifier of a peer's address."""
    return address[0] if isinstance(address, tuple) and address and isinstance(address[0], int) else None


def _watch(link: int, ended: int, stop: threading.Event) -> None:
    """Set `ended` a moment after the other side of `link` has hung up, so that its last words are read first."""
    poll = select.poll()
    poll.register(link, select.POLLRDHUP | select.POLLHUP)
    while not stop.is_set():
        if poll.poll(_POLL_SECONDS * 1000):
            stop.wait(_LAST_WORDS_SECONDS)
            if not stop.is_set():
                os.eventfd_write(ended, 1)
            return


@dataclass(kw_only=True)
class NitroRoom(room.Room):
    """One run of an order in an enclave. listen, cid_of and ask are arguments so that tests need no enclave."""

    listen: Callable[[int], socket.socket] = field(default=listen_by_vsock)
    cid_of: Callable[[object], int | None] = field(default=vsock_cid)
    ask: Callable[[list[str]], str] = field(default=doctor.run_program)
    boot_seconds: float = room.BOOT_SECONDS

    def _launch(self, stack: contextlib.ExitStack) -> room.Launched:
        order = self.order
        eif = order.base / cli.EIF
        if not eif.is_file():
            raise NotFound(f"{eif}: not there", code="no-base", hint="`strongroom base build --for nitro`")
        cid = cli.FIRST_CID + os.getpid() % (cli.LAST_CID - cli.FIRST_CID)
        waiting = stack.enter_context(contextlib.closing(self.listen(channel.VSOCK_CHANNEL)))
        disks = stack.enter_context(contextlib.closing(self.listen(channel.VSOCK_DISKS)))
        server = nbd.NbdServer({drive.serial: drive.path for drive in order.drives})
        stack.callback(server.close)
        stop = threading.Event()
        serving = threading.Thread(target=self._serve_disks, args=(disks, server, cid, stop), daemon=True)
        serving.start()
        stack.callback(serving.join, 10)
        stack.callback(stop.set)
        enclave = cli.Enclave(
            name=f"strongroom-{os.getpid()}",
            eif=eif.absolute(),
            memory_mib=order.terms.memory_mib,
            cid=cid,
        )
        started = cli.parse_started(self.ask(cli.run_arguments(enclave)), cid)
        stack.callback(self.ask, cli.terminate_arguments(started))
        link = self._accept(waiting, cid)
        stack.callback(link.close)
        ended = os.eventfd(0, os.EFD_CLOEXEC)
        stack.callback(os.close, ended)
        watching = threading.Thread(target=_watch, args=(link.fileno(), ended, stop), daemon=True)
        watching.start()
        stack.callback(watching.join, 10)
        stack.callback(stop.set)
        return room.Launched(link=link, watched={ended: self._enclave_ended})

    def _enclave_ended(self) -> None:
        raise Unavailable(
            f"the enclave ended by itself in phase {self.phase!r}",
            code="room-died",
            hint="`nitro-cli describe-enclaves` and its log may say why",
        )

    def _accept(self, waiting: socket.socket, cid: int) -> socket.socket:
        """The enclave's connection, within the time that a boot may take."""
        ends = time.monotonic() + self.boot_seconds
        while (left := ends - time.monotonic()) > 0:
            waiting.settimeout(left)
            try:
                connection, address = waiting.accept()
            except TimeoutError:
                break
            if self.cid_of(address) == cid:
                return connection
            connection.close()
        raise Unavailable(
            f"the enclave did not connect within {self.boot_seconds:g} s",
            code="room-silent",
            hint="the image is damaged or not of this version; nitro-cli's log says whether it booted",
        )

    def _serve_disks(
        self, disks: socket.socket, server: nbd.NbdServer, cid: int, stop: threading.Event
    ) -> None:
        disks.settimeout(_POLL_SECONDS)
        while not stop.is_set():
            try:
                connection, address = disks.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if self.cid_of(address) == cid:
                server.take(connection)
            else:
                connection.close()
