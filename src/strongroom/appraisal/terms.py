"""The contract's own terms: signed by whom, valid when, run how often.

Three questions that need no evidence. Each answer is a check with what was expected and what was
found. `runs_used` counts the runs that the ledger already holds; the caller reads it in the same
transaction in which it records the decision, so that two rooms cannot both be the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.encoding import fields
from strongroom.model import check_names
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract


def check_terms(agreement: Agreement, *, now: datetime, runs_used: int) -> tuple[Check, ...]:
    """The checks `contract.approvals`, `contract.approvals.<party>`…, `contract.validity`, `contract.runs`."""
    return (*_approvals(agreement), _validity(agreement, now), check_runs(agreement, runs_used))


def _approvals(agreement: Agreement) -> tuple[Check, ...]:
    contract = agreement.contract
    signed = set(_signers(agreement))
    counted = [name for name in contract.approvals.parties if name in signed]
    approvals = Check.judged(
        check_names.CONTRACT_APPROVALS,
        expected={"threshold": contract.approvals.threshold, "of": list(contract.approvals.parties)},
        got=counted,
        ok=len(counted) >= contract.approvals.threshold,
    )
    return (approvals, *(_signature(name, contract, signed) for name in sorted(contract.must_sign())))


def _signers(agreement: Agreement) -> tuple[str, ...]:
    """Whose signatures verify over the very bytes that this contract was parsed from."""
    if agreement.contract.raw != agreement.envelope.payload:
        return ()
    return agreement.signers()


def _signature(name: str, contract: Contract, signers: set[str]) -> Check:
    """A signature that no threshold of others replaces."""
    signed = name in signers
    return Check.judged(
        f"{check_names.CONTRACT_APPROVAL_BY}{name}",
        expected="owner" if name in contract.owners() else "simulated",
        got="signed" if signed else "unsigned",
        ok=signed,
    )


def _validity(agreement: Agreement, now: datetime) -> Check:
    limits = agreement.contract.limits
    return Check.judged(
        check_names.CONTRACT_VALIDITY,
        expected={
            "not_before": fields.format_time(limits.not_before),
            "not_after": fields.format_time(limits.not_after),
        },
        got=fields.format_time(now),
        ok=limits.not_before <= now < limits.not_after,
    )


def check_runs(agreement: Agreement, runs_used: int) -> Check:
    """The check `contract.runs`, the last of the terms."""
    permitted = agreement.contract.limits.runs
    return Check.judged(
        check_names.CONTRACT_RUNS, expected=permitted, got=runs_used, ok=0 <= runs_used < permitted
    )
