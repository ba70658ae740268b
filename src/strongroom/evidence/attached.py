"""Attached devices: evidence of each GPU within the CPU's evidence, all bound to one binding.

Each device answers `binding`'s nonce, which is made of the same keys, contract and audience as what the CPU's
evidence carries: evidence that a device gave to another room, machine or request is refused. The room's own,
measured program asks its devices; that a device sits in this machine rests on that program (see
`nvgpu.NOT_CHECKED`). One device that fails, fails all; so does one too few, one too many, or one shown twice.
Endorsements of the device at place N are the parts that begin with `device-N.`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import verify
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import MAX_DEVICES

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.evidence import Evidence

DEVICES = frozenset({"nvgpu"})
_PART = re.compile(r"device-(0|[1-9][0-9]?)\.(.+)", re.ASCII)


def verify_with_devices(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    expected: Collection[int],
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of the CPU's evidence, with those of its devices in `devices`, in the order given.

    expected: how many devices there may be, each 0 to 64; one of these must be attested, and this is asked before
    any evidence is looked at. roots: those of the CPU's vendor and of the devices' together. Raises
    `EvidenceRefused`, whose check begins `devices.` where a device is at fault, or `Malformed`.
    """
    if evidence.tee in DEVICES:
        raise EvidenceRefused(
            "tee",
            expected="evidence of a CPU",
            got=evidence.tee,
            hint="a device alone proves no room; give the evidence of the machine that it is attached to",
        )
    devices = evidence.devices
    _check_count(len(devices), expected)
    ours, theirs = _apart(endorsements, len(devices))
    if not devices:
        return verify.verify(evidence, ours, binding=binding, roots=roots, now=now)
    claims = verify.verify(replace(evidence, devices=()), ours, binding=binding, roots=roots, now=now)
    verified = tuple(
        _verify(index, device, theirs[index], binding=binding, roots=roots, now=now)
        for index, device in enumerate(devices)
    )
    _check_distinct(verified)
    simulated = claims.simulated or any(device.simulated for device in verified)
    return replace(claims, devices=verified, simulated=simulated)


def _check_count(attested: int, expected: Collection[int]) -> None:
    if attested not in expected or attested > MAX_DEVICES:
        counts = " or ".join(str(count) for count in sorted(set(expected))[:8]) or "no number of"
        raise EvidenceRefused(
            "devices.count",
            expected=f"evidence of {counts} devices, at most {MAX_DEVICES}",
            got=f"evidence of {attested}",
            hint="every device that the parties agreed on is attested, and no other",
        )


def _apart(endorsements: Endorsements, count: int) -> tuple[Endorsements, tuple[Endorsements, ...]]:
    """The CPU's, and those of each device by its place. Raises `EvidenceRefused` for a device that is not there."""
    ours: dict[str, bytes] = {}
    theirs: tuple[dict[str, bytes], ...] = tuple({} for _ in range(count))
    for name, data in endorsements.parts.items():
        match = _PART.fullmatch(name)
        if match is None:
            ours[name] = data
        elif int(match[1]) < count:
            theirs[int(match[1])][match[2]] = data
        else:
            raise EvidenceRefused(
                "devices.endorsements",
                expected=f"endorsements of {count} devices",
                got=name[:64],
                hint="leave out the endorsements of devices that are not attached",
            )
    return Endorsements(parts=ours), tuple(Endorsements(parts=parts) for parts in theirs)


def _verify(
    index: int,
    device: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    if device.tee not in DEVICES:
        raise EvidenceRefused(
            f"devices.{index}.tee",
            expected="one of " + ", ".join(sorted(DEVICES)),
            got=device.tee[:64],
            hint="this version cannot verify that kind of device; leave it out, or take a version that can",
        )
    try:
        return verify.verify(device, endorsements, binding=binding, roots=roots, now=now)
    except EvidenceRefused as cause:
        raise EvidenceRefused(
            f"devices.{index}.{cause.check}",
            expected=cause.expected,
            got=cause.got,
            hint=cause.hint,
            source=cause.source,
        ) from None
    except Malformed as cause:
        raise Malformed(f"device {index}: {cause.message}", code=cause.code, hint=cause.hint) from None


def _check_distinct(verified: tuple[Claims, ...]) -> None:
    machines = [device.machine for device in verified]
    if len(set(machines)) != len(machines):
        twice = next(machine for machine in machines if machines.count(machine) > 1)
        raise EvidenceRefused(
            "devices.distinct",
            expected="each device once",
            got=f"{twice} more than once",
            hint="a device that is shown twice hides one that is not shown",
        )
