"""Where signatures are verified and answers sealed: threads, so that the event loop is free for others meanwhile.

Whose requests have kept failing goes to the patient one (`budgets.Budgets.failures`). It rests for thrice the
processor time that it has worked, so that all such requests together get a quarter of one core at most, and few may
wait for it. Nobody is shut out: an honest room behind the same address gets its answer later.

Whoever only looks at the ledger has a thread as well, which rests in the same way: releases come first. One address has
at most a quarter of the places of those who wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
import weakref
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THREADS = 2
WAITING = 32
READING = 64
READING_EACH = 16
REST = 3.0
READING_REST = 2.0


def too_many_failures() -> Unavailable:
    """The error for a request that may not even wait."""
    return Unavailable(
        "release: too many requests at once from an address whose requests kept failing",
        code="too-many-failures",
        hint="see what the broker refused before, and try again in a moment",
    )


_Work = tuple["Callable[[], Any]", asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Threads:
    """Threads that take works in turn and tell the loop that waits. They begin with the first work and end with this.

    An executor of the standard library does the same with a future, a condition and a semaphore of its own for each
    work, which costs a release half a signature.
    """

    def __init__(self, count: int, name: str) -> None:
        self._names = [f"{name}-{at}" for at in range(count)]
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in one of them. Raises what it raises."""
        self._begin()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((work, loop, future))
        return await future

    def _begin(self) -> None:
        if self._names:
            weakref.finalize(self, _end, self._queue, len(self._names))
        while self._names:
            threading.Thread(target=_serve, args=(self._queue,), name=self._names.pop(), daemon=True).start()


def _end(works: queue.SimpleQueue[_Work | None], count: int) -> None:
    for _ in range(count):
        works.put(None)


def _serve(works: queue.SimpleQueue[_Work | None]) -> None:
    while (taken := works.get()) is not None:
        work, loop, future = taken
        if future.cancelled():
            continue  # who has withdrawn is not served
        value, failure = None, None
        try:
            value = work()
        except BaseException as cause:  # noqa: BLE001 - handed to whoever waits for this work
            failure = cause
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            loop.call_soon_threadsafe(_tell, future, value, failure)
        # Nothing of a work is held while the next one is waited for.
        del taken, work, loop, future, value, failure


def _tell(future: asyncio.Future[Any], value: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(value)
    else:
        future.set_exception(failure)


class Workers:
    """The threads of one process."""

    def __init__(self, *, rest: Callable[[float], None] = time.sleep) -> None:
        self._prompt = Threads(THREADS, "verifier")
        self._patient = Threads(1, "patient-verifier")
        self._reading = Threads(1, "ledger-reader")
        self._rest = rest
        self._waiting = 0
        self._deciding = 0
        self._readers: Counter[str] = Counter()

    @property
    def crowded(self) -> bool:
        """Whether no more may wait for the patient one."""
        return self._waiting >= WAITING

    @property
    def busy(self) -> bool:
        """Whether a request is being verified, the patient one's apart."""
        return self._deciding > 0

    async def run(self, work: Callable[[], T], *, patient: bool = False) -> T:
        """Run `work` in a thread. Raises what it raises, or `Unavailable` when too many wait."""
        if not patient:
            self._deciding += 1
            try:
                return await self._prompt.run(work)
            finally:
                self._deciding -= 1
        if self.crowded:
            raise too_many_failures()
        self._waiting += 1
        try:
            return await self._patient.run(partial(self._rested, REST, work))
        finally:
            self._waiting -= 1

    async def read(self, work: Callable[..., T], *args: Any, peer: str = "", begun: bool = False) -> T:
        """Run `work(*args)`, which reads what anybody may. peer: the address that asked. begun: part of an answer that
        has begun, and is to end.

        Raises what it raises, or `Unavailable` when too many wait, or too many of that address.
        """
        if not begun and (self._readers.total() >= READING or self._readers[peer] >= READING_EACH):
            raise Unavailable(
                "ledger: too many who read it wait already",
                code="too-many-readers",
                hint="try again in a moment",
            )
        self._readers[peer] += 1
        try:
            return await self._reading.run(partial(self._rested, READING_REST, partial(work, *args)))
        finally:
            self._readers[peer] -= 1
            if not self._readers[peer]:
                del self._readers[peer]

    def _rested(self, rest: float, work: Callable[[], T]) -> T:
        begun = time.thread_time()
        try:
            return work()
        finally:
            self._rest(rest * (time.thread_time() - begun))
