"""Use case: the owner admits a contract version; every lower version is refused from then on.

A release under a higher version does the same by itself. Admitting is for withdrawing an older
version before any room has run under the newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.wording import explain
from strongroom.broker.storage import KnownVersion
from strongroom.errors import Conflict, Refused
from strongroom.model import record

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.storage import Transaction
    from strongroom.model import messages


async def admit(broker: Broker, data: bytes) -> messages.LedgerProof:
    """Record the version; return the proof. `data` is the agreement's envelope.

    Raises `Malformed`, `Refused` when the gate is shut (`own_party`), `Conflict` when a later version or
    another contract of the same version is known.
    """
    reading = broker.agreements.read(data, broker.party)
    if reading.agreement is None:
        failed = explain(next(check for check in reading.checks if not check.ok))
        raise Refused(
            f"admit: {failed.name}: expected {failed.expected}, got {failed.got}",
            code="not-ours",
            hint=failed.hint,
        )
    contract = reading.agreement.contract

    def append(transaction: Transaction) -> tuple[bytes, int]:
        known = transaction.contracts.highest(contract.id)
        fresh = KnownVersion(version=contract.version, digest=contract.digest)
        if known is not None and (known.version > fresh.version or _clash(known, fresh)):
            raise Conflict(
                f"admit: {contract.id} is at version {known.version}, {known.digest}",
                code="contract-version",
                hint="versions only go up, and one version is one contract",
            )
        entry = record.Record(
            kind=record.Kind.CONTRACT,
            time=broker.clock(),
            broker=broker.party.name,
            contract=contract.digest,
            run="",
            body={"id": contract.id, "version": contract.version},
        ).encode()
        index = transaction.ledger.append(entry, run="")
        transaction.contracts.raise_to(contract.id, fresh)
        return entry, index

    committed = await broker.store.write(append)
    entry, index = committed.value
    return broker.notary.prove(broker.store.ledger, entry=entry, index=index, size=committed.size)


def _clash(known: KnownVersion, fresh: KnownVersion) -> bool:
    return known.version == fresh.version and known.digest != fresh.digest
