"""What an owner sees of the broker: contracts with their runs, disks, and what was denied last, and why. No key is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.broker.budgets import Budgets
from strongroom.encoding import fields
from strongroom.ledger import describe
from strongroom.model import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.broker.ports import KnownDisk, KnownVersion, LedgerView
    from strongroom.model.identifiers import ContractDigest, ContractId, RoomName
    from strongroom.model.record import Record

DENIALS = 10  # the last denials that are listed
LOOKED_AT = 2_000  # entries from the end, among which they are sought
_AT_ONCE = 100


class Overview(Protocol):
    """What the storage lists."""

    @property
    def ledger(self) -> LedgerView:
        """The committed ledger."""

    def known_contracts(self) -> Sequence[tuple[ContractId, KnownVersion]]:
        """Id and highest version of each series."""

    def runs_by_room(self) -> Sequence[tuple[ContractDigest, RoomName, int, int]]:
        """Contract digest, room, runs, and how many of them have a receipt."""

    def known_disks(self) -> Sequence[KnownDisk]:
        """Every disk."""


@dataclass(frozen=True, kw_only=True)
class KnownContract:
    """A room of a contract as this broker knows it: of its highest version.

    room: None while none of its rooms ran here. permitted: runs, None where it is not known; used: of them.
    """

    id: ContractId
    room: RoomName | None
    version: int
    digest: ContractDigest
    withdrawn: bool
    paused: bool
    permitted: int | None
    used: int
    receipts: int

    @property
    def left(self) -> int | None:
        """How many runs may still be released; None where nobody knows."""
        if self.withdrawn:
            return 0
        return None if self.permitted is None else max(0, self.permitted - self.used)

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "id": self.id,
            "room": self.room,
            "version": self.version,
            "digest": self.digest,
            "withdrawn": self.withdrawn,
            "paused": self.paused,
            "runs_permitted": self.permitted,
            "runs_used": self.used,
            "runs_left": self.left,
            "receipts": self.receipts,
        }


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a broker's storage says of it. contracts: a row for each room that ran. earlier: (digest, runs, receipts) of versions that are not the highest. denials: the last first."""

    ledger_size: int
    contracts: tuple[KnownContract, ...]
    earlier: tuple[tuple[ContractDigest, int, int], ...]
    disks: tuple[KnownDisk, ...]
    denials: tuple[tuple[int, Record], ...]
    budgets: Budgets

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "ledger_size": self.ledger_size,
            "contracts": [admitted.to_json() for admitted in self.contracts],
            "earlier_versions": [
                {"contract": contract, "runs": runs, "receipts": receipts}
                for contract, runs, receipts in self.earlier
            ],
            "disks": [
                {"manifest": disk.manifest_digest, "cipher": disk.cipher, "key": disk.sealed_key is not None}
                for disk in self.disks
            ],
            "denials": [_denial_json(index, entry) for index, entry in self.denials],
            "budgets": {
                "nonce_seconds": int(self.budgets.nonce_lifetime.total_seconds()),
                "verdict_seconds": int(self.budgets.verdict_lifetime.total_seconds()),
                "denials_recorded_at_once": self.budgets.denials,
                "seconds_for_one_more": self.budgets.denial_seconds,
                "denials_of_each_contract_and_address": self.budgets.denials_each,
                "seconds_for_one_more_of_each": self.budgets.denial_each_seconds,
            },
        }


def status(store: Overview, budgets: Budgets | None = None) -> Status:
    """Read the status. The storage may be in use by brokers that serve. budgets: theirs; how much of them is left they alone know."""
    used: dict[ContractDigest, list[tuple[RoomName | None, int, int]]] = {}
    for contract, room, runs, receipts in store.runs_by_room():
        used.setdefault(contract, []).append((room, runs, receipts))
    standing = [
        KnownContract(
            id=id,
            room=room,
            version=known.version,
            digest=known.digest,
            withdrawn=known.withdrawn,
            paused=bool(known.paused) if room is None else known.is_paused(room),
            permitted=known.runs,
            used=runs,
            receipts=receipts,
        )
        for id, known in store.known_contracts()
        for room, runs, receipts in used.pop(known.digest, [(None, 0, 0)])
    ]
    return Status(
        ledger_size=store.ledger.size(),
        contracts=tuple(standing),
        earlier=tuple(
            (contract, sum(runs for _, runs, _ in rooms), sum(receipts for _, _, receipts in rooms))
            for contract, rooms in sorted(used.items())
        ),
        disks=tuple(store.known_disks()),
        denials=_denials(store.ledger),
        budgets=budgets or Budgets(),
    )


def _denials(ledger: LedgerView) -> tuple[tuple[int, Record], ...]:
    denials: list[tuple[int, Record]] = []
    end = ledger.size()
    last = max(0, end - LOOKED_AT)
    while end > last and len(denials) < DENIALS:
        start = max(last, end - _AT_ONCE)
        rows = [(start + at, record.parse(leaf)) for at, leaf in enumerate(ledger.leaves(start, end - start))]
        denials += [row for row in reversed(rows) if row[1].kind is record.RecordKind.DENIAL]
        end = start
    return tuple(denials[:DENIALS])


def _denial_json(index: int, entry: Record) -> dict[str, object]:
    first = describe.reason(entry)
    return {
        "entry": index,
        "time": fields.format_time(entry.time),
        "contract": entry.contract_digest,
        "run": entry.run_id,
        "reason": None if first is None else first.to_json(),
    }
