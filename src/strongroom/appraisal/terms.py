"""The contract's own terms: signed by whom, valid when, run how often (design, sections 4 and 5).

Three questions that need no evidence. Each answer is a check with what was expected and what was
found. `runs_used` counts the runs that the ledger already holds; the caller reads it in the same
transaction in which it records the decision, so that two rooms cannot both be the last.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from strongroom.encoding import fields
from strongroom.model import agreement as agreement_model
from strongroom.model import contract as contract_model
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.encoding.dsse import Envelope
    from strongroom.model.agreement import Agreement
    from strongroom.model.contract import Contract

_KEPT_BYTES = 64 * 1024


def check_terms(agreement: Agreement, *, now: datetime, runs_used: int) -> tuple[Check, ...]:
    """The checks `contract.approvals`, `contract.approvals.<party>`…, `contract.validity`, `contract.runs`."""
    return (*_approvals(agreement), _validity(agreement, now), _runs(agreement, runs_used))


def _approvals(agreement: Agreement) -> tuple[Check, ...]:
    contract = agreement.contract
    signed = set(_signers(agreement))
    counted = [name for name in contract.approvals.parties if name in signed]
    missing = [name for name in contract.approvals.parties if name not in signed]
    approvals = Check(
        name="contract.approvals",
        expected=f"signatures of at least {contract.approvals.threshold} of "
        + _names(contract.approvals.parties),
        got=f"{len(counted)}: {_names(counted)}",
        ok=len(counted) >= contract.approvals.threshold,
        hint=f"still to sign: {_names(missing)} (`strongroom contract sign`)" if missing else "",
        source="contract: approvals",
    )
    return (approvals, *(_signature(name, contract, signed) for name in sorted(contract.must_sign())))


def _signers(agreement: Agreement) -> tuple[str, ...]:
    """Whose signatures verify over the very bytes that this contract was parsed from."""
    if agreement.contract.raw != agreement.envelope.payload:
        return ()
    if len(agreement.envelope.payload) > _KEPT_BYTES:
        return agreement.signers()
    return _kept_signers(agreement.envelope)


@functools.lru_cache(maxsize=64)
def _kept_signers(envelope: Envelope) -> tuple[str, ...]:
    """The same, kept by the exact bytes and signatures: a contract is judged at each of its runs."""
    contract = contract_model.parse(envelope.payload)
    return agreement_model.Agreement(envelope=envelope, contract=contract).signers()


def _signature(name: str, contract: Contract, signers: set[str]) -> Check:
    """A signature that no threshold of others replaces."""
    owns, signed = name in contract.owners(), name in signers
    why = "who owns a disk" if owns else "since a platform is simulated, which every party signs"
    return Check(
        name=f"contract.approvals.{name}",
        expected=f"signature of {name}, {why}",
        got="signed" if signed else "not signed, or the signature does not verify",
        ok=signed,
        hint="" if signed else f"{name} signs these exact bytes (`strongroom contract sign`)",
        source="contract: image.owner, datasets.owner" if owns else "contract: platforms.simulated",
    )


def _validity(agreement: Agreement, now: datetime) -> Check:
    limits = agreement.contract.limits
    ok = limits.not_before <= now < limits.not_after
    return Check(
        name="contract.validity",
        expected=f"from {fields.format_time(limits.not_before)} until before "
        + fields.format_time(limits.not_after),
        got=fields.format_time(now),
        ok=ok,
        hint="" if ok else "wait, or let the parties sign a version with other dates",
        source="contract: limits.not_before, limits.not_after",
    )


def _runs(agreement: Agreement, runs_used: int) -> Check:
    permitted = agreement.contract.limits.runs
    ok = 0 <= runs_used < permitted
    return Check(
        name="contract.runs",
        expected=f"fewer than {permitted} runs so far",
        got=f"{runs_used} runs so far",
        ok=ok,
        hint="" if ok else "the permitted runs are used up; the parties may sign a version with more",
        source="contract: limits.runs",
    )


def _names(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names) if names else "nobody"
