"""TLS of the agent's own between a program that speaks in the clear and a host outside, whose authority the contract names.

The program's bytes are encrypted in the room. Checked: the chain up to the contract's certificate and to no other, the host's name,
dates by the room's clock, TLS 1.2 or later. An end without TLS's own word of it is a cut, and reaches the program as a reset.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from strongroom.streams.socket_end import reset_on_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.contracts.network_terms import Egress
    from strongroom.streams.carrier import Carrier
    from strongroom.streams.poll import Poll

_MOST = 64 * 1024  # bytes that are held in each direction
_RECORD = 16 * 1024
_CUT = ("UNEXPECTED_EOF_WHILE_READING", None)  # the second where OpenSSL says nothing


def bridged(
    carrier: Carrier | Poll, connection: socket.socket, egress: Egress, failed: Callable[[str], None]
) -> socket.socket:
    """What the stream to a host of `egress` joins in place of the program's connection, which is taken over.

    failed: called with a few words, once, where TLS fails.
    """
    ours, theirs = socket.socketpair()
    for end in (connection, ours):
        end.setblocking(False)
    _Bridge(carrier, connection, ours, egress, failed).start()
    return theirs


def _context(authority: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the authority may stand below another
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which Python sets: a cut would be an end
    context.load_verify_locations(cadata=authority)
    return context


class _Bridge:
    """One connection. plain: the program's. wire: joined to the stream."""

    def __init__(
        self,
        carrier: Carrier | Poll,
        plain: socket.socket,
        wire: socket.socket,
        egress: Egress,
        failed: Callable[[str], None],
    ) -> None:
        self._carrier = carrier
        self._plain, self._wire = plain, wire
        self._egress = egress
        self._failed = failed
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._to_wire, self._to_plain = bytearray(), bytearray()
        self._is_shaken = self._wire_ended = self._plain_ended = self._got_end = self._is_over = False

    def start(self) -> None:
        """Begin the handshake."""
        for end in (self._plain, self._wire):
            self._carrier.join(end, self._serve)
        try:
            context = _context(self._egress.authority)
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=self._egress.host)
        except (ssl.SSLError, ValueError) as cause:
            self._fail(f"its authority: {cause}")
            return
        self._serve(0)

    def _serve(self, _events: int) -> None:
        """Move what can be moved, in both directions."""
        tls = self._tls
        if self._is_over or tls is None:
            return
        try:
            while self._step(tls):
                pass
        except ssl.SSLCertVerificationError as cause:
            self._fail(f"TLS: {cause.verify_message}")
        except ssl.SSLError as cause:
            self._fail("TLS: it was cut off" if cause.reason in _CUT else f"TLS: {cause.reason}")
        except OSError:
            self._close(is_cut=True)
        else:
            if self._plain_ended and self._got_end and not (self._to_wire or self._to_plain):
                self._close(is_cut=False)

    def _step(self, tls: ssl.SSLObject) -> bool:
        """Whether something was moved."""
        moved = self._send(self._wire, self._to_wire) | self._receive_wire()
        if not self._is_shaken:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                self._is_shaken = moved = True
        if self._is_shaken:
            moved |= self._decrypt(tls) | self._encrypt(tls)
        moved |= self._send(self._plain, self._to_plain)
        if self._got_end and not self._to_plain:
            with contextlib.suppress(OSError):  # the program has gone
                self._plain.shutdown(socket.SHUT_WR)
        if self._outgoing.pending:
            self._to_wire += self._outgoing.read()
            moved = True
        return moved

    def _receive_wire(self) -> bool:
        if self._wire_ended or self._to_plain or self._incoming.pending >= _MOST:
            return False
        try:
            data = self._wire.recv(_MOST)
        except BlockingIOError:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._wire_ended = True
            self._incoming.write_eof()
        return True

    def _decrypt(self, tls: ssl.SSLObject) -> bool:
        if self._to_plain or self._got_end:
            return False
        try:
            data = tls.read(_RECORD)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:  # its end, behind this side's
            data = b""
        self._to_plain += data
        self._got_end = not data
        return True

    def _encrypt(self, tls: ssl.SSLObject) -> bool:
        if self._plain_ended or self._to_wire:
            return False
        try:
            data = self._plain.recv(_RECORD)
        except BlockingIOError:
            return False
        if data:
            tls.write(data)
            return True
        self._plain_ended = True
        with contextlib.suppress(
            ssl.SSLWantReadError, ssl.SSLSyscallError
        ):  # the host's own end is still to come
            tls.unwrap()
        return True

    def _send(self, end: socket.socket, data: bytearray) -> bool:
        if not data:
            return False
        try:
            with memoryview(data) as view:
                count = end.send(view)
        except BlockingIOError:
            return False
        del data[:count]
        return True

    def _fail(self, why: str) -> None:
        self._failed(why)
        with contextlib.suppress(OSError):
            self._wire.send(bytes(self._to_wire) + self._outgoing.read())  # TLS says why to the other side
        self._close(is_cut=True)

    def _close(self, *, is_cut: bool) -> None:
        self._is_over = True
        if is_cut:
            reset_on_close(self._plain)
        for end in (self._plain, self._wire):
            self._carrier.forget(end.fileno())
            end.close()
