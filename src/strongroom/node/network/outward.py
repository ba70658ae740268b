"""What a room's program connects to: hosts that its contract lists, and other rooms, where the operator says that they are.

The contract is the node's own copy: a room that asks for anything else is refused. A host's name is resolved here, and never leads
to a private address, to this machine or to a cloud's metadata service, unless the operator says that the first two may be.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from strongroom.errors import StrongroomError
from strongroom.fetch.http import addresses as safe_addresses
from strongroom.model.room.destination import Kind, Reason
from strongroom.node.network import addresses
from strongroom.streams.socket_end import SocketEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.node.network.addresses import Address
    from strongroom.node.network.connecting import Connector
    from strongroom.node.network.options import NetworkOptions
    from strongroom.streams.loop import Loop
    from strongroom.streams.mux import Stream, StreamEnd

CONNECT_SECONDS = 10.0


class OutwardStreams:
    """Answers the streams of egress and to peers that a room opens. note: called with a line for the operator, once for each kind."""

    def __init__(
        self,
        loop: Loop,
        connector: Connector,
        terms: RoomTerms,
        options: NetworkOptions,
        note: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._connector = connector
        self._egress = {f"{egress.host}:{egress.port}": (egress.host, egress.port) for egress in terms.egress}
        self._peers = {f"{peer.room}:{peer.port}" for peer in terms.peers}
        self._options = options
        self._note = note
        self._noted: set[str] = set()
        loop.listen(Kind.EGRESS, self._open_egress)
        loop.listen(Kind.PEER, self._open_peer)

    def _open_egress(self, stream: Stream, name: str) -> StreamEnd | Reason:
        where = self._egress.get(name)
        if where is None:
            self._say(f"egress to {name} refused: the contract does not list it for this room")
            return Reason.NOT_ALLOWED
        return self._connect(
            stream, f"egress to {name}", lambda: _outside(*where, private=self._options.egress_to_private)
        )

    def _open_peer(self, stream: Stream, name: str) -> StreamEnd | Reason:
        if name not in self._peers:
            self._say(f"peer {name} refused: the contract does not list it for this room")
            return Reason.NOT_ALLOWED
        address = self._options.peers.get(name)
        if address is None:
            self._say(f"peer {name}: nobody said where it is; --peer {name}=ADDRESS does")
            return Reason.UNREACHABLE
        return self._connect(stream, f"peer {name} at {address}", lambda: _peer(address))

    def _connect(self, stream: Stream, what: str, reach: Callable[[], socket.socket]) -> StreamEnd:
        end = _Joined(self._loop, stream)

        def settled(cause: Exception | None) -> None:
            if cause is None:
                return
            why = cause.message if isinstance(cause, StrongroomError) else str(cause)
            more = "; --egress-to-private allows private addresses" if _is_forbidden(cause) else ""
            self._say(f"{what}: {why}{more}")

        self._connector.connect(end, reach, settled)
        return end

    def _say(self, line: str) -> None:
        if line not in self._noted and len(self._noted) < _MOST_NOTES:
            self._noted.add(line)
            self._note(line)


_MOST_NOTES = 200


class _Joined(SocketEnd):
    """The end of a stream that waits for its connection."""

    __slots__ = ("stream",)

    def __init__(self, loop: Loop, stream: Stream) -> None:
        super().__init__(loop)
        self.stream = stream


def _is_forbidden(cause: Exception) -> bool:
    return isinstance(cause, StrongroomError) and cause.code == "forbidden-address"


def _outside(host: str, port: int, *, private: bool) -> socket.socket:
    """A connection to one of the host's addresses, as they are resolved now, each of which was looked at."""
    problem: OSError = OSError(f"{host}: no address")
    for address in safe_addresses.resolve(host, port, private=private):
        try:
            connection = socket.create_connection((address, port), CONNECT_SECONDS)
        except OSError as cause:
            problem = cause
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise problem


def _peer(address: Address) -> socket.socket:
    connection = addresses.connect(address, CONNECT_SECONDS)
    if not address.path:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
