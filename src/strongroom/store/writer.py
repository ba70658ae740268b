"""The one writer of a process: many works, one SQLite transaction, one fsync (group commit).

A thread takes what is queued, up to `BATCH` works, waits for its turn among processes (`turn`), and runs them one
after the other between `BEGIN IMMEDIATE` and `COMMIT`: one that raises is undone alone. Only when the commit has
returned (`synchronous=FULL`: it is on the disk) does anyone hear of a result. If the commit fails, every work of the
batch gets that failure, and nothing of it is stored.

A commit costs the processor as much as three signatures, however many works it holds. So while more works are on their way
(`expects`) a batch waits for them, `LOOKS` times `LOOKED` at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy.exc

from strongroom.broker.ports import Committed
from strongroom.errors import Unavailable
from strongroom.store import failures
from strongroom.store.statements import driver
from strongroom.store.transaction import SqlTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from strongroom.store.cache import NodeCache
    from strongroom.store.turn import Turn

BATCH = 256
QUEUED = 1024
LOOKS = 8
LOOKED = 0.002
"""How often a batch asks at most whether others are on their way, and for how many seconds it then waits for one."""


class _Work:
    """A work and who waits for it: a future of the loop that asked."""

    __slots__ = ("failure", "future", "loop", "run", "value")

    def __init__(self, run: Callable[[SqlTransaction], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.run = run
        self.loop = loop
        self.future: asyncio.Future[Committed[Any]] = loop.create_future()
        self.value: Any = None
        self.failure: BaseException | None = None


class Writer:
    """Owns the writing connection. `submit` is called by event loops, of whichever thread."""

    def __init__(self, engine: sa.Engine, nodes: NodeCache, turn: Turn) -> None:
        self._engine = engine
        self._nodes = nodes
        self._turn = turn
        self._connection: sa.Connection | None = None
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        self.expects: Callable[[], bool] = lambda: False
        self.failing: Unavailable | None = None
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[SqlTransaction], Any]) -> asyncio.Future[Committed[Any]]:
        """Queue a work of the running loop. Raises `Unavailable` when too many wait already."""
        if self._closed:
            raise Unavailable("broker store: closed", code="closing", hint="the broker is stopping")
        if self._queue.qsize() >= QUEUED:
            raise Unavailable(
                "broker store: too many requests wait", code="overloaded", hint="try again in a moment"
            )
        work = _Work(run, asyncio.get_running_loop())
        self._queue.put(work)
        return work.future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        last = False
        while not last:
            batch: list[_Work] = []
            work = self._queue.get()
            looks = iter(range(LOOKS))
            while work is not None:
                # Who has withdrawn before this is not served; from here on nobody can.
                if not work.future.cancelled():
                    batch.append(work)
                if len(batch) >= BATCH:
                    break
                try:
                    work = self._queue.get_nowait()
                except queue.Empty:
                    if not self._come(looks):
                        break
                    work = self._queue.get()
            last = work is None
            if batch:
                self._run(batch)
        if self._connection is not None:
            self._connection.close()

    def _come(self, looks: Iterator[int]) -> bool:
        """Whether something is queued, after waiting for what is expected. Nobody else takes from the queue."""
        while self._queue.empty() and self.expects() and next(looks, None) is not None:
            time.sleep(LOOKED)
        return not self._queue.empty()

    def _run(self, batch: list[_Work]) -> None:
        size = 0
        try:
            with self._turn.taken():
                size = self._commit(batch)
            self.failing = None
        except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as cause:
            self.failing = failures.explained(cause)
            for work in batch:
                work.failure = self.failing
        except BaseException as cause:  # noqa: BLE001 - nobody may wait for ever, whatever went wrong
            for work in batch:
                work.failure = cause
        for loop in {work.loop for work in batch}:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
                loop.call_soon_threadsafe(_tell, [work for work in batch if work.loop is loop], size)

    def _commit(self, batch: list[_Work]) -> int:
        if self._connection is None:
            self._connection = self._engine.connect()
        inner = driver(self._connection)
        inner.execute("BEGIN IMMEDIATE")
        try:
            transaction = SqlTransaction(inner, self._nodes)
            for work in batch:
                _attempt(transaction, work)
            size = transaction.flush()
            inner.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                inner.execute("ROLLBACK")
            raise
        transaction.ledger.committed()
        return size


def _attempt(transaction: SqlTransaction, work: _Work) -> None:
    try:
        work.value = work.run(transaction)
    except sqlite3.IntegrityError as cause:
        work.failure = failures.explained(cause)
    except sqlite3.Error:
        raise  # the database itself fails: nothing of this batch may count
    except BaseException as cause:  # noqa: BLE001 - handed to whoever waits for this work
        work.failure = cause
    if work.failure is None:
        transaction.keep()
    else:
        transaction.undo()


def _tell(batch: list[_Work], size: int) -> None:
    for work in batch:
        if work.future.done():
            continue
        if work.failure is not None:
            work.future.set_exception(work.failure)
        else:
            work.future.set_result(Committed(value=work.value, size=size))
