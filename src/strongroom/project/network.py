"""Where rooms of one machine are reached: what a file publishes, and sockets in the folder by which rooms reach each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.project.plan import UNIX

if TYPE_CHECKING:
    from strongroom.model.contracts.network_terms import Port
    from strongroom.project.model import Project, ProjectService

SOCKETS = "sockets"


@dataclass(frozen=True, kw_only=True)
class RoomPlaces:
    """published: where open ports are, by name. tunnels: where tunnels to ports are. peers: where others' tunnels are, by ROOM:PORT."""

    published: dict[str, str]
    tunnels: dict[str, str]
    peers: dict[str, str]


def places(project: Project, service: ProjectService) -> RoomPlaces:
    """Where the ports of a service are, and those of its peers. Sockets' paths begin in the folder."""
    ports = {(other.name, port.number): (other, port) for other in project.services for port in other.ports}
    peers = {}
    for name, number in ((peer.service, peer.number) for peer in service.peers):
        for (room, _), (other, port) in ports.items():
            if (room, port.number) == (name, number):
                peers[f"{room}:{port.name}"] = _tunnel(other, port)
    return RoomPlaces(
        published={
            port.name: address for port in service.ports if port.open and (address := _address(service, port))
        },
        tunnels={port.name: _tunnel(service, port) for port in service.ports},
        peers=peers,
    )


def _tunnel(service: ProjectService, port: Port) -> str:
    """Where tunnels to a port are: where the file publishes it, but for an open one, whose place takes plain connections."""
    published = "" if port.open else _address(service, port)
    # A colon is in no name: no two ports have one socket.
    return published or f"{UNIX}{SOCKETS}/{service.name}:{port.name}"


def _address(service: ProjectService, port: Port) -> str:
    for published in service.published:
        if published.number == port.number:
            host = f"[{published.address}]" if ":" in published.address else published.address
            return f"{host}:{published.host_port}"
    return ""
