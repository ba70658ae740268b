"""The HTTPS server: TLS 1.3 only, no session tickets, on uvloop; each connection is a `Connection` with a clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from typing import TYPE_CHECKING

import uvloop

from strongroom.api.arrivals import Arrivals
from strongroom.api.budgets import Shares
from strongroom.api.connection import Connection
from strongroom.crypto import tls
from strongroom.errors import Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.api.application import Application

BACKLOG = 2048
FINISHING = 10.0
"""Seconds that requests under way get when the server is asked to stop."""


def tls_context(certificate: bytes, key: tls.TlsKey) -> ssl.SSLContext:
    """A server context for a certificate (DER) and its key.

    The TLS library reads files only, so that the key is shown to it in an anonymous one that has no name
    and ends with this function.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no resumption: every connection proves the key anew
    context.set_alpn_protocols(["http/1.1"])
    fd = os.memfd_create("strongroom-tls", os.MFD_CLOEXEC)
    try:
        os.write(fd, tls.pem_certificate(certificate) + key.pem())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.ftruncate(fd, 0)
        os.close(fd)
    return context


class Server:
    """Serves an application until SIGTERM or SIGINT. ready: called once connections are accepted."""

    def __init__(self, app: Application, *, context: ssl.SSLContext, ready: Callable[[], None]) -> None:
        self._app = app
        self._budgets = app.budgets
        self._context = context
        self._ready = ready
        self._connected: set[Connection] = set()

    async def run(self, listening: socket.socket) -> None:
        """Serve on a bound socket; once asked to stop, accept no more, and let requests under way end."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        shares = Shares(self._budgets.connections, self._budgets.share)

        def connection() -> Connection:
            return Connection(self._app, shares=shares, connected=self._connected)

        arrivals = Arrivals(
            listening, connection, context=self._context, budgets=self._budgets, full=shares.full
        )
        arrivals.start(BACKLOG)
        self._ready()
        await stop.wait()
        arrivals.close()
        self._app.on_stop()
        await self._finish()

    async def _finish(self) -> None:
        for connection in list(self._connected):
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISHING):
                while self._connected:  # noqa: ASYNC110 - once in a process's life, and not for long
                    await asyncio.sleep(0.05)
        for connection in list(self._connected):
            connection.abort()


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `Unavailable` when the address is taken."""
    import socket as sockets  # noqa: PLC0415 - the name is a type above

    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    bound = sockets.socket(family, sockets.SOCK_STREAM)
    try:
        bound.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as cause:
        bound.close()
        raise Unavailable(
            f"listening on {host}:{port}: {cause.strerror}",
            code="address-taken",
            hint="is another broker running there? --listen HOST:PORT names another address of this machine",
        ) from None
    return bound


def serve(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way."""
    with contextlib.closing(listening), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.run(listening))
