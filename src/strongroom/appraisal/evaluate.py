"""Evidence × a policy file → a verdict without a contract: for relying parties that only judge evidence.

The same checks, in the same order, as a contract's verdict has for evidence and platform. An `Appraisal`
releases nothing: it is of another type than `Accepted`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.appraisal.appraise import check_platforms
from strongroom.appraisal.judge import malformed, refused, verified, verify
from strongroom.encoding import fields
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.model.verdict import VERSION

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.contracts.policy_file import PolicyFile
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.verdict import Check


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """What came of it. `policy` is the policy's digest; `claims` None when the evidence itself did not verify."""

    policy: str
    claims: Claims | None
    checks: tuple[Check, ...]
    decided: datetime

    @property
    def accepted(self) -> bool:
        """Whether there are claims and every check is ok."""
        return self.claims is not None and bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed, in order."""
        return tuple(check for check in self.checks if not check.ok)

    def to_json(self) -> dict[str, object]:
        """The record form: a verdict's, with `policy` where that has `contract`."""
        return {
            "version": VERSION,
            "result": "accepted" if self.accepted else "denied",
            "policy": self.policy,
            "decided": fields.format_time(self.decided),
            "claims": None if self.claims is None else self.claims.to_record(),
            "checks": [check.to_json() for check in self.checks],
        }


def evaluate(
    evidence: Evidence,
    endorsements: Endorsements,
    policy: PolicyFile,
    *,
    binding: Bound,
    now: datetime,
    contract_digest: ContractDigest | None = None,
) -> Appraisal:
    """Verify and judge. Never raises for what the evidence is.

    contract_digest: of a contract that the room must have measured, where there is one.
    """
    try:
        claims = verify(evidence, endorsements, policy.platforms, binding=binding, now=now)
    except EvidenceRefused as cause:
        return Appraisal(policy=policy.digest, claims=None, checks=(refused(cause),), decided=now)
    except Malformed as cause:
        return Appraisal(policy=policy.digest, claims=None, checks=(malformed(cause),), decided=now)
    checks = (
        verified(evidence.tee),
        *check_platforms(claims, policy.platforms, contract_digest=contract_digest, now=now),
    )
    return Appraisal(policy=policy.digest, claims=claims, checks=checks, decided=now)
