"""Attached devices: evidence of each GPU beside the CPU's evidence, all bound to one binding.

Each device answers `binding`'s nonce, which is made of the same keys, contract and audience as what the CPU's
evidence carries: evidence that a device gave to another room, machine or request is refused. The room's own,
measured program asks its devices; that a device sits in this machine rests on that program (see
`nvgpu.NOT_CHECKED`). One device that fails, fails all; so does one too few, one too many, or one shown twice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import registry
from strongroom.model.endorsements import NONE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

DEVICES = frozenset({"nvgpu"})
MAX_DEVICES = 64


def verify_with_devices(
    evidence: Evidence,
    endorsements: Endorsements,
    devices: Sequence[Evidence],
    *,
    expected: int,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of the CPU's evidence, with those of its devices in `devices`, in the order given.

    expected: how many devices the room says that it has, 0 to 64; so many must be attested. roots: those of the
    CPU's vendor and of the devices' together. Raises `EvidenceRefused`, whose check begins `devices.` where a
    device is at fault, or `Malformed`.
    """
    if evidence.tee in DEVICES:
        raise EvidenceRefused(
            "tee",
            expected="evidence of a CPU",
            got=evidence.tee,
            hint="a device alone proves no room; give the evidence of the machine that it is attached to",
        )
    _check_count(len(devices), expected)
    claims = registry.verify(evidence, endorsements, binding=binding, roots=roots, now=now)
    verified = tuple(
        _verify(index, one, binding=binding, roots=roots, now=now) for index, one in enumerate(devices)
    )
    _check_distinct(verified)
    return replace(claims, devices=verified)


def _check_count(attested: int, expected: int) -> None:
    if attested != expected or not 0 <= expected <= MAX_DEVICES:
        raise EvidenceRefused(
            "devices.count",
            expected=f"evidence of {expected} devices, at most {MAX_DEVICES}",
            got=f"evidence of {attested}",
            hint="every device that the room sees is attested, and no other",
        )


def _verify(index: int, one: Evidence, *, binding: Bound, roots: frozenset[str], now: datetime) -> Claims:
    if one.tee not in DEVICES:
        raise EvidenceRefused(
            f"devices.{index}.tee", expected="one of " + ", ".join(sorted(DEVICES)), got=one.tee[:64]
        )
    try:
        return registry.verify(one, NONE, binding=binding, roots=roots, now=now)
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
    machines = [one.machine for one in verified]
    if len(set(machines)) != len(machines):
        twice = next(one for one in machines if machines.count(one) > 1)
        raise EvidenceRefused(
            "devices.distinct",
            expected="each device once",
            got=f"{twice} more than once",
            hint="a device that is shown twice hides one that is not shown",
        )
