"""From an agreement and evidence to one explained verdict, in one fixed order (design, section 5).

  1 the caller's gates (nonce)            2 the contract's terms: approvals, validity, runs
  3 the evidence, by its TEE's verifier   4 the claims, against the contract's platforms

Used by the broker when it decides and by whoever checks a proof years later, so that both judge
alike. Pure. A failure is a failed check in a `Denied`, never an exception, so that it can be recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.appraise import NOTHING_ASKED, appraise, deny
from strongroom.appraisal.terms import check_terms
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import registry
from strongroom.model.verdict import Check, Verdict

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from strongroom.model.agreement import Agreement
    from strongroom.model.binding import Binding
    from strongroom.model.contract import Contract
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence


def judge(
    agreement: Agreement,
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Binding,
    gates: tuple[Check, ...],
    runs_used: int,
    now: datetime,
    lifetime: timedelta,
) -> Verdict:
    """Decide. `gates` are the caller's own checks, without which nothing is accepted; see `appraise` for `lifetime`.

    When a gate or a term failed, the evidence is not looked at, and a check says so: whoever cannot
    pass the cheap checks does not get to spend the verifier's time.
    """
    contract = agreement.contract
    checks = (*(gates or (NOTHING_ASKED,)), *check_terms(agreement, now=now, runs_used=runs_used))
    if not all(check.ok for check in checks):
        return deny(contract.digest, gates=(*checks, _NOT_LOOKED_AT), now=now)
    try:
        claims = registry.verify(
            evidence, endorsements, binding=binding, roots=trusted_roots(contract, evidence.tee), now=now
        )
    except EvidenceRefused as cause:
        return deny(contract.digest, gates=(*checks, refused(cause)), now=now)
    except Malformed as cause:
        return deny(contract.digest, gates=(*checks, malformed(cause)), now=now)
    return appraise(
        claims, contract, binding=binding, gates=(*checks, verified(evidence.tee)), now=now, lifetime=lifetime
    )


def trusted_roots(contract: Contract, tee: str) -> frozenset[str]:
    """Digests of the roots that the contract's platforms of that TEE name; maybe none."""
    return frozenset(root for one in contract.platforms if one.tee == tee for root in one.roots)


_NOT_LOOKED_AT = Check(
    name="evidence.verified",
    expected="evidence that verifies and is bound to this request",
    got="not looked at, since a check before it failed",
    ok=False,
    hint="settle the failed checks above first",
)


def verified(tee: str) -> Check:
    """The check that evidence of `tee` verified."""
    return Check(
        name="evidence.verified",
        expected=f"{tee} evidence that verifies and is bound to this request",
        got="verified",
        ok=True,
    )


def refused(cause: EvidenceRefused) -> Check:
    """The failed check of evidence that a verifier refused."""
    return Check(
        name=f"evidence.{cause.check}",
        expected=cause.expected,
        got=cause.got,
        ok=False,
        hint=cause.hint,
        source=cause.source,
    )


def malformed(cause: Malformed) -> Check:
    """The failed check of evidence that does not parse."""
    return Check(
        name="evidence.format",
        expected="evidence in the format of its TEE",
        got=cause.message,
        ok=False,
        hint=cause.hint or "the evidence is damaged, or made by a program of another version",
    )
