"""How much a run of the tests tries: `--effort fast` a part of the random examples, `make soak` ten times as many.

The number that a test gives is that of `make test`. No test has a deadline by the clock: the machine may have other work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePath

SCALE = {"fast": 0.2, "test": 1.0, "soak": 10.0}
_FEWEST = 10
# What `--effort fast` leaves out: tests that boot rooms, build bases or releases, or start the command line hundreds of times.
_LONG = ("tests/e2e/", "tests/release/", "tests/scripts/")
_UNMEASURED = 20.0  # seconds of the processor: of a room
_effort = "test"


def set_to(effort: str) -> None:
    """Of this process: before any test is imported."""
    global _effort  # noqa: PLW0603 - decorators read it while tests are imported
    _effort = effort
    hypothesis.settings.register_profile(effort, deadline=None, max_examples=_scaled(100))
    hypothesis.settings.load_profile(effort)


def examples(number: int, **other: Any) -> hypothesis.settings:
    """Hypothesis' settings for a test that `make test` gives so many examples."""
    return hypothesis.settings(deadline=None, max_examples=_scaled(number), **other)


def _scaled(number: int) -> int:
    return max(min(number, _FEWEST), round(number * SCALE[_effort]))


def some(values: Sequence[Any]) -> Sequence[Any]:
    """All of them, but every eleventh where the run is to be fast: odd, so that bits that go round with places all have their turn."""
    return values[:: 11 if _effort == "fast" else 1]


def holds_long(folder: PurePath) -> bool:
    """Whether all tests below this folder, relative to the tree's root, are long."""
    return f"{folder.as_posix()}/" in _LONG


def is_long(item: pytest.Item) -> bool:
    """Whether it boots a room, or stands where such tests are."""
    return item.get_closest_marker("room") is not None or item.nodeid.startswith(_LONG)


def skip_slow(items: Sequence[pytest.Item]) -> None:
    """Skip what is marked `slow(why)`, and say why."""
    for item in items:
        if mark := item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason=f"not with --effort fast: {mark.args[0]}"))


def long_first(items: Sequence[pytest.Item], seconds: dict[str, float]) -> list[pytest.Item]:
    """File by file, those that took longest first, so that all workers end together; the rest as they were."""

    def took(item: pytest.Item) -> float:
        return seconds.get(item.nodeid.partition("::")[0], _UNMEASURED if is_long(item) else 0.0)

    return sorted(items, key=lambda item: -took(item))
