"""Where a room of one's own file is reached by tunnels: contract, address and party, as `strongroom connect` takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import NotFound, Unavailable
from strongroom.project import folder as folders
from strongroom.project import plan as plans

if TYPE_CHECKING:
    from pathlib import Path

_UNIX = "unix:"


@dataclass(frozen=True, kw_only=True)
class Reached:
    """contract: the signed file under which the room runs. at: where its tunnels are. party: its owner's party file."""

    contract: Path
    at: str
    party: Path


def reach(compose: Path, where: str) -> Reached:
    """Of ROOM:PORT of that Compose file. Raises `NotFound` where nothing of it was brought up, or it has no such port, `Unavailable` where nothing of it is up now."""
    state = folders.existing(compose)
    plan = plans.read_plan(state)
    ports = {
        f"{room.name}:{port}": (room, place) for room in plan.rooms for port, place in room.tunnels.items()
    }
    if where not in ports:
        raise NotFound(
            f"{where}: no port of {compose}; there are: {', '.join(sorted(ports)) or 'none'}",
            code="no-such-port",
            hint="name a service and one of its ports, or give --contract and --at for another's room",
        )
    if not state.is_supervised():
        raise Unavailable(
            f"{compose}: nothing of it is up",
            code="not-up",
            hint="`strongroom up` brings it up; `strongroom ps` shows it",
        )
    room, place = ports[where]
    at = f"{_UNIX}{state.path / place.removeprefix(_UNIX)}" if place.startswith(_UNIX) else place
    return Reached(contract=state.path / room.contract, at=at, party=state.party)
