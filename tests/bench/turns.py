"""Steps timed in turns (A B C, A B C, …), so that a busy machine slows all alike and ratios hold."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def nothing(_: int) -> None:
    """No preparation."""


@dataclass(frozen=True)
class Step:
    """`timed` is measured, `before` prepares it and is not; both get the number of the round."""

    timed: Callable[[int], object]
    before: Callable[[int], object] = nothing


def medians(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """The median microseconds of each step."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds):
        for name, step in steps.items():
            step.before(index)
            begun = time.perf_counter()
            step.timed(index)
            took[name].append((time.perf_counter() - begun) * 1e6)
    return {name: statistics.median(times) for name, times in took.items()}


def row(what: str, value: object, aim: str = "") -> dict[str, object]:
    """One row of the table of `make bench`."""
    return {"what": what, "value": value, "aim": aim}


def share(part: float, whole: float) -> str:
    """`part` of `whole` in percent."""
    return f"{100 * part / whole:.0f} %"


def show(rows: list[dict[str, object]]) -> None:
    """Print rows, for who runs one benchmark alone."""
    for one in rows:
        print(f"{one['what']:66} {one['value']!s:>12}  {one['aim']}")
