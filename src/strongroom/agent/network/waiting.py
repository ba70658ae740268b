"""A program that waits for its peers: the room makes a tunnel to each of them, again and again, until the other program has taken a
connection.

That is known from the other room alone, through a tunnel that proves it: a node that leads the stream elsewhere, or says that a
peer is there, starts no program.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from strongroom.errors import Unavailable
from strongroom.model.contracts.network_terms import Peer
from strongroom.model.room.destination import Reason
from strongroom.streams.socket_end import SocketEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strongroom.agent.network.places import Outward
    from strongroom.agent.network.tunnels import Tunnels
    from strongroom.streams.carrier import Carrier

TRY_SECONDS = 60.0  # for one tunnel: an emulated room takes seconds for it
PAUSE_SECONDS = 1.0
_AGAIN = "run it again; if it stays so, build the base again: it may have been changed"
_TURN_SECONDS = 0.5


def await_peers(
    carrier: Carrier, tunnels: Tunnels, ways: Sequence[Outward], *, on_wait: Callable[[Peer], None]
) -> None:
    """Return once the program of every peer that is to be waited for has taken a connection. on_wait: called before each of them.

    Nothing here gives up: the room's own time does. Raises `Unavailable` when the node is gone, or the tunnels are.
    """
    for way in ways:
        if isinstance(way.terms, Peer) and way.terms.wait:
            on_wait(way.terms)
            while not _is_there(carrier, tunnels, way):
                _turn(carrier, tunnels, lambda: False, PAUSE_SECONDS)


def _is_there(carrier: Carrier, tunnels: Tunnels, way: Outward) -> bool:
    """One tunnel, on which nothing is sent. The other program sees a connection that ends."""
    end = _Attempt(carrier)
    own, theirs = socket.socketpair()
    name = way.destination.name
    with own:
        stream = carrier.dial(way.destination, end)
        end.attach(stream, tunnels.peer_end(theirs, way))
        _turn(carrier, tunnels, lambda: name in tunnels.ready or end.is_over, TRY_SECONDS)
    is_there = name in tunnels.ready
    if not is_there:
        stream.reset(Reason.RESET)
    return is_there


def _turn(carrier: Carrier, tunnels: Tunnels, holds: Callable[[], bool], seconds: float) -> None:
    """Move bytes until that holds, for so long at most."""
    until = time.monotonic() + seconds
    while not holds() and (left := until - time.monotonic()) > 0:
        if carrier.lost or tunnels.is_lost:
            what = (
                f"the channel to the node: {carrier.lost}"
                if carrier.lost
                else "the process of the tunnels ended"
            )
            raise Unavailable(f"waiting for a peer: {what}", code="channel-lost", hint=_AGAIN)
        carrier.turn(min(left, _TURN_SECONDS))


class _Attempt(SocketEnd):
    """The stream of one tunnel."""

    __slots__ = ("is_over",)

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier)
        self.is_over = False

    def over(self, reason: Reason | None) -> None:
        """The tunnel was not made, or has ended."""
        self.is_over = True
        super().over(reason)
