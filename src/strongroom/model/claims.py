"""Claims: what verified evidence says. They exist only if signature, chain and binding held.

Made by `evidence` alone (an architecture test holds that). Whether they are good enough is for
`appraisal`: a claim that nobody compares counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.model.identifiers import ContractDigest


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The claims of one verified piece of evidence.

    tee: the verifier's name. simulated: software stood in for hardware. root: digest of the trusted
    root certificate (DER). machine: a stable identity of the very TEE (for `tpm` the digest of the
    attestation key's SubjectPublicKeyInfo). contract_digest: the one that the hardware itself
    vouches for, or None where the TEE has no such field. registers: measurements by name, as
    contracts' references name them. debug: whether the host may look in. memory_guard: whether the
    node said, in the measured record, that it shields the room's memory. facts: every other claim,
    typed. tcb: security version numbers by component ("committed.snp", "reported.microcode", "qe.svn", …), for
    minimums. status and advisories: the vendor's word for the platform's TCB ("UpToDate", …) and the advisories
    that it names, where the vendor says so. devices: claims of attached devices, bound to these by nonce.
    not_checked: what a reader might expect to have been checked and was not, with the reason.
    """

    tee: str
    simulated: bool
    root: str
    machine: str
    contract_digest: ContractDigest | None
    registers: dict[str, str]
    debug: bool
    memory_guard: bool
    facts: dict[str, str | int | bool]
    not_checked: tuple[str, ...]
    tcb: dict[str, int] = field(default_factory=dict)
    status: str = ""
    advisories: tuple[str, ...] = ()
    devices: tuple[Claims, ...] = ()

    def with_facts(self, facts: dict[str, str | int | bool]) -> Claims:
        """These claims with `facts` added, for the same TEE's next evidence: what else they say did not change.

        Faster than making them anew, and no mapping is shared, so that nobody can change another's claims.
        """
        twin = object.__new__(Claims)
        state = twin.__dict__
        state.update(self.__dict__)
        state["registers"] = self.registers.copy()
        state["facts"] = self.facts | facts
        state["tcb"] = self.tcb.copy()
        return twin

    def to_json(self) -> dict[str, object]:
        """The object form, for people."""
        return {
            "tee": self.tee,
            "simulated": self.simulated,
            "root": self.root,
            "machine": self.machine,
            "contract": self.contract_digest,
            "registers": dict(self.registers),
            "debug": self.debug,
            "memory_guard": self.memory_guard,
            "facts": dict(self.facts),
            "not_checked": list(self.not_checked),
            "tcb": dict(self.tcb),
            "status": self.status,
            "advisories": list(self.advisories),
            "devices": [device.to_json() for device in self.devices],
        }

    def to_record(self) -> dict[str, object]:
        """The object form that verdicts hold: without what nobody checked, which is in sentences.

        Of devices it says who they are: a ledger's entry has room for a verdict over 64 of them in this form alone.
        The evidence, whose digest a record holds, gives the rest again.
        """
        record = {**self.to_json(), "devices": [device.named() for device in self.devices]}
        del record["not_checked"]
        return record

    def named(self) -> dict[str, object]:
        """Which TEE this is, under which root."""
        return {
            "tee": self.tee,
            "simulated": self.simulated,
            "root": self.root,
            "machine": self.machine,
        }
