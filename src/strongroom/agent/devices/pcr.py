"""The contract in a TPM: PCR 12 of the sha256 bank, extended once and first. Shared by `tpm`, `azure` and `gcp`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.errors import Refused

if TYPE_CHECKING:
    from strongroom.agent import tpm
    from strongroom.model.identifiers import ContractDigest

_EXTENDED = "run it again; if it stays so, the TPM is not sound: another machine may do"

CONTRACT = 12
CLOUD = tuple(range(16))
"""What a cloud's virtual TPM quotes: all PCRs that firmware, boot loader, kernel and a unified image measure into."""


def bind(client: tpm.Tpm, contract_digest: ContractDigest) -> None:
    """Extend the contract's raw digest into PCR 12, which must be untouched. Raises `Refused`."""
    before = client.read_pcr(CONTRACT)
    if any(before):
        raise Refused(
            f"binding the contract: PCR {CONTRACT} was already extended",
            code="pcr-in-use",
            hint="a room binds one contract; something in the boot has bound another before",
        )
    raw = digest.raw(contract_digest)
    client.extend_pcr(CONTRACT, raw)
    if client.read_pcr(CONTRACT) != hashlib.sha256(before + raw).digest():
        raise Refused(
            "binding the contract: the TPM did not extend its PCR", code="pcr-wrong", hint=_EXTENDED
        )


def values(client: tpm.Tpm, indices: tuple[int, ...]) -> bytes:
    """The values of PCRs, one after the other."""
    return b"".join(client.read_pcr(index) for index in indices)
