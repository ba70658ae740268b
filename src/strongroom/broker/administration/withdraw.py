"""Use case: the owner withdraws a contract: no version of it is released under again, by any worker or replica.

It counts from the transaction on in which it is recorded (`versions.check`): whoever decides after it denies. Keys that
rooms have already stay with them, and their receipts are still taken. It is never undone; a new contract has another id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker import versions
from strongroom.broker.administration import own_changes
from strongroom.broker.certificates import revoke
from strongroom.errors import Conflict, NotFound, Refused
from strongroom.model import record
from strongroom.model.contracts import agreement

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import KnownVersion, Series, Transaction
    from strongroom.model import messages
    from strongroom.model.identifiers import ContractDigest

    # A contract's series, and the latest version of it that is known.
    Latest = tuple[Series, KnownVersion]


async def withdraw(broker: Broker, data: bytes) -> messages.LedgerProof:
    """Withdraw the contract in the envelope `data`, signed or not; return the ledger's proof.

    Raises `Malformed`, `Refused` where the owner has no disk in it, `Conflict` when it is withdrawn already.
    """
    contract = agreement.read(data).contract
    if not contract.disks_of(broker.party.keyid):
        raise Refused(
            f"withdraw: {broker.party.name} owns no disk of {contract.id}, so that nothing is ever released here under it",
            code="not-ours",
            hint="whoever owns the image or a dataset withdraws it at their own broker",
        )
    series, named = versions.series(contract), versions.known(contract)
    return await _withdraw(
        broker, lambda transaction: (series, transaction.contracts.highest(series) or named)
    )


async def withdraw_known(broker: Broker, contract_digest: ContractDigest) -> messages.LedgerProof:
    """Withdraw the contract whose latest known version has that digest. Raises as `withdraw`, and `NotFound`."""

    def find(transaction: Transaction) -> Latest:
        series = transaction.contracts.of_digest(contract_digest)
        known = None if series is None else transaction.contracts.highest(series)
        if series is None or known is None:
            raise NotFound(
                f"withdraw: {contract_digest} is no contract's latest version that this broker knows",
                code="unknown-contract",
                hint="`strongroom broker status` lists them; or name the contract's file",
            )
        return series, known

    return await _withdraw(broker, find)


async def _withdraw(broker: Broker, find: Callable[[Transaction], Latest]) -> messages.LedgerProof:
    def change(transaction: Transaction) -> own_changes.OwnChange:
        series, known = find(transaction)
        if known.withdrawn:
            raise Conflict(
                f"withdraw: {series.id} is withdrawn already",
                code="contract-withdrawn",
                hint="nothing is left to do",
            )
        transaction.contracts.withdraw(series, known)
        revoke.ended(transaction, known.digest, now=broker.clock())
        return own_changes.OwnChange(
            kind=record.RecordKind.WITHDRAWAL,
            contract_digest=known.digest,
            body={"id": series.id, "version": known.version},
        )

    return await own_changes.make(broker, change)
