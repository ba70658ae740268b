"""Use case: the owner admits a contract version; every lower version is refused from then on.

A release under a higher version does the same by itself. Admitting is for withdrawing an older
version before any room has run under the newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.wording.sentences import explain
from strongroom.broker import versions
from strongroom.broker.administration import own_changes
from strongroom.broker.certificates import revoke
from strongroom.errors import Conflict, Refused
from strongroom.model import check_names, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Transaction
    from strongroom.model import messages


async def admit(broker: Broker, data: bytes, earlier: Sequence[bytes] = ()) -> messages.LedgerProof:
    """Record the version; return the proof. `data` is the agreement's envelope; earlier: those of versions before it.

    Raises `Malformed`, `Refused` when the gate is shut (`own_party`), `Conflict` when it is not the version that is
    known, nor the next (`versions`).
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
    series = versions.series(contract)
    brought = versions.read(contract, earlier, broker.party)

    def change(transaction: Transaction) -> own_changes.OwnChange:
        known = transaction.contracts.highest(series)
        for check in versions.check(known, contract, brought):
            if not check.ok:
                failed = explain(check)
                raise Conflict(
                    f"admit: {failed.name}: expected {failed.expected}, got {failed.got}",
                    code="contract-withdrawn"
                    if check.name == check_names.CONTRACT_WITHDRAWN
                    else "contract-version",
                    hint=failed.hint,
                )
        revoke.superseded(transaction, series, contract.digest, now=broker.clock())
        transaction.contracts.raise_to(series, versions.known(contract))
        return own_changes.OwnChange(
            kind=record.RecordKind.CONTRACT,
            contract_digest=contract.digest,
            body={"id": contract.id, "version": contract.version},
        )

    return await own_changes.make(broker, change)
