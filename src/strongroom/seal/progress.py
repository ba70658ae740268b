"""Whom long work reports to: a function called with the bytes done and those in all, and for work in steps one for each step."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Progress = Callable[[int, int], None]
    # Name of a step → where its progress goes, while the context is open.
    Steps = Callable[[str], AbstractContextManager[Progress]]


def silent(done: int, total: int) -> None:
    """A progress display that shows nothing."""


@contextlib.contextmanager
def silently(step: str) -> Iterator[Progress]:  # noqa: ARG001 - nobody is shown its name
    """Steps that are reported to nobody."""
    yield silent
