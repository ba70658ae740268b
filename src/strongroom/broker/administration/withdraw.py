"""Use case: the owner withdraws a contract: no version of it is released under again, by any worker or replica.

It counts from the transaction on in which it is recorded (`versions.check`): whoever decides after it denies. Keys that
rooms have already stay with them, and their receipts are still taken. It is never undone; a new contract has another id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker.administration import own_changes, series
from strongroom.broker.certificates import revoke
from strongroom.errors import Conflict
from strongroom.model import record

if TYPE_CHECKING:
    from strongroom.broker.administration.series import Find
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Transaction
    from strongroom.model import messages
    from strongroom.model.identifiers import ContractDigest


async def withdraw(broker: Broker, data: bytes) -> messages.LedgerProof:
    """Withdraw the contract in the envelope `data`, signed or not; return the ledger's proof.

    Raises `Malformed`, `Refused` where the owner has no disk in it, `Conflict` when it is withdrawn already.
    """
    return await _withdraw(broker, series.of_file(broker, data, verb="withdraw"))


async def withdraw_known(broker: Broker, contract_digest: ContractDigest) -> messages.LedgerProof:
    """Withdraw the contract whose latest known version has that digest. Raises as `withdraw`, and `NotFound`."""
    return await _withdraw(broker, series.of_digest(contract_digest, verb="withdraw"))


async def _withdraw(broker: Broker, find: Find) -> messages.LedgerProof:
    def change(transaction: Transaction) -> own_changes.OwnChange:
        of, known = find(transaction)
        if known.withdrawn:
            raise Conflict(
                f"withdraw: {of.id} is withdrawn already",
                code="contract-withdrawn",
                hint="nothing is left to do",
            )
        transaction.contracts.withdraw(of, known)
        revoke.ended(transaction, known.digest, now=broker.clock())
        return own_changes.OwnChange(
            kind=record.RecordKind.WITHDRAWAL,
            contract_digest=known.digest,
            body={"id": of.id, "version": known.version},
        )

    return await own_changes.make(broker, change)
