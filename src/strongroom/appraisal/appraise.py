"""Claims × contract → verdict: is this room one of those that the parties signed for?

The only place that makes `Accepted` and `Denied`. Deny by default: a claim that is missing, a
reference that lacks a register, an empty list are all a no. Every platform of the contract is tried;
one that fits wholly accepts, else the nearest one explains the denial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.checks import ANY, HARDWARE, SOFTWARE, one_of
from strongroom.appraisal.policy import check_policy
from strongroom.crypto import digest
from strongroom.encoding import fields
from strongroom.model import check_names
from strongroom.model.contracts import policy as policy_model
from strongroom.model.contracts.contract import MAX_REGISTERS
from strongroom.model.verdict import Accepted, Check, Denied, Verdict

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from strongroom.model.binding import Binding
    from strongroom.model.claims import Claims
    from strongroom.model.contracts.contract import Contract, Platform
    from strongroom.model.contracts.policy import Policy
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.launch import Launch
    from strongroom.model.verdict import Data


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

    gates: the checks made before (nonce, terms, evidence), which stand first in the verdict; an empty
    tuple is a denial, since somebody forgot to ask. lifetime: how long the verdict may count; it
    ends with the contract at the latest.
    """
    expires = min(now + lifetime, contract.limits.not_after)
    checks = (
        *gates,
        *(() if gates else (NOTHING_ASKED,)),
        _binding(binding, contract),
        _lifetime(now, expires),
        *check_platforms(claims, contract.platforms, contract_digest=contract.digest, now=now),
    )
    if not all(check.ok for check in checks):
        return Denied(contract_digest=contract.digest, claims=claims, checks=checks, decided=now)
    return Accepted(
        contract_digest=contract.digest,
        binding=binding,
        claims=claims,
        checks=checks,
        decided=now,
        expires=expires,
    )


def deny(
    contract_digest: ContractDigest, *, gates: tuple[Check, ...], claims: Claims | None = None, now: datetime
) -> Denied:
    """A denial that is settled before claims are appraised. `gates` says why."""
    checks = gates
    if all(check.ok for check in gates):
        # A denial always shows a failed check, whoever calls this with only good ones.
        checks = (*gates, NOTHING_ASKED)
    return Denied(contract_digest=contract_digest, claims=claims, checks=checks, decided=now)


# Added when a caller made no check of its own: a verdict without, say, a nonce's check is a denial.
NOTHING_ASKED = Check.failed(check_names.VERDICT_GATES, expected="asked", got="not-asked")


def _binding(binding: Binding, contract: Contract) -> Check:
    return Check.equal(check_names.BINDING_CONTRACT, contract.digest, binding.contract_digest)


def _lifetime(now: datetime, expires: datetime) -> Check:
    return Check.judged(
        check_names.VERDICT_LIFETIME,
        expected=fields.format_time(now),
        got=fields.format_time(expires),
        ok=expires > now,
    )


def check_platforms(
    claims: Claims, platforms: tuple[Platform, ...], *, contract_digest: ContractDigest | None, now: datetime
) -> tuple[Check, ...]:
    """The checks of the platform that fits, else of the one that fails least; good when all are ok.

    contract_digest: what the room must have measured; None where there is no contract (a policy file's
    platforms), and then nothing is asked about it.
    """
    tried = [
        _platform(claims, platform, reference, contract_digest=contract_digest, now=now)
        for platform in platforms
        for reference in platform.references
    ]
    if not tried:
        return (Check.failed(check_names.PLATFORM_TEE, expected=None, got=claims.tee),)
    return min(tried, key=_distance)


def check_launch(launch: Launch, platforms: tuple[Platform, ...]) -> tuple[Check, ...]:
    """What `check_platforms` would say of a room that is started so, as far as that is known before it speaks."""
    tried = [
        _launched(launch, platform, reference, contract_digest=None)
        for platform in platforms
        for reference in platform.references
    ]
    if not tried:
        return (Check.failed(check_names.PLATFORM_TEE, expected=None, got=launch.tee),)
    return min(tried, key=_distance)


def _distance(checks: tuple[Check, ...]) -> tuple[bool, int]:
    failed = [check for check in checks if not check.ok]
    return any(check.name == check_names.PLATFORM_TEE for check in failed), len(failed)


def _platform(
    claims: Claims,
    platform: Platform,
    reference: dict[str, str],
    *,
    contract_digest: ContractDigest | None,
    now: datetime,
) -> tuple[Check, ...]:
    launched = _launched(claims, platform, reference, contract_digest=contract_digest)
    if claims.tee != platform.tee:
        return launched
    return (
        *launched,
        *(
            ()
            if contract_digest is None
            else (Check.equal(check_names.PLATFORM_CONTRACT, contract_digest, claims.contract_digest),)
        ),
        *check_policy(
            claims, platform.policy, machines=platform.machines, simulated=platform.simulated, now=now
        ),
    )


def _launched(
    claims: Claims | Launch,
    platform: Platform,
    reference: dict[str, str],
    *,
    contract_digest: ContractDigest | None,
) -> tuple[Check, ...]:
    """The checks of what was started, on which machine."""
    if claims.tee != platform.tee:
        # Nothing else of it would mean anything: registers, roots and facts are of another kind.
        return (Check.equal(check_names.PLATFORM_TEE, platform.tee, claims.tee),)
    return (
        Check.equal(check_names.PLATFORM_TEE, platform.tee, claims.tee),
        Check.judged(
            check_names.PLATFORM_SIMULATED,
            expected=ANY if platform.simulated else HARDWARE,
            got=SOFTWARE if claims.simulated else HARDWARE,
            ok=platform.simulated or not claims.simulated,
        ),
        Check.judged(check_names.PLATFORM_DEBUG, expected=False, got=claims.debug, ok=not claims.debug),
        Check.judged(
            check_names.PLATFORM_MEMORY_GUARD,
            expected="on" if platform.memory_guard else ANY,
            got="on" if claims.memory_guard else "off",
            ok=claims.memory_guard or not platform.memory_guard,
        ),
        Check.judged(
            check_names.PLATFORM_ROOT,
            expected=one_of(platform.roots),
            got=claims.root,
            ok=claims.root in platform.roots,
        ),
        _machine(claims, platform),
        *_registers(claims, reference, platform.policy or policy_model.DEFAULT, contract_digest),
    )


def _machine(claims: Claims | Launch, platform: Platform) -> Check:
    wide = policy_model.ANY_MACHINE in platform.machines and bool(claims.machine)
    return Check.judged(
        check_names.PLATFORM_MACHINE,
        expected=ANY if wide else one_of(platform.machines),
        got=claims.machine or None,
        ok=wide or claims.machine in platform.machines,
    )


def _registers(
    claims: Claims | Launch, reference: dict[str, str], policy: Policy, contract_digest: ContractDigest | None
) -> tuple[Check, ...]:
    """One check for each register that either side names: a register without a reference is a no."""
    names = list(dict.fromkeys((*reference, *policy.registers, *claims.registers)))
    if len(names) > MAX_REGISTERS:
        # Verdicts are recorded, and the record has room for so many.
        return (Check.failed(check_names.PLATFORM_REFERENCE, expected=MAX_REGISTERS, got=len(names)),)
    return tuple(_register(name, claims, reference, policy, contract_digest) for name in names)


def _register(
    name: str,
    claims: Claims | Launch,
    reference: dict[str, str],
    policy: Policy,
    contract_digest: ContractDigest | None,
) -> Check:
    got = claims.registers.get(name)
    lists = (_exact(reference, name), policy.registers.get(name))
    accepted = [listed for listed in lists if listed is not None]
    expected: Data
    if accepted:
        ok = got is not None and all(got in values for values in accepted)
        expected = one_of(
            accepted[0]
            if len(accepted) == 1
            else tuple(value for value in accepted[0] if value in accepted[1])
        )
    elif (
        got is not None
        and contract_digest is not None
        and _holds(got, contract_digest)
        and claims.contract_digest == contract_digest
    ):
        # The contract cannot hold its own digest: that this register does is what `platform.contract` compares.
        expected, ok = "contract", True
    elif name in policy.any_value and policy.profile != policy_model.STRICT:
        expected, ok = ANY, got is not None
    else:
        expected, ok = None, False
    return Check.judged(f"{check_names.PLATFORM_REGISTER}{name[:64]}", expected=expected, got=got, ok=ok)


def _exact(reference: dict[str, str], name: str) -> tuple[str, ...] | None:
    return (reference[name],) if name in reference else None


def _holds(register: str, contract_digest: ContractDigest) -> bool:
    """Whether a register is the contract's digest, and zeros to its end."""
    return register[:64] == digest.raw(contract_digest).hex() and not register[64:].strip("0")
