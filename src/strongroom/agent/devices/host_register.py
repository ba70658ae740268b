"""A register that the host fills at launch and nobody changes afterwards: HOSTDATA, MRCONFIGID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.errors import Refused

if TYPE_CHECKING:
    from strongroom.model.identifiers import ContractDigest


def check(name: str, register: bytes, contract_digest: ContractDigest) -> None:
    """Raise `Refused` unless `register` is the contract's raw digest, and zeros to its end."""
    if register != digest.raw(contract_digest).ljust(len(register), b"\0"):
        raise Refused(
            f"binding the contract: {name} is {register.hex()}, expected {contract_digest} and zeros to its end",
            code="contract-mismatch",
            hint="the node launched the room for another contract than it handed out, or for none",
        )
