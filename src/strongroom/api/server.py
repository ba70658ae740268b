"""The HTTPS server: uvicorn, TLS 1.3 only, no session tickets, and a clock on every phase of a connection.

uvicorn alone would wait for ever for a handshake's or a header's next byte; `_Connection` does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from strongroom.api import budgets as budgets_model
from strongroom.api.arrivals import Arrivals
from strongroom.api.budgets import Shares
from strongroom.crypto import tls
from strongroom.errors import Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator

    from strongroom.api.application import Application
    from strongroom.api.budgets import Budgets

GATHERED = 64 * 1024


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


class _Gathering:
    """A transport that writes once what is written in one go: head and body of an answer are one TLS record."""

    __slots__ = ("_held", "_loop", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._size += len(data)
        if self._size >= GATHERED:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held, self._size = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))


class _Connection(HttpToolsProtocol):
    """A connection that must say something whole within bounds of time and size."""

    budgets: Budgets
    shares: Shares
    _peer: str | None = None  # None: of no connection that is counted
    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]
        peer = budgets_model.peer(transport.get_extra_info("peername"))
        if not self.shares.take(peer, 1):
            transport.abort()  # this address has connections enough: others need theirs
            return
        self._peer = peer
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if self._peer is not None:
            self.shares.give_back(self._peer, 1)
            self._peer = None
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._start()
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop()
        super().on_headers_complete()

    def _count(self, more: int) -> None:
        self._header_bytes += more
        if self._header_bytes > self.budgets.header_bytes:
            self.transport.abort()

    def _start(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(self.budgets.header_seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """uvicorn on a socket that is bound already, with time limits on TLS handshakes."""

    def __init__(
        self, app: Application, *, context: ssl.SSLContext, budgets: Budgets, ready: Callable[[], None]
    ) -> None:
        self._shares = Shares(budgets.connections, budgets.share)
        protocol = type("Connection", (_Connection,), {"budgets": budgets, "shares": self._shares})
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                loop="uvloop",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                limit_concurrency=budgets.connections,
                timeout_keep_alive=budgets.idle_seconds,
                timeout_graceful_shutdown=10,
                ssl_context_factory=lambda _config, _default: context,
            )
        )
        self._budgets = budgets
        self._context = context
        self._ready = ready
        self._arrivals: list[Arrivals] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGTERM and SIGINT, and return: uvicorn would raise the signal again and end us half-closed."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on the given sockets."""
        await self.lifespan.startup()

        def connected() -> asyncio.Protocol:
            make: Any = self.config.http_protocol_class
            made: asyncio.Protocol = make(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        self._arrivals = [
            Arrivals(one, connected, context=self._context, budgets=self._budgets, full=self._shares.full)
            for one in sockets or []
        ]
        self.servers = []  # none of the loop's own
        for one in self._arrivals:
            one.start(self.config.backlog)
        self.started = True
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and let what is under way end."""
        for one in self._arrivals:
            one.close()
        await super().shutdown(sockets)


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
            hint="is another broker running there?",
        ) from None
    return bound


def serve(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way."""
    with contextlib.closing(listening):
        server.run(sockets=[listening])
