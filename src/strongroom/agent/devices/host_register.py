"""A register that the host fills at launch and nobody changes afterwards: HOSTDATA, MRCONFIGID."""

from __future__ import annotations

from strongroom.crypto import digest
from strongroom.errors import Refused


def check(name: str, register: bytes, contract: str) -> None:
    """Raise `Refused` unless `register` is the contract's raw digest, and zeros to its end."""
    if register != digest.raw(contract).ljust(len(register), b"\0"):
        raise Refused(
            f"binding the contract: {name} is {register.hex()}, expected {contract} and zeros to its end",
            code="contract-mismatch",
            hint="the node launched the room for another contract than it handed out, or for none",
        )
