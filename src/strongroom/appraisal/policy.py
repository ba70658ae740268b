"""Claims × a platform's policy → checks, in one fixed order. The words of the language are in model/contracts/policy.py.

Deny by default: a claim that a rule names and that is missing is a no; an empty list accepts nothing; a fact that
says "not compared" never passes. Rules only add checks that can fail, so that adding one never turns a denial into
an acceptance. Values are compared with their type: 1 is not true. TCB components are compared one by one, never as
one number. Checks of the same claim by rule and by default both stand in the verdict.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from strongroom.appraisal import profiles
from strongroom.appraisal.attached_devices import check_devices
from strongroom.appraisal.checks import bounded, listed, one_of, same
from strongroom.encoding import fields
from strongroom.model import check_names
from strongroom.model.contracts import policy as policy_model
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from strongroom.model.claims import Claims
    from strongroom.model.contracts.policy import Policy, Value
    from strongroom.model.verdict import Data

PROVIDER = "provider:"
UP_TO_DATE = "UpToDate"
DEFAULT_STATUS: Mapping[str, datetime | None] = {UP_TO_DATE: None}
DEFAULT_MAX_AGE = 300  # seconds
_SKEW = timedelta(minutes=5)
_TIME_FACT = "timestamp_ms"


def check_policy(
    claims: Claims,
    policy: Policy | None,
    *,
    machines: tuple[str, ...],
    simulated: bool = False,
    now: datetime,
) -> tuple[Check, ...]:
    """The checks that `policy` and the strict defaults make of `claims`; all must be ok.

    machines: the platform's allow list, for the profile that demands one. simulated: whether the platform accepts
    software standing in, which then holds for its devices too.
    """
    asked = policy or policy_model.DEFAULT
    return (
        *_profile(claims, asked, machines),
        *_status(claims, asked, now),
        *_advisories(claims, asked, now),
        *_revocation(claims, asked),
        *_vmpl(claims, asked),
        *_age(claims, asked, now),
        *_demanded(claims, asked),
        *_facts(claims, asked.facts),
        *_not_compared(claims),
        *_tcb(claims, asked),
        *_products(claims, asked),
        *check_devices(claims, asked.devices, simulated=simulated),
    )


def _profile(claims: Claims, policy: Policy, machines: tuple[str, ...]) -> Iterator[Check]:
    """What a profile forbids the contract to allow."""
    if policy.profile == policy_model.PHYSICAL_ATTACKER:
        # A report under a provider's key names no chip, so that its "machine" stands for all of the provider's.
        wide = [
            machine
            for machine in machines
            if machine == policy_model.ANY_MACHINE or machine.startswith(PROVIDER)
        ]
        yield Check.judged(
            check_names.PROFILE_MACHINES,
            expected="single-machines",
            got={"wide": bounded(wide[0])} if wide else {"listed": len(machines)},
            ok=bool(machines) and not wide,
        )
        lines = profiles.product_lines(claims)
        yield Check.judged(
            check_names.PROFILE_PRODUCT,
            expected="not-broken",
            got=listed(lines),
            ok=bool(lines) and profiles.BROKEN.keys().isdisjoint(lines),
        )
    if policy.profile == policy_model.STRICT:
        allowances = [*policy.waived, *policy.any_value]
        yield Check.judged(
            check_names.PROFILE_ALLOWANCES, expected=[], got=listed(allowances), ok=not allowances
        )


def _status(claims: Claims, policy: Policy, now: datetime) -> Iterator[Check]:
    if policy.status is None and not profiles.has_status(claims):
        return
    accepted = DEFAULT_STATUS if policy.status is None else policy.status
    if policy.profile == policy_model.STRICT:
        accepted = {name: end for name, end in accepted.items() if name == UP_TO_DATE}
    end = accepted.get(claims.status)
    yield Check.judged(
        check_names.PLATFORM_STATUS,
        expected={name: _until(end) for name, end in accepted.items()},
        got=claims.status or None,
        ok=bool(claims.status) and claims.status in accepted and (end is None or now < end),
    )


def _until(end: datetime | None) -> Data:
    return None if end is None else {"until": fields.format_time(end)}


def _advisories(claims: Claims, policy: Policy, now: datetime) -> Iterator[Check]:
    strict = policy.profile == policy_model.STRICT
    for name in claims.advisories:
        end = None if strict else policy.advisories.get(name)
        yield Check.judged(
            f"{check_names.PLATFORM_ADVISORY}{name[:64]}",
            expected=_until(end),
            got=bounded(name),
            ok=end is not None and now < end,
        )


def _revocation(claims: Claims, policy: Policy) -> Iterator[Check]:
    stated = profiles.REVOCATION.get(claims.tee, profiles.NOT_ASKED)
    demanded = policy.revocation == policy_model.CHECKED
    if stated == profiles.NONE_PUBLISHED and not demanded:
        return
    yield Check.judged(
        check_names.PLATFORM_REVOCATION, expected=profiles.CHECKED, got=stated, ok=stated == profiles.CHECKED
    )


def _vmpl(claims: Claims, policy: Policy) -> Iterator[Check]:
    name = next((fact for fact in claims.facts if fact.rpartition(".")[2] == "vmpl"), None)
    if name is None and policy.vmpl is None:
        return
    wanted = policy.vmpl or 0
    at_odds = policy.profile == policy_model.STRICT and wanted != 0
    got = None if name is None else claims.facts[name]
    yield Check.judged(
        check_names.PLATFORM_VMPL,
        expected={"policy": wanted, "strict": 0} if at_odds else wanted,
        got=bounded(got),
        ok=same(got, wanted) and not at_odds,
    )


def _age(claims: Claims, policy: Policy, now: datetime) -> Iterator[Check]:
    stated = claims.facts.get(_TIME_FACT)
    if stated is None and policy.max_age_seconds is None:
        return
    limit = DEFAULT_MAX_AGE if policy.max_age_seconds is None else policy.max_age_seconds
    begun = _moment(stated)
    yield Check.judged(
        check_names.PLATFORM_AGE,
        expected={"seconds": limit, "at": fields.format_time(now)},
        got=None if begun is None else fields.format_time(begun),
        ok=begun is not None and begun - _SKEW <= now <= begun + timedelta(seconds=limit),
    )


def _moment(stated: Value | None) -> datetime | None:
    if not isinstance(stated, int) or isinstance(stated, bool) or not 0 <= stated < 253402300800000:
        return None
    return datetime.fromtimestamp(stated / 1000, UTC)


def _demanded(claims: Claims, policy: Policy) -> Iterator[Check]:
    """The facts of the strict default, and of the profile. A fact that is waived is recorded as waived."""
    strict = policy.profile == policy_model.STRICT
    for name, wanted in profiles.demanded_facts(claims, strict=strict):
        got = claims.facts.get(name)
        waived = name in policy.waived and not strict
        yield Check.judged(
            f"{check_names.PLATFORM_DEFAULT}{name}",
            expected={"waived": wanted} if waived else wanted,
            got=bounded(got),
            ok=waived or same(got, wanted),
        )


def _facts(claims: Claims, wanted: Mapping[str, tuple[Value, ...]]) -> Iterator[Check]:
    for name, values in wanted.items():
        got = claims.facts.get(name)
        yield Check.judged(
            f"{check_names.PLATFORM_FACT}{name}",
            expected=one_of(values),
            got=bounded(got),
            ok=any(same(got, value) for value in values) and got != policy_model.NOT_COMPARED,
        )


def _not_compared(claims: Claims) -> Iterator[Check]:
    names = [name for name, value in claims.facts.items() if value == policy_model.NOT_COMPARED]
    if names:
        yield Check.failed(check_names.PLATFORM_COMPARED, expected=[], got=listed(names))


def _tcb(claims: Claims, policy: Policy) -> Iterator[Check]:
    for name, least in policy.tcb.items():
        got = claims.tcb.get(name)
        yield Check.judged(
            f"{check_names.PLATFORM_TCB}{name}", expected=least, got=got, ok=got is not None and got >= least
        )


def _products(claims: Claims, policy: Policy) -> Iterator[Check]:
    if not policy.products_denied:
        return
    lines = profiles.product_lines(claims)
    yield Check.judged(
        check_names.PLATFORM_PRODUCT,
        expected=listed(policy.products_denied),
        got=listed(lines),
        ok=bool(lines) and not any(line in policy.products_denied for line in lines),
    )
