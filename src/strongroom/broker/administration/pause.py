"""Use case: the owner pauses a contract, or one of its rooms, and takes that back.

A pause counts from the transaction on in which it is recorded, in every worker and replica: releases and renewals are denied
(`contract.paused`), the certificates of its rooms are revoked, and rooms that run learn of it (`running.watch`) and end their programs. Unlike a withdrawal it can be taken back; runs that it
ended stay ended. It is of every version, of those that come later, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.broker.administration import own_changes
from strongroom.broker.certificates import revoke
from strongroom.broker.ports import ALL_ROOMS
from strongroom.errors import Conflict, NotFound
from strongroom.model import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.broker.administration.series import Find
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import KnownVersion, Transaction
    from strongroom.model import messages
    from strongroom.model.identifiers import RoomName


async def pause(broker: Broker, find: Find, *, room: RoomName | None = None) -> messages.LedgerProof:
    """Pause the contract that `find` names (`series`), or that room of it; return the ledger's proof.

    Raises as `find`, and `Conflict` when it is paused already.
    """

    def paused(before: KnownVersion) -> frozenset[str]:
        name = room or ALL_ROOMS
        if name in before.paused:
            raise Conflict(
                f"pause: {'the contract' if room is None else f'room {room}'} is paused already",
                code="contract-paused",
                hint="nothing is left to do; `strongroom broker resume` takes it back",
            )
        return before.paused | {name}

    return await _change(broker, find, room, record.RecordKind.PAUSE, paused)


async def resume(broker: Broker, find: Find, *, room: RoomName | None = None) -> messages.LedgerProof:
    """Take back what `pause` did; without a room every pause of that contract. Raises as `find`, and `NotFound` where nothing is paused."""

    def paused(before: KnownVersion) -> frozenset[str]:
        if not before.paused if room is None else room not in before.paused:
            others = ", ".join(sorted(before.paused - {ALL_ROOMS})) or "none"
            raise NotFound(
                f"resume: {'the contract' if room is None else f'room {room}'} is not paused by itself",
                code="not-paused",
                hint=f"paused as a whole: {'yes' if ALL_ROOMS in before.paused else 'no'}; rooms: {others}",
            )
        return frozenset() if room is None else before.paused - {room}

    return await _change(broker, find, room, record.RecordKind.RESUMPTION, paused)


async def _change(
    broker: Broker,
    find: Find,
    room: RoomName | None,
    kind: record.RecordKind,
    paused: Callable[[KnownVersion], frozenset[str]],
) -> messages.LedgerProof:
    def change(transaction: Transaction) -> own_changes.OwnChange:
        series, known = find(transaction)
        transaction.contracts.pause(series, replace(known, paused=paused(known)))
        if kind is record.RecordKind.PAUSE:
            revoke.revoke_for(transaction, known.digest, room, now=broker.clock())
        return own_changes.OwnChange(
            kind=kind,
            contract_digest=known.digest,
            body={"id": series.id, "version": known.version, "room": room},
        )

    return await own_changes.make(broker, change)
