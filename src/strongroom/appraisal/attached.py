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
from strongroom.appraisal.telling import MAX_TEXT, MISSING, made, one_of, same, shown
from strongroom.model import policy as policy_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.model.claims import Claims
    from strongroom.model.policy import Devices
    from strongroom.model.verdict import Check

ANY = "any"
_AT = "platform.devices"
_NOBODY = policy_model.Devices(count=0, roots=(), machines=())


def check_devices(claims: Claims, wanted: Devices | None, *, simulated: bool) -> Iterator[Check]:
    """The checks of every device of `claims`. simulated: whether the platform accepts software standing in."""
    agreed = wanted or _NOBODY
    found = claims.devices
    if wanted is not None or found:
        yield made(
            _AT,
            f"{agreed.count} device(s)",
            str(len(found)),
            len(found) == agreed.count,
            hint="every device of the room is attested and agreed on, and no other",
        )
    if not found:
        return
    yield _each(found, "debug", "debug off", lambda one: "debug on" if one.debug else "")
    yield _each(
        found,
        "simulated",
        "hardware, or software standing in" if simulated else "hardware",
        lambda one: "software standing in for hardware" if one.simulated and not simulated else "",
    )
    yield _each(
        found,
        "root",
        one_of(agreed.roots),
        lambda one: "" if one.root in agreed.roots else one.root or MISSING,
    )
    yield _each(
        found,
        "machine",
        "any device" if ANY in agreed.machines else one_of(agreed.machines),
        lambda one: (
            ""
            if one.machine and (ANY in agreed.machines or one.machine in agreed.machines)
            else one.machine or MISSING
        ),
    )
    for name, values in agreed.facts.items():
        yield _each(
            found,
            f"fact.{name}",
            one_of(shown(value) for value in values),
            lambda one, name=name, values=values: _fact(one, name, values),  # type: ignore[misc]
        )
    yield _each(found, "reference", _expected(agreed), lambda one: _differs(one, agreed))
    yield _each(
        found, "compared", "every value compared with its reference", lambda one: _not_compared(one, agreed)
    )


def _each(found: tuple[Claims, ...], what: str, expected: str, fault: Callable[[Claims], str]) -> Check:
    """One check of all devices. fault: what is wrong with one, or nothing."""
    faults = {index: told for index, one in enumerate(found) if (told := fault(one))}
    first = "; ".join(f"device {index}: {told}" for index, told in list(faults.items())[:3])
    return made(
        f"{_AT}.{what}",
        expected[:MAX_TEXT],
        f"{len(faults)} of {len(found)}: {first}"[: 2 * MAX_TEXT] if faults else f"all {len(found)}",
        not faults,
        hint="one device that is not as the parties agreed fails the room",
    )


def _fact(one: Claims, name: str, values: tuple[policy_model.Value, ...]) -> str:
    got = one.facts.get(name)
    held = got != policy_model.NOT_COMPARED and any(same(got, value) for value in values)
    return "" if held else shown(got)


def _expected(agreed: Devices) -> str:
    if not agreed.references and not agreed.registers:
        return "reference values of the device in the contract"
    return f"every register as in one of {len(agreed.references)} reference(s) and {len(agreed.registers)} list(s)"


def _differs(one: Claims, agreed: Devices) -> str:
    """In which registers the device differs from the nearest reference; nothing where it is as one of them says."""
    tried = [_against(one, reference, agreed) for reference in agreed.references or ({},)]
    nearest = min(tried, key=len)
    if not nearest:
        return "" if one.registers else "no registers"
    name, told = next(iter(nearest.items()))
    return f"{len(nearest)} of {len(one.registers)} registers differ, {name} first: {told}"


def _against(one: Claims, reference: dict[str, str], agreed: Devices) -> dict[str, str]:
    """What is wrong with each register that either side names."""
    wrong = {}
    for name in dict.fromkeys((*reference, *agreed.registers, *one.registers)):
        got = one.registers.get(name)
        lists: list[tuple[str, ...]] = [(reference[name],)] if name in reference else []
        lists += [agreed.registers[name]] if name in agreed.registers else []
        if got is None or not lists or any(got not in values for values in lists):
            wrong[name] = f"{MISSING if got is None else got[:96]}, expected {_listed(lists)}"
    return wrong


def _listed(lists: list[tuple[str, ...]]) -> str:
    return (
        " and ".join(one_of(value[:96] for value in values) for values in lists)
        or "nothing: it has no reference"
    )


def _not_compared(one: Claims, agreed: Devices) -> str:
    settled = (
        profiles.SHOWN_IN_REGISTERS.get(one.tee, frozenset()) if not _differs(one, agreed) else frozenset()
    )
    names = [
        name
        for name, value in one.facts.items()
        if value == policy_model.NOT_COMPARED and name not in settled
    ]
    return f"not compared: {', '.join(names)}"[:MAX_TEXT] if names else ""
