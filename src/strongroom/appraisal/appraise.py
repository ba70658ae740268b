"""Claims × contract → verdict: is this room one of those that the parties signed for?

The only place that makes `Accepted` and `Denied`. Deny by default: a claim that is missing, a
reference that lacks a register, an empty list are all a no. Every platform of the contract is tried;
one that fits wholly accepts, else the nearest one explains the denial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal import profiles
from strongroom.appraisal.policy import ANY_MACHINE, check_policy
from strongroom.crypto import digest
from strongroom.encoding import fields
from strongroom.model import policy as policy_model
from strongroom.model.contract import MAX_REGISTERS
from strongroom.model.verdict import Accepted, Check, Denied, Verdict

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from strongroom.model.binding import Binding
    from strongroom.model.claims import Claims
    from strongroom.model.contract import Contract, Platform
    from strongroom.model.policy import Policy


def appraise(
    claims: Claims,
    contract: Contract,
    *,
    binding: Binding,
    gates: tuple[Check, ...],
    now: datetime,
    lifetime: timedelta,
) -> Verdict:
    """`Accepted` when every one of `gates` and every check of one platform holds, else `Denied`.

    gates: the checks made before (nonce, terms, evidence), told first in the verdict; an empty
    tuple is a denial, since somebody forgot to ask. lifetime: how long the verdict may count; it
    ends with the contract at the latest.
    """
    expires = min(now + lifetime, contract.limits.not_after)
    checks = (
        *gates,
        *(() if gates else (NOTHING_ASKED,)),
        _binding(binding, contract),
        _lifetime(now, expires),
        *check_platforms(claims, contract.platforms, contract=contract.digest, now=now),
    )
    if not all(check.ok for check in checks):
        return Denied(contract=contract.digest, claims=claims, checks=checks, decided=now)
    return Accepted(
        contract=contract.digest, binding=binding, claims=claims, checks=checks, decided=now, expires=expires
    )


def deny(
    contract_digest: str, *, gates: tuple[Check, ...], claims: Claims | None = None, now: datetime
) -> Denied:
    """A denial that is settled before claims are appraised. `gates` says why."""
    checks = gates
    if all(check.ok for check in gates):
        # A denial always shows a failed check, whoever calls this with only good ones.
        checks = (*gates, NOTHING_ASKED)
    return Denied(contract=contract_digest, claims=claims, checks=checks, decided=now)


# Told when a caller made no check of its own: a verdict without, say, a nonce's check is a denial.
NOTHING_ASKED = Check(
    name="verdict.gates",
    expected="a check that was made before",
    got="none that decides",
    ok=False,
    hint="a defect of the caller: it asked for a verdict before it had checked anything",
    source="design 6",
)


def _binding(binding: Binding, contract: Contract) -> Check:
    return Check(
        name="binding.contract",
        expected=contract.digest,
        got=binding.contract,
        ok=binding.contract == contract.digest,
        hint="" if binding.contract == contract.digest else "the evidence was made under another contract",
        source="model/binding.py",
    )


def _lifetime(now: datetime, expires: datetime) -> Check:
    return Check(
        name="verdict.lifetime",
        expected=f"an end after {fields.format_time(now)}",
        got=fields.format_time(expires),
        ok=expires > now,
        hint="" if expires > now else "the contract has ended, or the lifetime given is not positive",
        source="contract: limits.not_after",
    )


def check_platforms(
    claims: Claims, platforms: tuple[Platform, ...], *, contract: str | None, now: datetime
) -> tuple[Check, ...]:
    """The checks of the platform that fits, else of the one that fails least; good when all are ok.

    contract: the digest that the room must have measured; None where there is no contract (a policy file's
    platforms), and then nothing is asked about it.
    """
    tried = [
        _platform(claims, platform, reference, contract=contract, now=now)
        for platform in platforms
        for reference in platform.references
    ]
    if not tried:
        return (
            Check(
                name="platform.tee",
                expected="a platform with a reference in the contract",
                got="none",
                ok=False,
                hint="an empty list accepts nothing",
                source="contract: platforms",
            ),
        )
    return min(tried, key=_distance)


def _distance(checks: tuple[Check, ...]) -> tuple[bool, int]:
    failed = [check for check in checks if not check.ok]
    return any(check.name == "platform.tee" for check in failed), len(failed)


def _platform(
    claims: Claims, platform: Platform, reference: dict[str, str], *, contract: str | None, now: datetime
) -> tuple[Check, ...]:
    if claims.tee != platform.tee:
        # Nothing else of it would mean anything: registers, roots and facts are of another kind.
        return (
            _check("platform.tee", platform.tee, claims.tee, hint="the contract names another kind of room"),
        )
    return (
        _check("platform.tee", platform.tee, claims.tee, hint="the contract names another kind of room"),
        Check(
            name="platform.simulated",
            expected="hardware, or software standing in" if platform.simulated else "hardware",
            got="software standing in for hardware" if claims.simulated else "hardware",
            ok=platform.simulated or not claims.simulated,
            hint=""
            if platform.simulated or not claims.simulated
            else "only a platform with `simulated: true` accepts this root, and every party signs that",
            source="contract: platforms.simulated",
        ),
        Check(
            name="platform.debug",
            expected="debug off",
            got="debug on" if claims.debug else "debug off",
            ok=not claims.debug,
            hint="the host may look into a room in debug mode; no contract accepts that"
            if claims.debug
            else "",
            source=profiles.DEBUG.get(claims.tee, "design 4"),
        ),
        Check(
            name="platform.memory_guard",
            expected="memory guard on" if platform.memory_guard else "memory guard on or off",
            got="memory guard on" if claims.memory_guard else "memory guard off",
            ok=claims.memory_guard or not platform.memory_guard,
            hint=""
            if claims.memory_guard or not platform.memory_guard
            else "start the room with its memory guard on",
            source="contract: platforms.memory_guard",
        ),
        _among(
            "platform.root",
            platform.roots,
            claims.root,
            hint="the attestation key is certified by an authority that the contract does not name",
        ),
        _machine(claims, platform),
        *_registers(claims, reference, platform.policy or policy_model.DEFAULT, contract),
        *(() if contract is None else (_measured(claims, contract),)),
        *check_policy(
            claims, platform.policy, machines=platform.machines, simulated=platform.simulated, now=now
        ),
    )


def _measured(claims: Claims, contract: str) -> Check:
    return _check(
        "platform.contract",
        contract,
        "nothing" if claims.contract is None else claims.contract,
        hint="the room was started under another contract, or never measured one",
    )


def _machine(claims: Claims, platform: Platform) -> Check:
    if ANY_MACHINE in platform.machines and claims.machine:
        return Check(
            name="platform.machine",
            expected="any machine",
            got=claims.machine,
            ok=True,
            source="contract: platforms.machines",
        )
    return _among(
        "platform.machine",
        platform.machines,
        claims.machine or "nothing",
        hint="genuine evidence, but of a machine that the contract does not list",
    )


def _registers(
    claims: Claims, reference: dict[str, str], policy: Policy, contract: str | None
) -> tuple[Check, ...]:
    """One check for each register that either side names: a register without a reference is a no."""
    names = list(dict.fromkeys((*reference, *policy.registers, *claims.registers)))
    if len(names) > MAX_REGISTERS:
        # Verdicts are recorded, and the record has room for so many.
        return (
            _check(
                "platform.reference",
                f"at most {MAX_REGISTERS} registers",
                str(len(names)),
                hint="the contract's reference names registers that no room has",
                ok=False,
            ),
        )
    return tuple(_register(name, claims, reference, policy, contract) for name in names)


def _register(
    name: str, claims: Claims, reference: dict[str, str], policy: Policy, contract: str | None
) -> Check:
    got = claims.registers.get(name)
    lists = (_exact(reference, name), policy.registers.get(name))
    accepted = [one for one in lists if one is not None]
    hint = "the room's value is not the one that the parties signed for"
    if accepted:
        held = got is not None and all(got in values for values in accepted)
        expected = _listed(
            accepted[0] if len(accepted) == 1 else tuple(one for one in accepted[0] if one in accepted[1])
        )
    elif got is not None and contract is not None and _holds(got, contract) and claims.contract == contract:
        # The contract cannot hold its own digest: that this register does is what `platform.contract` compares.
        expected, held = "the contract's digest", True
    elif name in policy.any_value and policy.profile != policy_model.STRICT:
        expected, held = "any value: the parties signed that they do not compare it", got is not None
    else:
        expected, held = "a reference value in the contract", False
        hint = "the contract's reference does not name this register, so that no value is good"
    return _check(
        f"platform.reference.{name[:64]}", expected, "nothing" if got is None else got, hint=hint, ok=held
    )


def _exact(reference: dict[str, str], name: str) -> tuple[str, ...] | None:
    return (reference[name],) if name in reference else None


def _holds(register: str, contract: str) -> bool:
    """Whether a register is the contract's digest, and zeros to its end."""
    return register[:64] == digest.raw(contract).hex() and not register[64:].strip("0")


def _listed(values: tuple[str, ...]) -> str:
    if len(values) == 1:
        return values[0]
    return f"one of {len(values)}: {', '.join(values[:4])}" if values else "nothing"


def _check(name: str, expected: str, got: str, *, hint: str, ok: bool | None = None) -> Check:
    held = expected == got if ok is None else ok
    return Check(
        name=name, expected=expected, got=got, ok=held, hint="" if held else hint, source=_source(name)
    )


def _source(name: str) -> str:
    """Which part of the contract asks for a check of a platform: the key that the check is named for."""
    key = name.split(".")[1]
    named = {"reference": "references", "root": "roots", "machine": "machines", "contract": ""}.get(key, key)
    return f"contract: platforms.{named}" if named else "design 3"


def _among(name: str, allowed: tuple[str, ...], got: str, *, hint: str) -> Check:
    held = got in allowed
    shown = allowed[0] if len(allowed) == 1 else f"one of {len(allowed)}: " + ", ".join(allowed[:4])
    return Check(
        name=name,
        expected=shown if allowed else "nothing",
        got=got,
        ok=held,
        hint="" if held else hint,
        source=_source(name),
    )
