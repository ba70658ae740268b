"""From an agreement and evidence to one explained verdict, in one fixed order.

  1 the caller's gates (nonce)            2 the contract's terms: approvals, validity, runs
  3 the evidence, by its TEE's verifier, and that of its attached devices, by theirs
  4 the claims, against the contract's platforms

Used by the broker when it decides and by whoever checks a proof years later, so that both judge
alike. Pure. A failure is a failed check in a `Denied`, never an exception, so that it can be recorded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.appraisal.appraise import NOTHING_ASKED, appraise, deny
from strongroom.appraisal.terms import check_runs, check_terms
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import attached as devices
from strongroom.model import check_names
from strongroom.model.verdict import Check, Verdict, Words

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from strongroom.model.binding import Binding, Bound
    from strongroom.model.claims import Claims
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Platform
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
        claims = verify(evidence, endorsements, contract.platforms, binding=binding, now=now)
    except EvidenceRefused as cause:
        return deny(contract.digest, gates=(*checks, refused(cause)), now=now)
    except Malformed as cause:
        return deny(contract.digest, gates=(*checks, malformed(cause)), now=now)
    return appraise(
        claims, contract, binding=binding, gates=(*checks, verified(evidence.tee)), now=now, lifetime=lifetime
    )


def with_runs_used(verdict: Verdict, agreement: Agreement, *, runs_used: int) -> Verdict:
    """What `judge` would have said, all else being equal, had so many runs been used. Looks at no evidence.

    For a caller who judged with a number that has grown meanwhile; where it had been too many already, it still is.
    """
    at = next(index for index, check in enumerate(verdict.checks) if check.name == check_names.CONTRACT_RUNS)
    before = verdict.checks[at]
    cheap = (*verdict.checks[:at], check_runs(agreement, runs_used))
    if before.ok and all(check.ok for check in cheap):
        return replace(verdict, checks=(*cheap, *verdict.checks[at + 1 :]))
    return deny(verdict.contract_digest, gates=(*cheap, _NOT_LOOKED_AT), now=verdict.decided)


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    platforms: tuple[Platform, ...],
    *,
    binding: Bound,
    now: datetime,
) -> Claims:
    """Claims of the evidence and of its attached devices, by the roots and in the number of devices that `platforms` name.

    Raises as `attached.verify_with_devices`. Which root goes with which device is for `appraise`.
    """
    # Those of the evidence's TEE; where there is none, no device is expected, and `appraise` refuses.
    meant = [candidate for candidate in platforms if candidate.tee == evidence.tee]
    attached = [None if candidate.policy is None else candidate.policy.devices for candidate in meant]
    return devices.verify_with_devices(
        evidence,
        endorsements,
        expected={0 if agreed is None else agreed.count for agreed in attached} or {0},
        binding=binding,
        roots=frozenset(
            root
            for platform, own in zip(meant, attached, strict=True)
            for root in (*platform.roots, *(() if own is None else own.roots))
        ),
        now=now,
    )


_NOT_LOOKED_AT = Check.failed(check_names.EVIDENCE_VERIFIED, expected=None, got="not-judged")
_FORMAT = "evidence in the format of its TEE"
_DAMAGED = "the evidence is damaged, or made by a program of another version"
_PAGE = "docs/verdicts.md, The evidence"


def verified(tee: str) -> Check:
    """The check that evidence of `tee` verified."""
    return Check.passed(check_names.EVIDENCE_VERIFIED, expected=tee, got=tee)


def refused(cause: EvidenceRefused) -> Check:
    """The failed check of evidence that a verifier refused. What it says may quote the evidence: no data of ours."""
    words = Words(expected=cause.expected, got=cause.got, hint=cause.hint, source=cause.source or _PAGE)
    return Check.failed(f"{check_names.EVIDENCE}{cause.check}", expected=None, got=None, words=words)


def malformed(cause: Malformed) -> Check:
    """The failed check of evidence that does not parse."""
    words = Words(expected=_FORMAT, got=cause.message, hint=cause.hint or _DAMAGED, source=_PAGE)
    return Check.failed(check_names.EVIDENCE_FORMAT, expected=None, got=None, words=words)
