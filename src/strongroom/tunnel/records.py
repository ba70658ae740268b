"""What a room believes of another room of its contract: the signed records of the brokers that the contract names.

A proof of records holds when, for each party whose broker must have released to that room (`Contract.key_owners`):
  1 the entry is in the ledger of that broker, by the key that the contract has for it
  2 it is a release or a renewal of this contract, by this broker, of the run that the binding's keys name
  3 the entry's binding is the one shown: this contract, the expected room, this broker, and with them the signing key
  4 its verdict is an acceptance whose time has not ended
and all of them are of one and the same keys, no broker missing and none twice.

Not looked at: the evidence. The contract's parties have agreed whose broker judges it; who is outside judges it by itself
(`strongroom.tunnel.connect`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.errors import Refused
from strongroom.ledger import proof as ledger_proof
from strongroom.model import record, tunnel

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import PartyName, RoomName, RunId
    from strongroom.model.tunnel import ShownRelease

KINDS = frozenset((record.RecordKind.RELEASE, record.RecordKind.RENEWAL))
PROOF, EXPIRED = "tunnel-proof", "tunnel-expired"
_HINT = "its brokers have not vouched for this room: whoever answers there is not the room that the contract means"


@dataclass(frozen=True, kw_only=True)
class ProvenRoom:
    """Which room is at the other end. expires: when the first of its verdicts ends. simulated: no hardware stands behind one."""

    role: RoomName
    run_id: RunId
    signing_key: bytes
    simulated: bool
    decided: datetime
    expires: datetime


def verify(data: bytes, contract: Contract, role: RoomName, *, now: datetime) -> ProvenRoom:
    """Who the proof `data` (of records) proves. Raises `Malformed`, `Refused`."""
    proof = tunnel.parse_proof(data, wants=tunnel.Wants.RECORDS)
    rooms = [_release(release, contract, role, now) for release in proof.releases]
    wanted, shown = contract.key_owners(role), tuple(release.party for release in proof.releases)
    if sorted(wanted) != sorted(shown):
        raise Refused(
            f"tunnel: expected releases by {', '.join(wanted) or 'nobody'}, each once, got those by {', '.join(shown)}",
            code=PROOF,
            hint=_HINT,
        )
    if len({release.binding.keys for release in proof.releases}) != 1:
        raise Refused("tunnel: the releases are to several rooms", code=PROOF, hint=_HINT)
    return ProvenRoom(
        role=role,
        run_id=rooms[0].run_id,
        signing_key=rooms[0].signing_key,
        simulated=any(room.simulated for room in rooms),
        decided=max(room.decided for room in rooms),
        expires=min(room.expires for room in rooms),
    )


def _release(release: ShownRelease, contract: Contract, role: RoomName, now: datetime) -> ProvenRoom:
    party, binding = release.party, release.binding
    broker = contract.party(party).broker
    if broker is None:
        raise Refused(f"tunnel: {party} has no broker", code=PROOF, hint=_HINT)
    entry, _ = ledger_proof.verify(release.ledger, sign.VerifyingKey(broker.ledger_key))  # 1
    facts: dict[str, tuple[object, object]] = {
        "broker": (party, entry.broker),  # 2
        "contract": (contract.digest, entry.contract_digest),
        "run": (binding.keys.run_id, entry.run_id),
        "binding": (fields.format_data(binding.digest()), entry.body.get("binding")),  # 3
        "binding's contract": (contract.digest, binding.contract_digest),
        "room": (role, binding.role),
        "audience": (broker.pin, binding.audience),
        "signing key": (fields.format_data(binding.keys.signing), entry.body.get("signing_key")),
    }
    if entry.kind not in KINDS:
        raise _wrong(party, "kind", "release or renewal", entry.kind.value)
    for what, (expected, got) in facts.items():
        if expected != got:
            raise _wrong(party, what, expected, got)
    verdict = fields.Fields(entry.body, "ledger entry").object("verdict")
    if (result := verdict.choice("result", ("accepted", "denied"))) != "accepted":
        raise _wrong(party, "verdict", "accepted", result)
    simulated = verdict.object("claims").boolean("simulated")
    expires = verdict.time("expires")
    if (about := verdict.digest("contract")) != contract.digest:
        raise _wrong(party, "verdict's contract", contract.digest, about)
    require_time(expires, now)  # 4
    return ProvenRoom(
        role=role,
        run_id=binding.keys.run_id,
        signing_key=binding.keys.signing,
        simulated=simulated,
        decided=entry.time,
        expires=expires,
    )


def require_time(expires: datetime, now: datetime) -> None:
    """Raise `Refused` when a verdict has ended."""
    if now >= expires:
        raise Refused(
            f"tunnel: the verdict ended at {fields.format_time(expires)}, and it is {fields.format_time(now)}",
            code=EXPIRED,
            hint="the room attests again by the clock: look in its log why its brokers did not renew it",
        )


def _wrong(party: PartyName, what: str, expected: object, got: object) -> Refused:
    return Refused(
        f"tunnel: the record of {party}'s broker: {what}: expected {expected!s:.200}, got {got!s:.200}",
        code=PROOF,
        hint=_HINT,
    )
