"""Whether the networks of a contract's rooms fit together: every peer is there, and one name or number stands for one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.model.contracts.room_terms import RoomTerms


def check(rooms: Sequence[RoomTerms]) -> None:
    """Raise `Malformed` for a peer that no room of the contract is, and where one name or number would stand for two things."""
    ports = {room.name: {port.name: port for port in room.ports} for room in rooms}
    for room in rooms:
        what = f"contract.rooms: {room.name}"
        numbers = {port.number for port in room.ports}
        outward = [(host.host, host.port) for host in room.egress]
        for peer in room.peers:
            if peer.room == room.name:
                raise Malformed(f"{what}: peers: is its own peer", code="own-peer")
            port = ports.get(peer.room, {}).get(peer.port)
            if port is None:
                raise Malformed(
                    f"{what}: peers: no room {peer.room!r} has a port {peer.port!r}",
                    code="unknown-peer",
                    hint="name a room of this contract and the name of one of its ports",
                )
            outward.append((peer.room, port.number))
        if both := {peer.room for peer in room.peers} & {host.host for host in room.egress}:
            raise Malformed(
                f"{what}: {min(both)} is the name of a peer and of a host of egress", code="duplicate"
            )
        for name, number in outward:
            if number in numbers:  # a program that listens on all addresses would take this one's too
                raise Malformed(
                    f"{what}: its program listens on port {number}, and reaches {name} on that port",
                    code="same-port",
                    hint="let the program listen on another number: both are of one network namespace",
                )
