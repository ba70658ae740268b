"""An end to every conversation: a peer that trickles bytes never meets a socket's time-out."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def deadline(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the connection after so many seconds; whoever reads from it then meets its end."""

    def shut() -> None:
        with contextlib.suppress(OSError):
            # The plain socket's: TLS's own would take the session from under the thread that reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
