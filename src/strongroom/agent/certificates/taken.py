"""Whether the program serves its new certificate: replacing files changes nothing in most programs until they read them again.

Each try is one TLS handshake with the program, over its own loopback. Nothing is verified but which certificate it shows: the
program is on the other side of no wire. A program that reads its files wrongly goes on with the old one, and says so in its log at best.
"""

from __future__ import annotations

import enum
import errno
import os
import select
import ssl
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.agent.program import Waiter

SECONDS = 10.0
_TRY_SECONDS = 3.0
_PAUSE = 0.2
_READ = 16 * 1024


class Taken(enum.StrEnum):
    """What the program showed at last."""

    NEW = "new"
    OLD = "old"  # another than the new one
    UNREACHABLE = "unreachable"  # no TLS server answered at that port


def wait_for(
    waiter: Waiter,
    connect: Callable[[], socket.socket],
    port: int,
    certificate: bytes,
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Taken:
    """Look until the program shows `certificate` (DER), for so many seconds at most.

    connect: makes a TCP socket of IPv4 in the program's network namespace, which does not block.
    """
    deadline = clock() + seconds
    taken = Taken.UNREACHABLE
    while True:
        shown = _shown(waiter, connect, port, min(deadline, clock() + _TRY_SECONDS), clock)
        if shown == certificate:
            return Taken.NEW
        if shown:
            taken = Taken.OLD
        if clock() + _PAUSE >= deadline:
            return taken
        _rest(waiter, clock() + _PAUSE, clock)


def _shown(
    waiter: Waiter,
    connect: Callable[[], socket.socket],
    port: int,
    deadline: float,
    clock: Callable[[], float],
) -> bytes:
    """The certificate (DER) that the program shows; empty where it shows none in time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # compared with the one that it should be
    try:
        with connect() as plain:
            result = plain.connect_ex(("127.0.0.1", port))
            if result not in (0, errno.EINPROGRESS):
                return b""
            if result and not _ready(waiter, plain.fileno(), select.EPOLLOUT, deadline, clock):
                return b""
            return _handshake(waiter, context, plain, deadline, clock)
    except OSError:  # `ssl.SSLError` is one
        return b""


def _handshake(
    waiter: Waiter,
    context: ssl.SSLContext,
    plain: socket.socket,
    deadline: float,
    clock: Callable[[], float],
) -> bytes:
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = context.wrap_bio(came, goes)
    while True:
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            plain.send(
                goes.read()
            )  # a hello, or a few hundred bytes more: what does not fit at once is no program's
            if not _ready(waiter, plain.fileno(), select.EPOLLIN, deadline, clock):
                return b""
            data = plain.recv(_READ)
            if not data:
                return b""
            came.write(data)
        else:
            plain.send(goes.read())
            return secured.getpeercert(binary_form=True) or b""


def _ready(waiter: Waiter, fd: int, events: int, deadline: float, clock: Callable[[], float]) -> bool:
    """Whether `fd` became ready in time; whatever else goes on is served meanwhile."""
    seen: list[int] = []
    own = os.dup(fd)  # nobody else watches that number
    waiter.watch(own, seen.append, events | select.EPOLLHUP | select.EPOLLERR)
    try:
        while not seen and (now := clock()) < deadline:
            waiter.turn(deadline - now)
    finally:
        waiter.forget(own)
        os.close(own)
    return bool(seen)


def _rest(waiter: Waiter, until: float, clock: Callable[[], float]) -> None:
    while (now := clock()) < until:
        waiter.turn(until - now)
