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
from strongroom.appraisal.checks import ANY, HARDWARE, SOFTWARE, bounded, listed, one_of, same
from strongroom.model import check_names
from strongroom.model.contracts import policy as policy_model
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.model.claims import Claims
    from strongroom.model.contracts.policy import Devices
    from strongroom.model.verdict import Data

_TOLD = 3
_MAX_VALUE = 96
_NOBODY = policy_model.Devices(count=0, roots=(), machines=())


def check_devices(claims: Claims, wanted: Devices | None, *, simulated: bool) -> Iterator[Check]:
    """The checks of every device of `claims`. simulated: whether the platform accepts software standing in."""
    agreed = wanted or _NOBODY
    devices = claims.devices
    if wanted is not None or devices:
        yield Check.judged(
            check_names.DEVICES, expected=agreed.count, got=len(devices), ok=len(devices) == agreed.count
        )
    if not devices:
        return
    yield _each(devices, check_names.DEVICES_DEBUG, False, lambda device: device.debug, lambda _: "debug-on")
    yield _each(
        devices,
        check_names.DEVICES_SIMULATED,
        ANY if simulated else HARDWARE,
        lambda device: device.simulated and not simulated,
        lambda _: SOFTWARE,
    )
    yield _each(
        devices,
        check_names.DEVICES_ROOT,
        one_of(agreed.roots),
        lambda device: device.root not in agreed.roots,
        lambda device: device.root or None,
    )
    yield _each(
        devices,
        check_names.DEVICES_MACHINE,
        ANY if policy_model.ANY_MACHINE in agreed.machines else one_of(agreed.machines),
        lambda device: (
            not device.machine
            or not (policy_model.ANY_MACHINE in agreed.machines or device.machine in agreed.machines)
        ),
        lambda device: device.machine or None,
    )
    for name, values in agreed.facts.items():
        yield _fact(devices, name, values)
    yield _each(
        devices,
        check_names.DEVICES_REFERENCE,
        _expected(agreed),
        lambda device: _differs(device, agreed) is not None,
        lambda device: _differs(device, agreed),
    )
    yield _each(
        devices,
        check_names.DEVICES_COMPARED,
        [],
        lambda device: bool(_not_compared(device, agreed)),
        lambda device: listed(_not_compared(device, agreed)),
    )


def _each(
    devices: tuple[Claims, ...],
    name: str,
    expected: Data,
    wrong: Callable[[Claims], bool],
    datum: Callable[[Claims], Data],
) -> Check:
    """One check of all devices. wrong: whether a device fails it; datum: what the check says of a device that does."""
    failing = [index for index, device in enumerate(devices) if wrong(device)]
    got: dict[str, Data] = {"of": len(devices), "failed": len(failing)}
    if failing:
        got["first"] = {str(index): datum(devices[index]) for index in failing[:_TOLD]}
    return Check.judged(name, expected=expected, got=got, ok=not failing)


def _fact(devices: tuple[Claims, ...], name: str, values: tuple[policy_model.Value, ...]) -> Check:
    def differs(device: Claims) -> bool:
        """Whether the device's fact is not as agreed."""
        got = device.facts.get(name)
        return got == policy_model.NOT_COMPARED or not any(same(got, value) for value in values)

    return _each(
        devices,
        f"{check_names.DEVICES_FACT}{name}",
        one_of(values),
        differs,
        lambda device: bounded(device.facts.get(name)),
    )


def _expected(agreed: Devices) -> Data:
    if not agreed.references and not agreed.registers:
        return None
    return {"references": len(agreed.references), "lists": len(agreed.registers)}


def _differs(device: Claims, agreed: Devices) -> Data:
    """In which registers the device differs from the nearest reference; None where it is as one of them says."""
    references = agreed.references or ({},)
    reference = min(references, key=lambda alternative: len(_against(device, alternative, agreed)))
    nearest = _against(device, reference, agreed)
    if not nearest:
        return None if device.registers else {"registers": 0}
    name = nearest[0]
    lists = _lists(name, reference, agreed)
    expected: list[Data] = [one_of(value[:_MAX_VALUE] for value in values) for values in lists]
    got = device.registers.get(name)
    return {
        "differ": len(nearest),
        "of": len(device.registers),
        "register": bounded(name),
        "got": None if got is None else got[:_MAX_VALUE],
        "expected": expected[0] if len(expected) == 1 else expected,
    }


def _against(device: Claims, reference: dict[str, str], agreed: Devices) -> list[str]:
    """The registers, of those that either side names, that are not as the parties signed."""
    wrong = []
    for name in dict.fromkeys((*reference, *agreed.registers, *device.registers)):
        got = device.registers.get(name)
        lists = _lists(name, reference, agreed)
        if got is None or not lists or any(got not in values for values in lists):
            wrong.append(name)
    return wrong


def _lists(name: str, reference: dict[str, str], agreed: Devices) -> list[tuple[str, ...]]:
    """The values of a register that count: one of each list."""
    lists: list[tuple[str, ...]] = [(reference[name],)] if name in reference else []
    return lists + ([agreed.registers[name]] if name in agreed.registers else [])


def _not_compared(device: Claims, agreed: Devices) -> list[str]:
    settled = (
        profiles.SHOWN_IN_REGISTERS.get(device.tee, frozenset()) if _differs(device, agreed) is None else ()
    )
    return [
        name
        for name, value in device.facts.items()
        if value == policy_model.NOT_COMPARED and name not in settled
    ]
