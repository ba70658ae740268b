"""Where signatures are verified and answers sealed: threads, so that the event loop is free for others meanwhile.

Whose requests have kept failing goes to the patient one (`budgets.Budgets.failures`). It rests for thrice the
processor time that it has worked, so that all such requests together get a quarter of one core at most, and few may
wait for it. Nobody is shut out: an honest room behind the same address gets its answer later.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THREADS = 2
WAITING = 32
REST = 3.0


def too_many_failures() -> Unavailable:
    """The error for a request that may not even wait."""
    return Unavailable(
        "release: too many requests from where requests kept failing",
        code="too-many-failures",
        hint="see what the broker refused before, and try again in a moment",
    )


class Workers:
    """The threads of one process."""

    def __init__(self, *, rest: Callable[[float], None] = time.sleep) -> None:
        self._prompt = ThreadPoolExecutor(THREADS, "verifier")
        self._patient = ThreadPoolExecutor(1, "patient-verifier")
        self._rest = rest
        self._waiting = 0

    @property
    def crowded(self) -> bool:
        """Whether no more may wait for the patient one."""
        return self._waiting >= WAITING

    async def run(self, work: Callable[[], T], *, patient: bool = False) -> T:
        """Run `work` in a thread. Raises what it raises, or `Unavailable` when too many wait."""
        loop = asyncio.get_running_loop()
        if not patient:
            return await loop.run_in_executor(self._prompt, work)
        if self.crowded:
            raise too_many_failures()
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._patient, self._rested, work)
        finally:
            self._waiting -= 1

    def _rested(self, work: Callable[[], T]) -> T:
        begun = time.thread_time()
        try:
            return work()
        finally:
            self._rest(REST * (time.thread_time() - begun))
