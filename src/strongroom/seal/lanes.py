"""Work on a long run of blocks, spread over the processor's cores, results in order, memory bounded.

Encrypting and hashing 4096 bytes at a time is mostly the interpreter's time, which threads cannot share;
so each lane is a forked process with two buffers of its own in shared anonymous memory. The parent fills buffers
in turn; while a lane works on one, the other is filled. Nothing passes through a file; keys were in memory before.

A process with several threads must not be forked: there, and for short runs, the work is done in place.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    # (buffer, first block, bytes) → the run's digests; called in a lane.
    Work = Callable[[memoryview, int, int], bytes]
    # (buffer, first block, bytes) → None; called in the parent, in order.
    Fill = Callable[[memoryview, int, int], None]

BLOCK = 4096
RUN = 1 << 20
BUFFER = RUN + BLOCK  # room for what a cipher wants behind the last block
_DEPTH = 2  # buffers per lane; four are no faster
_MAX_LANES = 8
_WORTH_FORKING = 32 * RUN


def results(total: int, fill: Fill | None, work: Work) -> Generator[bytes, None, None]:
    """Run `work` over `total` bytes in runs of at most `RUN`; yields its results in order.

    `fill` first puts the run's content into the buffer (None: `work` fetches its own). What `fill` raises
    passes through; an `OSError` in `work` is raised here again. Close the iterator to stop early.
    """
    lanes = min(len(os.sched_getaffinity(0)), _MAX_LANES)
    if lanes < 2 or total < _WORTH_FORKING or not _single_threaded():
        yield from _in_place(total, fill, work)
        return
    pool = [_Lane() for _ in range(lanes)]
    try:
        for lane in pool:
            lane.start(work, pool)
        yield from _spread(total, fill, pool)
        for lane in pool:
            lane.finish()
    finally:
        for lane in pool:
            lane.end()


def _in_place(total: int, fill: Fill | None, work: Work) -> Generator[bytes, None, None]:
    buffer = memoryview(bytearray(min(BUFFER, total + BLOCK)))
    for at in range(0, total, RUN):
        count = min(RUN, total - at)
        if fill is not None:
            fill(buffer, at // BLOCK, count)
        yield work(buffer, at // BLOCK, count)


def _spread(total: int, fill: Fill | None, pool: list[_Lane]) -> Generator[bytes, None, None]:
    runs = -(-total // RUN)
    width = len(pool)
    for number in range(runs + width * _DEPTH):
        earlier = number - width * _DEPTH
        if earlier >= 0:
            yield pool[earlier % width].take()
        if number < runs:
            count = min(RUN, total - number * RUN)
            lane, half = pool[number % width], number // width % _DEPTH
            if fill is not None:
                fill(lane.buffer(half), number * RUN // BLOCK, count)
            lane.give(half, number * RUN // BLOCK, count)


class _Lane:
    """One worker process: its buffers and the pipe to it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, BUFFER * _DEPTH)
        self._views = [memoryview(self._memory)[i * BUFFER : (i + 1) * BUFFER] for i in range(_DEPTH)]
        self._near, self._far = multiprocessing.Pipe()
        self._process: ForkProcess | None = None

    def start(self, work: Work, pool: list[_Lane]) -> None:
        """Fork. Signals wait meanwhile: the child must not run the parent's handlers."""
        process = multiprocessing.get_context("fork").Process(
            target=self._serve, args=(work, pool), daemon=True
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            process.start()
            self._process = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._far.close()

    def buffer(self, half: int) -> memoryview:
        return self._views[half]

    def give(self, half: int, first: int, count: int) -> None:
        with self._watching():
            self._near.send((half, first, count))

    def take(self) -> bytes:
        with self._watching():
            answer = self._near.recv()
        if isinstance(answer, OSError):
            raise answer
        if not isinstance(answer, bytes):
            raise Unavailable(
                f"a worker process failed: {answer}",
                code="worker-failed",
                hint="nothing was kept of it: type the same again, and report it if it stays so",
            )
        return answer

    def finish(self) -> None:
        """Tell the process that there is no more."""
        with self._watching():
            self._near.send(None)

    def end(self) -> None:
        """Be rid of the process, whatever it does, and of the buffers, which held plaintext."""
        self._near.close()
        self._far.close()
        if self._process is not None:
            self._process.join(0.2)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            self._process.close()
            self._process = None
        for view in self._views:
            view.release()
        with contextlib.suppress(BufferError):  # a slice in a traceback keeps it until that is gone
            self._memory.close()

    def _serve(self, work: Work, pool: list[_Lane]) -> None:
        # Ctrl-C reaches the whole process group; the parent decides, and closing its end of the pipe ends the lane.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        for lane in pool:
            lane.close_ends(keep=self)
        self._near.close()
        while (job := _receive(self._far)) is not None:
            half, first, count = job
            answer: object
            try:
                answer = work(self._views[half], first, count)
            except OSError as failure:
                answer = failure
            except Exception as failure:  # noqa: BLE001 - reported by name, so that no content leaks
                answer = type(failure).__name__
            try:
                self._far.send(answer)
            except OSError:
                return

    def close_ends(self, *, keep: _Lane) -> None:
        """In a child: let go of the others' pipes, so that the end of the parent is the end of every lane."""
        if self is not keep:
            self._near.close()
            self._far.close()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise Unavailable(
                "a worker process ended unexpectedly",
                code="worker-failed",
                hint="the machine may be short of memory; try again",
            ) from None


def _receive(far: Connection) -> tuple[int, int, int] | None:
    try:
        job: tuple[int, int, int] | None = far.recv()
    except (EOFError, OSError):
        return None
    return job


def _single_threaded() -> bool:
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - counts the interpreter's and others' threads
    return False
