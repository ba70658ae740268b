"""Which contract the owner means: by its file, or by the digest of the version that is known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from strongroom.broker import versions
from strongroom.broker.ports import KnownVersion, Series, Transaction
from strongroom.errors import NotFound, Refused
from strongroom.model.contracts import agreement

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.model.identifiers import ContractDigest, RoomName

Latest = tuple[Series, KnownVersion]
"""A contract's series, and the latest version of it that is known."""
Find = Callable[[Transaction], Latest]
"""Finds it in the transaction that changes it."""


def of_file(broker: Broker, data: bytes, *, verb: str, room: RoomName | None = None) -> Find:
    """The contract in the envelope `data`, signed or not, whether or not it is known here. room: which it must have.

    verb: for the message. Raises `Malformed`, `Refused` where the owner has no disk in it.
    """
    contract = agreement.read(data).contract
    if not contract.disks_of(broker.party.keyid):
        raise Refused(
            f"{verb}: {broker.party.name} owns no disk of {contract.id}, so that nothing is ever released here under it",
            code="not-ours",
            hint=f"whoever owns the image or a dataset can {verb} it at their own broker",
        )
    names = [named.name for named in contract.rooms]
    if room is not None and room not in names:
        raise NotFound(
            f"{verb}: {contract.id} has no room {room}",
            code="no-room",
            hint=f"its rooms: {', '.join(names)}",
        )
    series, named = versions.series(contract), versions.known(contract)
    return lambda transaction: (series, transaction.contracts.highest(series) or named)


def of_digest(contract_digest: ContractDigest, *, verb: str) -> Find:
    """The contract whose latest known version has that digest; what is returned raises `NotFound`."""

    def find(transaction: Transaction) -> Latest:
        series = transaction.contracts.of_digest(contract_digest)
        known = None if series is None else transaction.contracts.highest(series)
        if series is None or known is None:
            raise NotFound(
                f"{verb}: {contract_digest} is no contract's latest version that this broker knows",
                code="unknown-contract",
                hint="`strongroom broker status` lists them; or name the contract's file",
            )
        return series, known

    return find
