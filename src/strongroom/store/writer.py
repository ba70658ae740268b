"""The one writer of a process: many works, one SQLite transaction, one fsync (group commit).

A thread takes what is queued, up to `BATCH` works, and runs them one after the other between
`BEGIN IMMEDIATE` and `COMMIT`, each in a savepoint of its own: one that raises is undone alone. Only
when the commit has returned (`synchronous=FULL`: it is on the disk) does anyone hear of a result.
If the commit fails, every work of the batch is told so and nothing of it is stored.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import sqlalchemy.exc

from strongroom.broker.storage import Committed
from strongroom.errors import Unavailable
from strongroom.store import failures
from strongroom.store.statements import driver
from strongroom.store.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.store.cache import NodeCache

BATCH = 32
QUEUED = 1024


class _Work:
    __slots__ = ("failure", "future", "run", "value")

    def __init__(self, run: Callable[[Transaction], Any]) -> None:
        self.run = run
        self.future: Future[Committed[Any]] = Future()
        self.value: Any = None
        self.failure: BaseException | None = None


class Writer:
    """Owns the writing connection. `submit` is safe from any thread."""

    def __init__(self, engine: sa.Engine, nodes: NodeCache) -> None:
        self._engine = engine
        self._nodes = nodes
        self._queue: queue.Queue[_Work | None] = queue.Queue(QUEUED)
        self._closed = False
        self.failing: Unavailable | None = None
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Transaction], Any]) -> Future[Committed[Any]]:
        """Queue a work. Raises `Unavailable` when too many wait already."""
        work = _Work(run)
        if self._closed:
            raise Unavailable("broker store: closed", code="closing", hint="the broker is stopping")
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            raise Unavailable(
                "broker store: too many requests wait", code="overloaded", hint="try again in a moment"
            ) from None
        return work.future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while len(batch) < BATCH and not last:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                else:
                    batch.append(more)
            self._run(batch)
            if last:
                return

    def _run(self, queued: list[_Work]) -> None:
        # From here on nobody can withdraw; who has done so before is not served.
        batch = [work for work in queued if work.future.set_running_or_notify_cancel()]
        try:
            size = self._commit(batch)
        except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as cause:
            self.failing = failures.explained(cause)
            for work in batch:
                work.future.set_exception(self.failing)
            return
        except BaseException as cause:  # noqa: BLE001 - nobody may wait for ever, whatever went wrong
            for work in batch:
                work.future.set_exception(cause)
            return
        self.failing = None
        for work in batch:
            if work.failure is not None:
                work.future.set_exception(work.failure)
            else:
                work.future.set_result(Committed(value=work.value, size=size))

    def _commit(self, batch: list[_Work]) -> int:
        with self._engine.connect() as connection:
            with connection.begin():
                inner = driver(connection)
                transaction = Transaction(inner, self._nodes)
                for work in batch:
                    self._one(inner, transaction, work)
                size = transaction.ledger.size()
            transaction.ledger.committed()
            return size

    def _one(self, inner: sqlite3.Connection, transaction: Transaction, work: _Work) -> None:
        inner.execute("SAVEPOINT work")
        try:
            work.value = work.run(transaction)
        except sqlite3.IntegrityError as cause:
            work.failure = failures.explained(cause)
        except sqlite3.Error:
            raise  # the database itself fails: nothing of this batch may count
        except BaseException as cause:  # noqa: BLE001 - handed to whoever waits for this work
            work.failure = cause
        if work.failure is not None:
            inner.execute("ROLLBACK TO work")
            transaction.forget()
        inner.execute("RELEASE work")
