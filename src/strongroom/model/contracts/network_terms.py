"""What a room's program reaches and is reached by: streams of its own ports, of other rooms' and of hosts outside. Empty means no.

::

    "ports":  [{"name", "number", "open": bool}],
    "peers":  [{"room", "port", "wait": bool}],
    "egress": [{"host": DNS name, "port", "authority": null | base64 of a DER certificate}]

The program finds a peer at the host that is called as its room, and a host of `egress` at its own name: both lead to listeners
in its own network namespace, at addresses of the loopback. It can name nothing else, and no name leaves the room.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import fields
from strongroom.errors import Malformed
from strongroom.model.identifiers import RoomName

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PORTS = MAX_EGRESS = 32
MAX_PEERS = 32
MAX_AUTHORITY = 8192
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label has a letter: an address is no name, and a program would never ask for one.
HOST = re.compile(rf"(?=.{{1,240}}\Z)(?!localhost\Z)(?:{_LABEL}\.)*(?=[a-z0-9-]*[a-z]){_LABEL}", re.ASCII)
HOST_LIKE = "a host's name in lower case, like api.flights.example, no address"


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port on which the program listens. It is reached through tunnels that prove the room, and where it is `open` as plain
    streams too: for a program that ends TLS by itself.
    """

    name: str
    number: int
    open: bool


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A port of another room of the contract, through a tunnel. wait: the program starts once the other's has taken a connection."""

    room: RoomName
    port: str
    wait: bool


@dataclass(frozen=True, kw_only=True)
class Egress:
    """A host outside and its port. authority: the agent speaks TLS to it, and accepts what this certificate (DER) vouches for
    alone; empty: the program's own bytes go out as they are.
    """

    host: str
    port: int
    authority: bytes = b""

    @property
    def authority_digest(self) -> str:
        """The digest of the authority's certificate, for people to compare; of nothing, where there is none."""
        return digest.sha256(self.authority)


def read_ports(source: fields.Fields) -> tuple[Port, ...]:
    """Read `ports`. Raises `Malformed`."""
    ports = []
    for item in source.objects("ports", max_items=MAX_PORTS):
        ports.append(Port(name=item.name("name"), number=_number(item, "number"), open=item.boolean("open")))
        item.done()
    _once([port.name for port in ports], f"{source.what}.ports: name")
    _once([str(port.number) for port in ports], f"{source.what}.ports: number")
    return tuple(ports)


def read_peers(source: fields.Fields) -> tuple[Peer, ...]:
    """Read `peers`. Raises `Malformed`."""
    peers = []
    for item in source.objects("peers", max_items=MAX_PEERS):
        peers.append(
            Peer(room=RoomName(item.name("room")), port=item.name("port"), wait=item.boolean("wait"))
        )
        item.done()
    _once([f"{peer.room}:{peer.port}" for peer in peers], f"{source.what}.peers: port")
    return tuple(peers)


def read_egress(source: fields.Fields) -> tuple[Egress, ...]:
    """Read `egress`. Raises `Malformed`."""
    hosts = []
    for item in source.objects("egress", max_items=MAX_EGRESS):
        authority = item.data_or_null("authority", max_bytes=MAX_AUTHORITY)
        if authority == b"":
            raise Malformed(f"{item.what}.authority: empty, expected null or a certificate")
        hosts.append(
            Egress(
                host=item.text("host", max_length=240, pattern=HOST, like=HOST_LIKE),
                port=_number(item, "port"),
                authority=authority or b"",
            )
        )
        item.done()
    _once([f"{host.host}:{host.port}" for host in hosts], f"{source.what}.egress: host")
    return tuple(hosts)


def to_json(
    ports: Sequence[Port], peers: Sequence[Peer], egress: Sequence[Egress]
) -> dict[str, list[dict[str, object]]]:
    """The object form of the three."""
    return {
        "ports": [{"name": port.name, "number": port.number, "open": port.open} for port in ports],
        "peers": [{"room": peer.room, "port": peer.port, "wait": peer.wait} for peer in peers],
        "egress": [
            {
                "host": host.host,
                "port": host.port,
                "authority": fields.format_data(host.authority) if host.authority else None,
            }
            for host in egress
        ],
    }


def _number(source: fields.Fields, key: str) -> int:
    return source.integer(key, low=1, high=65_535)


def _once(values: Sequence[str], what: str) -> None:
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise Malformed(f"{what} {twice!r} appears twice", code="duplicate")
