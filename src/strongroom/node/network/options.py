"""What the operator says of a room's network, held against the contract before anything boots.

The contract says which ports, peers and hosts there are; the operator says where on this machine and beyond they are reached.
Nothing that is given here is trusted by a room, and nothing widens what its contract allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.node.network.addresses import Address


_HINT = "`strongroom contract show` lists the room's ports, peers and hosts"


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """published: where open ports are listened for, by the port's name. tunnels: where tunnels to ports are, by the same.

    peers: where another room's tunnels are reached, by ROOM:PORT. egress_to_private: hosts outside may have private addresses and
    those of this machine, but for a cloud's metadata service.
    """

    published: Mapping[str, Address] = field(default_factory=dict)
    tunnels: Mapping[str, Address] = field(default_factory=dict)
    peers: Mapping[str, Address] = field(default_factory=dict)
    egress_to_private: bool = False

    def fitted(self, terms: RoomTerms) -> NetworkOptions:
        """The same for that room, with each peer by its whole name. Raises `Misuse` for what its contract does not have."""
        ports = {port.name: port for port in terms.ports}
        for option, given in (("--publish", self.published), ("--tunnel", self.tunnels)):
            for name in given:
                if name not in ports:
                    raise Misuse(
                        f"{option} {name}: expected a port of the room {terms.name}, which has {', '.join(ports) or 'none'}",
                        code="unknown-port",
                        hint=_HINT,
                    )
        for name in self.published:
            if not ports[name].open:
                raise Misuse(
                    f"--publish {name}: the contract opens this port to tunnels alone",
                    code="port-not-open",
                    hint=f"give --tunnel {name}=ADDRESS, and connect with `strongroom connect`; or agree on an open port",
                )
        names = [f"{peer.room}:{peer.port}" for peer in terms.peers]
        peers = {}
        for name, address in self.peers.items():
            meant = [whole for whole in names if name in (whole, whole.partition(":")[0])]
            if len(meant) != 1 or meant[0] in peers:
                raise Misuse(
                    f"--peer {name}: expected a peer of the room {terms.name}, which has {', '.join(names) or 'none'}",
                    code="unknown-peer",
                    hint=_HINT,
                )
            peers[meant[0]] = address
        return NetworkOptions(
            published=self.published,
            tunnels=self.tunnels,
            peers=peers,
            egress_to_private=self.egress_to_private,
        )


NO_NETWORK = NetworkOptions()
