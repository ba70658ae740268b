"""Connections as they arrive: each is counted by its address before it costs a TLS handshake.

asyncio's own server names a connection's address only once its TLS handshake is over; until then nothing bounds how many
handshakes an address has under way. So connections are accepted here, each by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from strongroom.api import budgets as budgets_model
from strongroom.api.budgets import Shares

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from strongroom.api.budgets import ConnectionBudgets

AT_ONCE = 64
PAUSE = 1.0
"""Seconds without accepting where the system has no more files to give."""


class Arrivals:
    """Accepts on one listening socket, of the running loop.

    connected: makes the protocol of a connection, once its handshake is over. full: whether an address has as many
    connections as it may have.
    """

    def __init__(
        self,
        listening: socket.socket,
        connected: Callable[[], asyncio.Protocol],
        *,
        context: ssl.SSLContext,
        budgets: ConnectionBudgets,
        full: Callable[[str], bool],
    ) -> None:
        self._listening = listening
        self._connected = connected
        self._context = context
        self._seconds = budgets.handshake_seconds
        self._full = full
        self._unfinished = Shares(budgets.handshakes, budgets.handshake_share)
        self._greeting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def start(self, backlog: int) -> None:
        """Listen and accept."""
        self._listening.listen(backlog)
        self._listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more, and end the handshakes under way."""
        self._loop.remove_reader(self._listening.fileno())
        for connection in self._greeting:
            connection.cancel()

    def _resume(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                arrived, client = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(PAUSE, self._resume)
                return
            peer = budgets_model.peer(client)
            if self._full(peer) or not self._unfinished.take(peer, 1):
                arrived.close()
                continue
            greeting = self._loop.create_task(self._greet(arrived, peer))
            self._greeting.add(greeting)
            greeting.add_done_callback(self._greeting.discard)

    async def _greet(self, arrived: socket.socket, peer: str) -> None:
        """The handshake. Where the handshake fails or takes too long, the loop closes the connection without a word."""
        try:
            with contextlib.suppress(OSError):
                await self._loop.connect_accepted_socket(
                    self._connected,
                    arrived,
                    ssl=self._context,
                    ssl_handshake_timeout=self._seconds,
                    ssl_shutdown_timeout=self._seconds,
                )
        finally:
            self._unfinished.give_back(peer, 1)
