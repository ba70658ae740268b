"""Use case: how a room of a contract stands here (`POST /v1/standings`): what it would be denied for, whatever it proves.

A node asks before it boots a room, and a party before it lets one run. The answer is made by the gates of a release that no
evidence is needed for, in the same order: `own_party`, the versions, the disks and their keys, and the contract's terms. It says nothing that a denied
release would not say to the same asker, and it leaves no trace: no nonce, no entry, no run. What strangers send costs what
`own_party` does at most, by the thread that rests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal import terms
from strongroom.broker import request_checks, versions
from strongroom.model import messages

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Reading
    from strongroom.model.verdict import Check


async def standing(broker: Broker, body: bytes, *, peer: str = "") -> messages.Standing:
    """The checks, all of them or those of the gate that failed. peer: the address that asked.

    Raises `Malformed` or `Unavailable`.
    """
    return await broker.workers.read(_standing, broker, body, peer=peer)


def _standing(broker: Broker, body: bytes) -> messages.Standing:
    request = messages.parse_standing_request(body)  # here: of a long one it would hold up the event loop
    now = broker.clock()
    reading = broker.agreements.read(request.agreement, broker.party)
    agreement = reading.agreement
    if agreement is None:
        return messages.Standing(checks=reading.checks, time=now)
    contract = agreement.contract
    brought = versions.read(contract, request.earlier, broker.party)

    def known(state: Reading) -> tuple[Check, ...]:
        used = state.runs.used(contract.digest, request.room)
        return (
            *request_checks.standing(broker, contract, request.room, brought, state),
            *terms.check_terms(agreement, now=now, runs_used=used),
        )

    return messages.Standing(checks=(*reading.checks, *broker.store.read(known)), time=now)
