"""What is ready is served: descriptors, and what is to be done when one of them can be read or written. One thread, one epoll."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Poll:
    """Descriptors that are watched. Whoever waits calls `turn`; what is called then must not call it again."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, act: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Have `act(events)` called within `turn` when `fd` is ready."""
        self._watched[fd] = act
        self._epoll.register(fd, events)

    def join(self, connection: socket.socket, act: Callable[[int], None]) -> None:
        """`watch` a non-blocking socket for every change of what it can do."""
        self.watch(connection.fileno(), act, _EDGES)

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self, timeout: float) -> bool:
        """Serve what is ready, waiting up to `timeout` seconds for something; whether there was something."""
        ready = self._epoll.poll(max(0.0, timeout))
        for fd, events in ready:
            act = self._watched.get(fd)
            if act is not None:
                act(events)
        return bool(ready)

    def close(self) -> None:
        """Watch nothing any more. The descriptors are for others to close."""
        self._epoll.close()
        self._watched.clear()
