"""Who may come to a port, by the contract alone.

1 a room comes to the ports that the contract names among its `peers`, and to no other
2 who is no room comes to a port that no room has as a peer, or that is `open`: what rooms alone need, only rooms reach
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Refused
from strongroom.model import tunnel

if TYPE_CHECKING:
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.contracts.network_terms import Port
    from strongroom.model.identifiers import RoomName

NOT_ALLOWED = "tunnel-port"


def port_of(contract: Contract, room: RoomName, name: str) -> Port:
    """The port of that name. Raises `Refused` where the contract has none."""
    for terms in contract.rooms:
        for port in terms.ports:
            if (terms.name, port.name) == (room, name):
                return port
    known = [f"{terms.name}:{port.name}" for terms in contract.rooms for port in terms.ports]
    raise Refused(
        f"the contract has no port {room}:{name}; it has: {', '.join(known) or 'none'}",
        code=NOT_ALLOWED,
        hint="name a room and one of its ports, as `strongroom contract show` lists them",
    )


def require(contract: Contract, room: RoomName, name: str, client: RoomName) -> None:
    """Raise `Refused` unless `client` (a room, or `OUTSIDE`) may come to the port `name` of `room`."""
    port = port_of(contract, room, name)
    allowed = {
        terms.name
        for terms in contract.rooms
        for peer in terms.peers
        if (peer.room, peer.port) == (room, name)
    }
    if client in allowed or (client == tunnel.OUTSIDE and (port.open or not allowed)):
        return
    who = f"the room {client}" if client else "who is no room of the contract"
    raise Refused(
        f"the port {room}:{name} is for {', '.join(sorted(allowed)) or 'those outside'} alone, and not for {who}",
        code=NOT_ALLOWED,
        hint="the contract decides: `peers` of a room name what it reaches, and `open` of a port lets others in beside peers",
    )
