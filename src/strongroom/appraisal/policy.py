"""Claims × a platform's policy → checks, in one fixed order. The words of the language are in model/policy.py.

Deny by default: a claim that a rule names and that is missing is a no; an empty list accepts nothing; a fact that
says "not compared" never passes. Rules only add checks that can fail, so that adding one never turns a denial into
an acceptance. Values are compared with their type: 1 is not true. TCB components are compared one by one, never as
one number. Checks of the same claim by rule and by default both stand in the verdict.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from strongroom.appraisal import profiles
from strongroom.appraisal.attached import check_devices
from strongroom.appraisal.telling import MISSING, made, one_of, same, shown
from strongroom.encoding import fields
from strongroom.model import policy as policy_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from strongroom.model.claims import Claims
    from strongroom.model.policy import Policy, Value
    from strongroom.model.verdict import Check

ANY_MACHINE = "any"
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
        *_facts("platform.fact", claims, asked.facts),
        *_not_compared("platform", claims),
        *_tcb(claims, asked),
        *_products(claims, asked),
        *check_devices(claims, asked.devices, simulated=simulated),
    )


def _profile(claims: Claims, policy: Policy, machines: tuple[str, ...]) -> Iterator[Check]:
    """What a profile forbids the contract to allow."""
    if policy.profile == policy_model.PHYSICAL_ATTACKER:
        # A report under a provider's key names no chip, so that its "machine" stands for all of the provider's.
        wide = [one for one in machines if one == ANY_MACHINE or one.startswith(PROVIDER)]
        listed = bool(machines) and not wide
        yield made(
            "platform.profile.machines",
            "a list of single machines",
            f"{wide[0]}, which is no single one"[:200] if wide else f"{len(machines)} listed",
            listed,
            hint="against somebody with hands on the machine, name the machines whose place you trust",
        )
        lines = profiles.product_lines(claims)
        broken = [line for line in lines if line in profiles.BROKEN]
        yield made(
            "platform.profile.product",
            "a product line without a known key extraction or memory interposer",
            ", ".join(lines) or MISSING,
            bool(lines) and not broken,
            hint=f"{broken[0]}: {profiles.BROKEN[broken[0]]}"
            if broken
            else "the claims name no product line",
        )
    if policy.profile == policy_model.STRICT:
        given = [*policy.waived, *policy.any_value]
        yield made(
            "platform.profile.allowances",
            "nothing waived, and every register compared",
            ", ".join(given)[:400] or "nothing waived",
            not given,
            hint="the profile `strict` stands no such allowance",
        )


def _status(claims: Claims, policy: Policy, now: datetime) -> Iterator[Check]:
    if policy.status is None and not profiles.has_status(claims):
        return
    accepted = DEFAULT_STATUS if policy.status is None else policy.status
    if policy.profile == policy_model.STRICT:
        accepted = {name: end for name, end in accepted.items() if name == UP_TO_DATE}
    end = accepted.get(claims.status)
    held = bool(claims.status) and claims.status in accepted and (end is None or now < end)
    yield made(
        "platform.status",
        one_of(
            name if end is None else f"{name} until {fields.format_time(end)}"
            for name, end in accepted.items()
        ),
        claims.status or MISSING,
        held,
        hint="update the platform's firmware and microcode, or let the parties accept the status until a date",
        source="the vendor's TCB evaluation",
    )


def _advisories(claims: Claims, policy: Policy, now: datetime) -> Iterator[Check]:
    strict = policy.profile == policy_model.STRICT
    for name in claims.advisories:
        end = None if strict else policy.advisories.get(name)
        yield made(
            f"platform.advisory.{name[:64]}",
            "no advisory" if end is None else f"accepted until {fields.format_time(end)}",
            name,
            end is not None and now < end,
            hint="read the advisory: update the platform, or let the parties accept it until a date",
            source="the vendor's TCB evaluation",
        )


def _revocation(claims: Claims, policy: Policy) -> Iterator[Check]:
    found = profiles.REVOCATION.get(claims.tee, profiles.NOT_ASKED)
    demanded = policy.revocation == policy_model.CHECKED
    if found == profiles.NONE_PUBLISHED and not demanded:
        return
    yield made(
        "platform.revocation",
        profiles.CHECKED,
        found,
        found == profiles.CHECKED,
        hint="the verifier has no revocation lists for this kind of evidence",
        source="RFC 5280, section 6.3",
    )


def _vmpl(claims: Claims, policy: Policy) -> Iterator[Check]:
    name = next((one for one in claims.facts if one.rpartition(".")[2] == "vmpl"), None)
    if name is None and policy.vmpl is None:
        return
    wanted = policy.vmpl or 0
    strict = policy.profile == policy_model.STRICT
    got = None if name is None else claims.facts[name]
    yield made(
        "platform.vmpl",
        f"{wanted}, and 0 by the profile `strict`" if strict and wanted else str(wanted),
        shown(got),
        same(got, wanted) and not (strict and wanted),
        hint="the report was asked for from another privilege level of the guest",
        source=profiles.SNP_REPORT,
    )


def _age(claims: Claims, policy: Policy, now: datetime) -> Iterator[Check]:
    stated = claims.facts.get(_TIME_FACT)
    if stated is None and policy.max_age_seconds is None:
        return
    limit = DEFAULT_MAX_AGE if policy.max_age_seconds is None else policy.max_age_seconds
    begun = _moment(stated)
    held = begun is not None and begun - _SKEW <= now <= begun + timedelta(seconds=limit)
    yield made(
        "platform.age",
        f"at most {limit} s old at {fields.format_time(now)}",
        MISSING if begun is None else f"made {fields.format_time(begun)}",
        held,
        hint="attest again" if begun else "this TEE states no time: its freshness is the nonce's",
    )


def _moment(stated: Value | None) -> datetime | None:
    if not isinstance(stated, int) or isinstance(stated, bool) or not 0 <= stated < 253402300800000:
        return None
    return datetime.fromtimestamp(stated / 1000, UTC)


def _demanded(claims: Claims, policy: Policy) -> Iterator[Check]:
    """The facts of the strict default, and of the profile. One that is waived is told as that."""
    strict = policy.profile == policy_model.STRICT
    for name, wanted, source in profiles.demanded_facts(claims, strict=strict):
        got = claims.facts.get(name)
        waived = name in policy.waived and not strict
        yield made(
            f"platform.default.{name}",
            "any value: the parties signed that they waive it" if waived else shown(wanted),
            shown(got),
            waived or same(got, wanted),
            hint="demanded by the profile `strict`"
            if strict
            else "demanded by default; the parties may waive it by its name, and sign that",
            source=source,
        )


def _facts(at: str, claims: Claims, wanted: Mapping[str, tuple[Value, ...]]) -> Iterator[Check]:
    for name, values in wanted.items():
        got = claims.facts.get(name)
        yield made(
            f"{at}.{name}",
            one_of(shown(value) for value in values),
            shown(got),
            any(same(got, value) for value in values) and got != policy_model.NOT_COMPARED,
            hint="the claims have no such fact" if got is None else "the fact is not as the parties demand",
        )


def _not_compared(at: str, claims: Claims) -> Iterator[Check]:
    names = [name for name, value in claims.facts.items() if value == policy_model.NOT_COMPARED]
    if names:
        yield made(
            f"{at}.compared",
            "every value compared with its reference",
            f"not compared: {', '.join(names)}"[:400],
            False,
            hint="the verifier had no reference values of the vendor's; that is no pass under any policy",
        )


def _tcb(claims: Claims, policy: Policy) -> Iterator[Check]:
    for name, least in policy.tcb.items():
        got = claims.tcb.get(name)
        yield made(
            f"platform.tcb.{name}",
            f"at least {least}",
            MISSING if got is None else str(got),
            got is not None and got >= least,
            hint="the claims have no such component" if got is None else f"update {_component(name)}",
        )


def _component(name: str) -> str:
    """What to update, from a component's name: `committed.microcode` is the microcode."""
    which, _, component = name.partition(".")
    if which == "launch":
        return f"{component}, and start the room again"
    return f"{component or which}, and commit it" if which == "committed" else component or which


def _products(claims: Claims, policy: Policy) -> Iterator[Check]:
    if not policy.products_denied:
        return
    lines = profiles.product_lines(claims)
    denied = [line for line in lines if line in policy.products_denied]
    yield made(
        "platform.product",
        "a product line, and none of " + ", ".join(policy.products_denied)[:400],
        ", ".join(lines) or MISSING,
        bool(lines) and not denied,
        hint="the parties deny this product line" if denied else "the claims name no product line",
    )
