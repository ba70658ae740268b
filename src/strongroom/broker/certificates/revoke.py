"""Which certificates are remembered, and when they are revoked: within the transaction that ends what they were issued for.

A contract that is withdrawn, or replaced by its next version, has its rooms' certificates and its issuer revoked. One that
is paused, as a whole or one room of it, has its rooms' alone: they get others when it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker.ports import IssuedIssuer, IssuedLeaf

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.authority.issue import Issued
    from strongroom.broker.ports import Series, Transaction
    from strongroom.model.identifiers import ContractDigest, RoomName, RunId


def remember(
    transaction: Transaction,
    issued: Issued,
    *,
    contract_digest: ContractDigest,
    room: RoomName,
    run_id: RunId,
) -> None:
    """Remember a certificate that is about to leave, to that run."""
    issuer = issued.issuer
    transaction.certificates.add(
        IssuedLeaf(
            serial=issued.serial,
            contract_digest=contract_digest,
            room=room,
            run_id=run_id,
            not_after=issued.not_after,
        ),
        IssuedIssuer(
            contract_digest=contract_digest,
            root=issuer.root_digest,
            certificate=issuer.certificate,
            serial=issuer.serial,
            not_after=issuer.not_after,
        ),
    )


def revoke_for(
    transaction: Transaction, contract_digest: ContractDigest, room: RoomName | None, *, now: datetime
) -> int:
    """Revoke the certificates of a room of the contract, or of all its rooms for None; return how many were good until now.

    For a pause: the contract's issuer stays, so that the rooms can have others later.
    """
    return transaction.certificates.revoke(contract_digest, room, now=now)


def ended(transaction: Transaction, contract_digest: ContractDigest, *, now: datetime) -> None:
    """Revoke all that was issued under a contract that is over for good, its issuer too."""
    revoke_for(transaction, contract_digest, None, now=now)
    transaction.certificates.revoke_issuer(contract_digest, now=now)


def superseded(
    transaction: Transaction, series: Series, contract_digest: ContractDigest, *, now: datetime
) -> None:
    """Before a series rises to the version of that digest: end the version that it replaces, if it is another."""
    known = transaction.contracts.highest(series)
    if known is not None and known.digest != contract_digest:
        ended(transaction, known.digest, now=now)
