"""Mutants that a person has looked at: the equivalent ones, and survivors with their reasons (`reviewed.toml`)."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.mutate import plain

if TYPE_CHECKING:
    from tests.mutants.mutate import Mutant

FILE = Path(__file__).with_name("reviewed.toml")


@cache
def entries() -> tuple[dict[str, str], ...]:
    """`module`, `scope`, `old`, `new`, `verdict` (equivalent or survives) and `why`, of each."""
    return tuple(tomllib.loads(FILE.read_text()).get("mutant", ()))


def matches(entry: dict[str, str], mutant: Mutant) -> bool:
    """Whether `entry` is about this mutant. `new` left out stands for every change of `old`."""
    return (
        f"strongroom.{entry['module']}" == mutant.module
        and entry["scope"] == mutant.scope
        and entry["old"] == plain(mutant.old)
        and entry.get("new", plain(mutant.new)) == plain(mutant.new)
    )


def _why(mutant: Mutant, verdict: str) -> str:
    return next((one["why"] for one in entries() if one["verdict"] == verdict and matches(one, mutant)), "")


def equivalent(mutant: Mutant) -> bool:
    """No test can tell it from the original."""
    return bool(_why(mutant, "equivalent"))


def reason(mutant: Mutant) -> str:
    """Why it survives, or nothing when nobody has said."""
    return _why(mutant, "survives")
