"""How far long work is: called with the bytes done and those in all; and, of work in steps, by each step's name."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Progress = Callable[[int, int], None]
    # What is done now → where its progress goes, for as long as it is done.
    Steps = Callable[[str], AbstractContextManager[Progress]]


def silent(done: int, total: int) -> None:
    """A progress display that shows nothing."""


@contextlib.contextmanager
def silently(step: str) -> Iterator[Progress]:  # noqa: ARG001 - nobody is shown its name
    """Steps that are reported to nobody."""
    yield silent
