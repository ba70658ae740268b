"""One thread, one epoll: it tells links when their sockets are ready, and cuts those whose time is over."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from strongroom.tunnel.link import BUFFER

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.tunnel.link import TunnelLink

CHECK_SECONDS = 1.0  # between two looks at the clock: a verdict's end cuts its tunnels no later than this


class TunnelLoop:
    """The turner of any number of links, and of listeners and the like beside them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.outward, self.inward = memoryview(bytearray(BUFFER)), memoryview(bytearray(BUFFER))
        self.beyond = 0
        self._wanted: dict[int, int] = {}
        self._acts: dict[int, Callable[[int], None]] = {}
        self._unfinished: dict[TunnelLink, None] = {}
        self._looked = 0.0
        self.links: dict[TunnelLink, None] = {}

    def want(self, connection: socket.socket, events: int, act: Callable[[int], None]) -> None:
        """As of a turner."""
        self._want(connection.fileno(), events, act)

    def watch(self, fd: int, act: Callable[[], None]) -> None:
        """Have `act` called whenever `fd` can be read."""
        self._want(fd, select.EPOLLIN, lambda _events: act())

    def forget(self, connection: socket.socket) -> None:
        """As of a turner."""
        self._want(connection.fileno(), 0, _nothing)

    def resume(self, link: TunnelLink) -> None:
        """As of a turner."""
        self._unfinished[link] = None

    def add(self, link: TunnelLink) -> None:
        """Start a link, and look after its time until `remove`."""
        self.links[link] = None
        link.start()

    def remove(self, link: TunnelLink) -> None:
        """A link that is over."""
        self.links.pop(link, None)
        self._unfinished.pop(link, None)

    def turn(self, timeout: float) -> None:
        """Serve what is ready, waiting up to `timeout` seconds for it."""
        waiting, self._unfinished = self._unfinished, {}
        for fd, events in self._epoll.poll(0 if waiting else min(timeout, CHECK_SECONDS)):
            act = self._acts.get(fd)  # which the one before may have forgotten
            if act is not None:
                act(events)
        for link in waiting:
            link.serve()
        now = time.monotonic()
        if now - self._looked >= CHECK_SECONDS:
            self._looked = now
            for link in tuple(self.links):
                link.check_time(now)

    def close(self) -> None:
        """Cut all links."""
        for link in tuple(self.links):
            link.close()
        self._epoll.close()

    def _want(self, fd: int, events: int, act: Callable[[int], None]) -> None:
        before = self._wanted.get(fd, 0)
        if events == before:
            return
        if not events:
            self._epoll.unregister(fd)
            del self._wanted[fd], self._acts[fd]
            return
        if before:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._wanted[fd], self._acts[fd] = events, act


def _nothing(_events: int) -> None:
    """Of a descriptor that nobody watches."""
