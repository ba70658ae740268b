"""Claims of attached devices × the policy's `devices` → checks: so many, each of them as the parties signed.

One check asks one thing of all devices and tells which of them fail: a room may have 64 devices of 255 registers
each, and a verdict has room for no such number of checks. One device that fails, fails the room.

Every register of a device is compared, by one whole reference and the listed values. Where none was given, none was
compared, and that is no pass; nor is any other fact that says "not compared", but for those that show in the
registers alone (`profiles.SHOWN_IN_REGISTERS`), once these are as the parties signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal import profiles
from strongroom.appraisal.checks import bounded, listed, one_of, same
from strongroom.model.contracts import policy as policy_model
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.model.claims import Claims
    from strongroom.model.contracts.policy import Devices
    from strongroom.model.verdict import Data

ANY = "any"
_AT = "platform.devices"
_TOLD = 3
_MAX_VALUE = 96
_NOBODY = policy_model.Devices(count=0, roots=(), machines=())


def check_devices(claims: Claims, wanted: Devices | None, *, simulated: bool) -> Iterator[Check]:
    """The checks of every device of `claims`. simulated: whether the platform accepts software standing in."""
    agreed = wanted or _NOBODY
    found = claims.devices
    if wanted is not None or found:
        yield Check(name=_AT, expected=agreed.count, got=len(found), ok=len(found) == agreed.count)
    if not found:
        return
    yield _each(found, "debug", False, lambda one: one.debug, lambda _: "debug-on")
    yield _each(
        found,
        "simulated",
        "any" if simulated else "hardware",
        lambda one: one.simulated and not simulated,
        lambda _: "software",
    )
    yield _each(
        found,
        "root",
        one_of(agreed.roots),
        lambda one: one.root not in agreed.roots,
        lambda one: one.root or None,
    )
    yield _each(
        found,
        "machine",
        ANY if ANY in agreed.machines else one_of(agreed.machines),
        lambda one: not one.machine or not (ANY in agreed.machines or one.machine in agreed.machines),
        lambda one: one.machine or None,
    )
    for name, values in agreed.facts.items():
        yield _fact(found, name, values)
    yield _each(
        found,
        "reference",
        _expected(agreed),
        lambda one: _differs(one, agreed) is not None,
        lambda one: _differs(one, agreed),
    )
    yield _each(
        found,
        "compared",
        [],
        lambda one: bool(_not_compared(one, agreed)),
        lambda one: listed(_not_compared(one, agreed)),
    )


def _each(
    found: tuple[Claims, ...],
    what: str,
    expected: Data,
    wrong: Callable[[Claims], bool],
    told: Callable[[Claims], Data],
) -> Check:
    """One check of all devices. wrong: whether one fails it; told: what is told of one that does."""
    failing = [index for index, one in enumerate(found) if wrong(one)]
    got: dict[str, Data] = {"of": len(found), "failed": len(failing)}
    if failing:
        got["first"] = {str(index): told(found[index]) for index in failing[:_TOLD]}
    return Check(name=f"{_AT}.{what}", expected=expected, got=got, ok=not failing)


def _fact(found: tuple[Claims, ...], name: str, values: tuple[policy_model.Value, ...]) -> Check:
    def differs(one: Claims) -> bool:
        """Whether it is not as agreed."""
        got = one.facts.get(name)
        return got == policy_model.NOT_COMPARED or not any(same(got, value) for value in values)

    return _each(found, f"fact.{name}", one_of(values), differs, lambda one: bounded(one.facts.get(name)))


def _expected(agreed: Devices) -> Data:
    if not agreed.references and not agreed.registers:
        return None
    return {"references": len(agreed.references), "lists": len(agreed.registers)}


def _differs(one: Claims, agreed: Devices) -> Data:
    """In which registers the device differs from the nearest reference; None where it is as one of them says."""
    references = agreed.references or ({},)
    reference = min(references, key=lambda given: len(_against(one, given, agreed)))
    nearest = _against(one, reference, agreed)
    if not nearest:
        return None if one.registers else {"registers": 0}
    name = nearest[0]
    lists = _lists(name, reference, agreed)
    expected: list[Data] = [one_of(value[:_MAX_VALUE] for value in values) for values in lists]
    got = one.registers.get(name)
    return {
        "differ": len(nearest),
        "of": len(one.registers),
        "register": bounded(name),
        "got": None if got is None else got[:_MAX_VALUE],
        "expected": expected[0] if len(expected) == 1 else expected,
    }


def _against(one: Claims, reference: dict[str, str], agreed: Devices) -> list[str]:
    """The registers, of those that either side names, that are not as the parties signed."""
    wrong = []
    for name in dict.fromkeys((*reference, *agreed.registers, *one.registers)):
        got = one.registers.get(name)
        lists = _lists(name, reference, agreed)
        if got is None or not lists or any(got not in values for values in lists):
            wrong.append(name)
    return wrong


def _lists(name: str, reference: dict[str, str], agreed: Devices) -> list[tuple[str, ...]]:
    """The values of a register that count: one of each list."""
    lists: list[tuple[str, ...]] = [(reference[name],)] if name in reference else []
    return lists + ([agreed.registers[name]] if name in agreed.registers else [])


def _not_compared(one: Claims, agreed: Devices) -> list[str]:
    settled = profiles.SHOWN_IN_REGISTERS.get(one.tee, frozenset()) if _differs(one, agreed) is None else ()
    return [
        name
        for name, value in one.facts.items()
        if value == policy_model.NOT_COMPARED and name not in settled
    ]
