"""Where the program finds what its contract lists: each host has two addresses of the loopback, in a line of /etc/hosts.

The first host is 127.77.0.1 and fd7e:7374:726f:6e67::1, the next ends in 2. What a name leads to outside is none of the room's
business: the stream says HOST:PORT as the contract has it, and the program can choose no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.model.room.destination import Destination, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.contracts.network_terms import Egress, Peer
    from strongroom.model.contracts.room_terms import RoomTerms

MAX_HOSTS = 64  # of 32 peers and 32 hosts of egress
_IPV4, _IPV6 = "127.77.{}.{}", "fd7e:7374:726f:6e67::{:x}"


@dataclass(frozen=True, kw_only=True)
class Outward:
    """A host and port that the program may connect to, and what the contract says of it: a peer, or a host outside."""

    host: str
    port: int
    terms: Peer | Egress
    destination: Destination

    @property
    def place(self) -> str:
        """As a launch lists it."""
        return f"{self.host}:{self.port}"


def outward(contract: Contract, room: RoomTerms) -> tuple[Outward, ...]:
    """What the program of that room may connect to, in the order in which it listens."""
    ways = []
    for peer in room.peers:
        port = next(port for port in contract.room(peer.room).ports if port.name == peer.port)
        where = Destination(kind=Kind.PEER, name=f"{peer.room}:{peer.port}")
        ways.append(Outward(host=peer.room, port=port.number, terms=peer, destination=where))
    for egress in room.egress:
        where = Destination(kind=Kind.EGRESS, name=f"{egress.host}:{egress.port}")
        ways.append(Outward(host=egress.host, port=egress.port, terms=egress, destination=where))
    return tuple(ways)


def hosts(listeners: Sequence[str]) -> tuple[str, ...]:
    """The hosts of places, each once, in the order of their addresses."""
    return tuple(dict.fromkeys(place.rpartition(":")[0] for place in listeners))


def addresses(index: int) -> tuple[str, str]:
    """The IPv4 and the IPv6 address of the host that stands there in `hosts`, counted from 0."""
    number = index + 1
    return _IPV4.format(number >> 8, number & 0xFF), _IPV6.format(number)


def hosts_file(listeners: Sequence[str]) -> bytes:
    """The lines of /etc/hosts for them."""
    names = enumerate(hosts(listeners))
    return b"".join(f"{address}\t{host}\n".encode() for index, host in names for address in addresses(index))
