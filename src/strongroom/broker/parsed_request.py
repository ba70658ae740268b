"""A release or renewal request on its way: parsed, and known to be about a contract of the broker's own party."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from strongroom.broker import versions
from strongroom.model.identifiers import RoomName

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.broker.ports import Series
    from strongroom.crypto.pki.certificates import CertificateRequest
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import EvidenceDigest, KeyId, ManifestDigest, RunId
    from strongroom.model.messages import ReleaseRequest
    from strongroom.model.verdict import Check


@dataclass(frozen=True, kw_only=True)
class ParsedRequest:
    """A release request, parsed: the message, its agreement and its certificate request.

    own: the checks of `own_party`, which all held, or there would be no agreement. own_key: the broker's own party's.
    nonce_end: when the nonce ends, which is one of ours. brought: the contract's earlier versions, as far as the request has them.
    renews: a renewal is asked for, of a run that has its keys.
    """

    request: ReleaseRequest
    own: tuple[Check, ...]
    own_key: KeyId
    nonce_end: datetime
    agreement: Agreement
    brought: versions.Brought
    csr: CertificateRequest | None
    renews: bool = False

    @property
    def contract(self) -> Contract:
        """The contract that keys are asked for under."""
        return self.agreement.contract

    @property
    def room(self) -> RoomName:
        """The room that it says to be, which may be none of the contract's."""
        return RoomName(self.request.role)

    @cached_property
    def own_root(self) -> str:
        """The digest of the root that the contract names for the own party's authority."""
        brokers = (
            member.party.broker for member in self.contract.members if member.party.keyid == self.own_key
        )
        return next((broker.authority for broker in brokers if broker is not None), "")

    @cached_property
    def disks(self) -> tuple[ManifestDigest, ...]:
        """Manifests of the own party's disks in that room."""
        return self.contract.disks_of(self.own_key, room=self.room)

    @cached_property
    def series(self) -> Series:
        """What the contract's versions are counted by."""
        return versions.series(self.contract)

    @cached_property
    def run_id(self) -> RunId:
        """The run's name."""
        return self.request.keys.run_id

    @cached_property
    def evidence_digest(self) -> EvidenceDigest:
        """The digest of the evidence, by which records and certificates name it."""
        return self.request.evidence.digest
