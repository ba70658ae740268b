"""Where signatures are verified and answers sealed: threads, so that the event loop is free for others meanwhile.

Whose requests have kept failing goes to the patient one (`budgets.Budgets.failures`). It rests for thrice the
processor time that it has worked, so that all such requests together get a quarter of one core at most, and few may
wait for it. Nobody is shut out: an honest room behind the same address gets its answer later.

Whoever only looks at the ledger has a thread as well, which rests in the same way: releases come first. One address has
at most a quarter of the places of those who wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THREADS = 2
WAITING = 32
LOOKING = 64
LOOKING_EACH = 16
REST = 3.0
LOOKING_REST = 2.0


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
        self._looking = ThreadPoolExecutor(1, "ledger-reader")
        self._rest = rest
        self._waiting = 0
        self._lookers: Counter[str] = Counter()

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
            return await loop.run_in_executor(self._patient, self._rested, REST, work)
        finally:
            self._waiting -= 1

    async def look(self, work: Callable[..., T], *args: Any, peer: str = "", begun: bool = False) -> T:
        """Run `work(*args)`, which reads what anybody may. peer: the address that asked. begun: part of an answer that
        has begun, and is to end.

        Raises what it raises, or `Unavailable` when too many wait, or too many of that address.
        """
        if not begun and (self._lookers.total() >= LOOKING or self._lookers[peer] >= LOOKING_EACH):
            raise Unavailable(
                "ledger: too many who read it wait already",
                code="too-many-readers",
                hint="try again in a moment",
            )
        self._lookers[peer] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._looking, self._rested, LOOKING_REST, partial(work, *args))
        finally:
            self._lookers[peer] -= 1
            if not self._lookers[peer]:
                del self._lookers[peer]

    def _rested(self, rest: float, work: Callable[[], T]) -> T:
        begun = time.thread_time()
        try:
            return work()
        finally:
            self._rest(rest * (time.thread_time() - begun))
