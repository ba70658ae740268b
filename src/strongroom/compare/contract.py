"""A contract as a `ComparedSide`: the reference values of its platforms, register by register."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.compare.compare import ComparedSide, Topic

if TYPE_CHECKING:
    from strongroom.model.contracts.contract import Contract


def subject(contract: Contract) -> ComparedSide:
    """The references. What else differs between two contracts `model.contracts.drafting.differences` says."""
    facts: dict[tuple[Topic, str, str], str] = {}
    registers: dict[str, tuple[str, ...]] = {}
    counts: dict[str, int] = {}
    for platform in contract.platforms:
        for reference in platform.references:
            number = counts[platform.tee] = counts.get(platform.tee, 0) + 1
            for name, value in reference.items():
                part = f"{platform.tee} {name}"
                facts[Topic.REFERENCE, part, f"{platform.tee} alternative {number}, {name}"] = value
                registers[part] = (name,)
    return ComparedSide(kind="contract", parts={}, facts=facts, registers=registers)
