"""Several files of one contract, each signed by somebody, made one: parties sign at the same time, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import dsse
from strongroom.errors import Refused
from strongroom.model import signatures
from strongroom.model.contracts import drafting
from strongroom.model.contracts.agreement import Agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.crypto import sign

_TOLD = 3  # differences that a sentence has room for


@dataclass(frozen=True, kw_only=True)
class Merged:
    """One agreement out of several files. left_out: (number of the file, key id) of each signature that counts for nothing."""

    agreement: Agreement
    left_out: tuple[tuple[int, str], ...]


def merge(agreements: Sequence[Agreement]) -> Merged:
    """The signatures of all files over their one contract: each party's once, under its own key id.

    Raises `Refused` unless every file holds the same bytes, and says what differs.
    """
    first = agreements[0]
    for number, other in enumerate(agreements[1:], 2):
        if other.contract.raw != first.contract.raw:
            raise Refused(
                f"merging contracts: file {number} is another contract than file 1: {_difference(first, other)}",
                code="differs",
                hint="signatures are over exact bytes: everybody signs a copy of one and the same file",
            )
    keys = {member.party.signing_key: member.party.keyid for member in first.contract.members}
    good: dict[sign.VerifyingKey, bytes] = {}
    left_out: list[tuple[int, str]] = []
    for number, agreement in enumerate(agreements, 1):
        by_key = signatures.by_key(agreement.envelope, keys)
        for key, signature in by_key.items():
            good.setdefault(key, signature.sig)
        left_out += [
            (number, signature.keyid)
            for signature in agreement.envelope.signatures
            if signature not in by_key.values()
        ]
    envelope = dsse.Envelope(
        payload_type=first.envelope.payload_type,
        payload=first.envelope.payload,
        signatures=tuple(
            dsse.DsseSignature(keyid=keyid, sig=good[key]) for key, keyid in keys.items() if key in good
        ),
    )
    return Merged(agreement=Agreement(envelope=envelope, contract=first.contract), left_out=tuple(left_out))


def _difference(first: Agreement, other: Agreement) -> str:
    rows = drafting.differences(first.contract.raw, other.contract.raw)
    if not rows:
        return "it says the same in other bytes"
    changes = "; ".join(f"{place} is {after}, not {before}" for place, before, after in rows[:_TOLD])
    return changes if len(rows) <= _TOLD else f"{changes}; and {len(rows) - _TOLD} more"
