"""The owner's pause of a project's rooms, at the broker that `up` made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Misuse
from strongroom.model.identifiers import RoomName
from strongroom.project import folder as folders
from strongroom.project import plan as plans
from strongroom.wiring import owner

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.model.messages import LedgerProof


def pause(compose: Path, service: str | None, *, resume: bool) -> LedgerProof:
    """Pause a service of that Compose file, every one for None, or with `resume` take that back; the ledger's proof of it.

    Raises `NotFound` where nothing of it was brought up, `Misuse` for no service of it, and like `wiring.owner.pause_contract`.
    """
    state = folders.existing(compose)
    rooms = {room.name: room for room in plans.read_plan(state).rooms}
    if not rooms or (service is not None and service not in rooms):
        raise Misuse(
            f"{service or compose}: expected a service that was brought up, one of {', '.join(rooms) or 'none'}",
            code="no-such-service",
            hint="`strongroom ps` lists them",
        )
    planned = next(iter(rooms.values())) if service is None else rooms[RoomName(service)]
    return owner.pause_contract(
        state.broker,
        str(state.path / planned.contract),
        room=None if service is None else RoomName(service),
        resume=resume,
        passphrase=state.passphrase,
    )
