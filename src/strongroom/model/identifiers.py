"""What documents name things by, each with a type of its own: a type checker refuses the digest of a manifest where that of
a contract is meant, and a text that nobody looked at where either is.

All are text. A parser makes one of what it has checked, `digest` of what it has hashed, the command line of an option that
it has checked, the storage of its own rows; nobody else does.
"""

from __future__ import annotations

from typing import NewType

ContractDigest = NewType("ContractDigest", str)
"""`sha256:` and 64 hexadecimal digits: of a contract's exact bytes. It names one version."""

ContractId = NewType("ContractId", str)
"""The name that all versions of a contract share. Its drafter chose it: others may have chosen the same."""

ManifestDigest = NewType("ManifestDigest", str)
"""Of a manifest's exact bytes: the name of a sealed disk in contracts and of its key at a broker."""

EvidenceDigest = NewType("EvidenceDigest", str)
"""Of evidence in canonical form, with that of attached devices: its name in records and certificates."""

RunId = NewType("RunId", str)
"""`run-` and 32 hexadecimal digits, made of a room's signing key: the same at every broker."""

PartyName = NewType("PartyName", str)
"""What a party is called in a contract. Only its key says who somebody is (`KeyId`)."""

RoomName = NewType("RoomName", str)
"""What a room is called in a contract: the role in which it attests."""

KeyId = NewType("KeyId", str)
"""The digest of a party's signing key."""

NO_CONTRACT = ContractDigest("")
"""In entries and requests that are of no contract."""

NO_RUN = RunId("")
"""In entries that are of no run."""

NO_CONTRACT_ID = ContractId("")
"""Where a contract's id is not known."""
