"""How far long work is: called with the bytes done and those in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """A progress display that shows nothing."""
