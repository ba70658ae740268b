"""Claims × contract → verdict: is this room one of those that the parties signed for?

The only place that makes `Accepted` and `Denied`. Deny by default: a claim that is missing, a
reference that lacks a register, an empty list are all a no. Every platform of the contract is tried;
one that fits wholly accepts, else the nearest one explains the denial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.encoding import fields
from strongroom.model.verdict import Accepted, Check, Denied, Verdict

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from strongroom.model.binding import Binding
    from strongroom.model.claims import Claims
    from strongroom.model.contract import Contract, Platform

ANY_MACHINE = "any"
MAX_REGISTERS = 32


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
        *_nearest(claims, contract),
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
)


def _binding(binding: Binding, contract: Contract) -> Check:
    return Check(
        name="binding.contract",
        expected=contract.digest,
        got=binding.contract,
        ok=binding.contract == contract.digest,
        hint="" if binding.contract == contract.digest else "the evidence was made under another contract",
    )


def _lifetime(now: datetime, expires: datetime) -> Check:
    return Check(
        name="verdict.lifetime",
        expected=f"an end after {fields.format_time(now)}",
        got=fields.format_time(expires),
        ok=expires > now,
        hint="" if expires > now else "the contract has ended, or the lifetime given is not positive",
    )


def _nearest(claims: Claims, contract: Contract) -> tuple[Check, ...]:
    """The checks of the platform that fits, else of the one that fails least."""
    tried = [
        _platform(claims, contract, platform, reference)
        for platform in contract.platforms
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
            ),
        )
    return min(tried, key=_distance)


def _distance(checks: tuple[Check, ...]) -> tuple[bool, int]:
    failed = [check for check in checks if not check.ok]
    return any(check.name == "platform.tee" for check in failed), len(failed)


def _platform(
    claims: Claims, contract: Contract, platform: Platform, reference: dict[str, str]
) -> tuple[Check, ...]:
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
        ),
        Check(
            name="platform.debug",
            expected="debug off",
            got="debug on" if claims.debug else "debug off",
            ok=not claims.debug,
            hint="the host may look into a room in debug mode; no contract accepts that"
            if claims.debug
            else "",
        ),
        Check(
            name="platform.memory_guard",
            expected="memory guard on" if platform.memory_guard else "memory guard on or off",
            got="memory guard on" if claims.memory_guard else "memory guard off",
            ok=claims.memory_guard or not platform.memory_guard,
            hint=""
            if claims.memory_guard or not platform.memory_guard
            else "start the room with its memory guard on",
        ),
        _among(
            "platform.root",
            platform.roots,
            claims.root,
            hint="the attestation key is certified by an authority that the contract does not name",
        ),
        _machine(claims, platform),
        *_registers(claims, reference),
        _check(
            "platform.contract",
            contract.digest,
            "nothing" if claims.contract is None else claims.contract,
            hint="the room was started under another contract, or never measured one",
        ),
    )


def _machine(claims: Claims, platform: Platform) -> Check:
    if ANY_MACHINE in platform.machines and claims.machine:
        return Check(name="platform.machine", expected="any machine", got=claims.machine, ok=True)
    return _among(
        "platform.machine",
        platform.machines,
        claims.machine or "nothing",
        hint="genuine evidence, but of a machine that the contract does not list",
    )


def _registers(claims: Claims, reference: dict[str, str]) -> tuple[Check, ...]:
    """One check for each register that either side names: a register without a reference is a no."""
    names = [*reference, *(name for name in claims.registers if name not in reference)]
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
    return tuple(_register(name, reference.get(name), claims.registers.get(name)) for name in names)


def _register(name: str, expected: str | None, got: str | None) -> Check:
    if expected is None:
        hint = "the contract's reference does not name this register, so that no value is good"
    else:
        hint = "the room's value is not the one that the parties signed for"
    return _check(
        f"platform.reference.{name[:64]}",
        "a reference value in the contract" if expected is None else expected,
        "nothing" if got is None else got,
        hint=hint,
        ok=expected is not None and got is not None and got == expected,
    )


def _check(name: str, expected: str, got: str, *, hint: str, ok: bool | None = None) -> Check:
    held = expected == got if ok is None else ok
    return Check(name=name, expected=expected, got=got, ok=held, hint="" if held else hint)


def _among(name: str, allowed: tuple[str, ...], got: str, *, hint: str) -> Check:
    held = got in allowed
    shown = allowed[0] if len(allowed) == 1 else f"one of {len(allowed)}: " + ", ".join(allowed[:4])
    return Check(
        name=name, expected=shown if allowed else "nothing", got=got, ok=held, hint="" if held else hint
    )
