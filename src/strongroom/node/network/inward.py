"""What connects to a room on this machine: a listener for each port that the operator publishes, or opens to tunnels.

Connections wait in the listener until the room's program has started. `MAX_INWARD` are carried at once; the next ones wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Unavailable
from strongroom.model.room.destination import Destination, Kind
from strongroom.node.network import addresses
from strongroom.streams.socket_end import SocketEnd, reset_on_close

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.room.destination import Reason
    from strongroom.node.network.addresses import Address
    from strongroom.node.network.options import NetworkOptions
    from strongroom.streams.loop import Loop

MAX_INWARD = 1000
_AT_ONCE = 64  # connections that are taken from one listener in one turn
_STARTED, _ENDED = "program-started", "program-ended"


class Listeners:
    """Made before a room boots, so that an address that is taken is known at once. Closed with it."""

    def __init__(self, options: NetworkOptions) -> None:
        self.by_destination: dict[Destination, socket.socket] = {}
        self.places: dict[Destination, Address] = {}
        try:
            for kind, option, given in (
                (Kind.PORT, "--publish", options.published),
                (Kind.TUNNEL, "--tunnel", options.tunnels),
            ):
                self._listen(kind, option, given)
        except BaseException:
            self.close()
            raise

    def _listen(self, kind: Kind, option: str, given: Mapping[str, Address]) -> None:
        for name, address in given.items():
            where = Destination(kind=kind, name=name)
            self.by_destination[where], self.places[where] = addresses.listen(address, f"{option} {name}")

    def shown(self) -> dict[str, dict[str, str]]:
        """Where they are, by kind and by the port's name."""
        out: dict[str, dict[str, str]] = {"port": {}, "tunnel": {}}
        for where, address in self.places.items():
            out[where.kind.name.lower()][where.name] = str(address)
        return out

    def close(self) -> None:
        """Listen no more."""
        for where, listener in self.by_destination.items():
            listener.close()
            address = self.places.get(where)
            if address is not None and address.path:
                with contextlib.suppress(OSError):
                    os.unlink(address.path)  # noqa: PTH108 - as the operator spelled it
        self.by_destination.clear()


@dataclass(frozen=True, kw_only=True)
class RoomNetwork:
    """What a relay needs to know. terms: of the room, as the node has them. listeners: closed by who made them."""

    terms: RoomTerms
    options: NetworkOptions
    listeners: Listeners


class InwardStreams:
    """Carries what the listeners take, from the program's start to its end."""

    def __init__(self, loop: Loop, listeners: Listeners) -> None:
        self._loop = loop
        self._listeners = listeners
        self._ends: set[_Inward] = set()
        self._is_watched = self._has_ended = False

    def phase(self, name: str) -> None:
        """The room says how far it is."""
        if name == _STARTED:
            self._watch()
        elif name == _ENDED:
            self._has_ended = True
            self._forget()
            self._listeners.close()

    def finished(self, end: _Inward) -> None:
        """A stream is over."""
        self._ends.discard(end)
        self._watch()

    def _watch(self) -> None:
        if self._is_watched or self._has_ended:
            return
        self._is_watched = True
        for where, listener in self._listeners.by_destination.items():
            self._loop.watch(listener.fileno(), self._accepting(where, listener))

    def _forget(self) -> None:
        if self._is_watched:
            self._is_watched = False
            for listener in self._listeners.by_destination.values():
                self._loop.forget(listener.fileno())

    def _accepting(self, where: Destination, listener: socket.socket) -> Callable[[int], None]:
        def accept(_events: int) -> None:
            for _ in range(_AT_ONCE):
                if len(self._ends) >= MAX_INWARD:
                    self._forget()
                    return
                try:
                    connection, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                except OSError:  # no descriptor is left: until one is
                    self._forget()
                    return
                if connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end = _Inward(self._loop, self)
                try:
                    stream = self._loop.dial(where, end)
                except Unavailable:
                    reset_on_close(connection)
                    connection.close()
                    return
                self._ends.add(end)
                end.attach(stream, connection)

        return accept


class _Inward(SocketEnd):
    """The stream of a connection that somebody made."""

    __slots__ = ("_inward",)

    def __init__(self, loop: Loop, inward: InwardStreams) -> None:
        super().__init__(loop)
        self._inward = inward

    def over(self, reason: Reason | None) -> None:
        """Close the connection."""
        super().over(reason)
        self._inward.finished(self)
