"""What the owner changes at the broker: judged, changed and recorded in one transaction, and proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.model import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.broker.broker import Broker
    from strongroom.broker.storage import Transaction
    from strongroom.model import messages


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the ledger is to say. contract: a digest; empty where none is meant."""

    kind: record.Kind
    body: dict[str, object]
    contract: str = ""


async def make(broker: Broker, change: Callable[[Transaction], Change]) -> messages.LedgerProof:
    """Do `change` and record what it returns; return the proof. Where it raises, nothing of it stays."""

    def write(transaction: Transaction) -> tuple[bytes, int]:
        made = change(transaction)
        entry = record.Record(
            kind=made.kind,
            time=broker.clock(),
            broker=broker.party.name,
            contract=made.contract,
            run="",
            body=made.body,
        ).encode()
        return entry, transaction.ledger.append(entry, run="")

    committed = await broker.store.write(write)
    entry, index = committed.value
    return broker.notary.prove(broker.store.ledger, entry=entry, index=index, size=committed.size)
