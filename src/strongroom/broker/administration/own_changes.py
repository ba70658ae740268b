"""What is changed and recorded in one transaction, and proved: the owner's changes, and receipts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.model import record
from strongroom.model.identifiers import NO_CONTRACT, NO_RUN, ContractDigest, RunId

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Transaction
    from strongroom.model import messages


@dataclass(frozen=True, kw_only=True)
class OwnChange:
    """What the ledger is to say. contract_digest, run_id: empty where none is meant."""

    kind: record.RecordKind
    body: dict[str, object]
    contract_digest: ContractDigest = NO_CONTRACT
    run_id: RunId = NO_RUN


async def make(broker: Broker, change: Callable[[Transaction], OwnChange]) -> messages.LedgerProof:
    """Do `change` and record what it returns; return the proof. Where it raises, nothing of it stays."""
    return await prove(broker, lambda transaction: append(broker, transaction, change(transaction)))


def append(broker: Broker, transaction: Transaction, change: OwnChange) -> tuple[bytes, int]:
    """Record `change` now. Returns the entry, and its place in the ledger."""
    entry = record.Record(
        kind=change.kind,
        time=broker.clock(),
        broker=broker.party.name,
        contract_digest=change.contract_digest,
        run_id=change.run_id,
        body=change.body,
    ).encode()
    return entry, transaction.ledger.append(entry, run_id=change.run_id)


async def prove(broker: Broker, write: Callable[[Transaction], tuple[bytes, int]]) -> messages.LedgerProof:
    """Do `write` in a transaction of its own; prove the entry that it returns with its place. What it raises undoes all of it."""
    committed = await broker.store.write(write)
    entry, index = committed.value
    return broker.notary.prove(broker.store.ledger, entry=entry, index=index, size=committed.size)
