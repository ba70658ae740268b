"""A broker's storage in one SQLite file (write-ahead log, `synchronous=FULL`).

Several processes may open the same file on one machine: writers wait for their turn (`turn`), and
`BEGIN IMMEDIATE` makes sure that no two of them decide at once. It does not work over network file systems.
Readers have connections of their own, on which no statement can change anything.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, pool

from strongroom.broker.ports import KnownDisk, KnownVersion
from strongroom.errors import NotFound
from strongroom.store import cache, failures, schema, transaction, turn
from strongroom.store.statements import driver, text
from strongroom.store.writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from strongroom.broker.ports import Committed, Reading, Transaction
    from strongroom.errors import Unavailable
    from strongroom.model.identifiers import ContractDigest, ContractId, RoomName, RunId

T = TypeVar("T")

BUSY_SECONDS = 10
READERS = 64  # threads that read at once, at most
OF_RUN = 64
_of_run = sa.select(schema.leaves.c.idx, schema.leaves.c.entry).where(
    schema.leaves.c.run == sa.bindparam("wanted"), schema.leaves.c.run != sa.literal_column("''")
)
_FIRST_OF_RUN = f"{text(_of_run.order_by(schema.leaves.c.idx))} LIMIT {OF_RUN // 2}"
_LAST_OF_RUN = f"{text(_of_run.order_by(schema.leaves.c.idx.desc()))} LIMIT {OF_RUN // 2}"
_total = sa.select(sa.func.sum(sa.func.length(schema.leaves.c.entry))).where(
    schema.leaves.c.idx >= sa.bindparam("first"), schema.leaves.c.idx < sa.bindparam("end")
)
_TOTAL = text(_total)
_PER_ROOM = sa.select(
    schema.runs.c.contract, schema.runs.c.room, sa.func.count(), sa.func.count(schema.runs.c.receipt)
).group_by(schema.runs.c.contract, schema.runs.c.room)
_VERSIONS = sa.select(schema.contracts).order_by(schema.contracts.c.id, schema.contracts.c.owners)
_STAGED = sa.select(schema.staged.c.settings)
_KEYS = sa.select(schema.keys.c.told)
_DISKS = sa.select(schema.disks).order_by(schema.disks.c.manifest)
_CLOCK = sa.select(schema.clock.c.reached)


class SqliteStore:
    """Implements `broker.ports.Store`. Close it, so that the log is folded into the file."""

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self._writing = _engine(path, begin="BEGIN IMMEDIATE", busy_seconds=busy_seconds, size=1)
        self._reading = _engine(path, begin="BEGIN", busy_seconds=busy_seconds, size=READERS)
        self._nodes = cache.NodeCache()
        with failures.mapped(), self._writing.connect() as connection, connection.begin():
            schema.migrate(connection)
        self._readers = Readers(self._reading)
        self.ledger = SqliteLedgerView(self._readers, self._nodes)
        self._turn = turn.Turn(path.with_name(path.name + turn.SUFFIX))
        self._writer = Writer(self._writing, self._nodes, self._turn)

    async def write(self, work: Callable[[Transaction], T]) -> Committed[T]:
        """Run `work` in a transaction; return once it is durable."""
        done: Committed[T] = await self._writer.submit(work)
        return done

    def read(self, work: Callable[[Reading], T]) -> T:
        """What `work` reads of the committed state."""
        with self._readers.connection() as connection:
            return work(transaction.SqlTransaction(connection, self._nodes))

    def gather_while(self, expects: Callable[[], bool]) -> None:
        """Let works wait a moment for others while `expects` says that some are on their way. Asked by another thread."""
        self._writer.expects = expects

    @property
    def failing(self) -> Unavailable | None:
        """Why the last write failed; None when it did not."""
        return self._writer.failing

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._writer.close()
        self._readers.close()
        self._writing.dispose()
        self._reading.dispose()
        self._turn.close()

    def runs_by_room(self) -> list[tuple[ContractDigest, RoomName, int, int]]:
        """Contract digest, room, runs, and how many of them have a receipt."""
        with failures.mapped(), self._reading.begin() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(_PER_ROOM)]

    def versions(self) -> list[tuple[ContractId, int, ContractDigest]]:
        """Contract id, highest version and its digest."""
        with failures.mapped(), self._reading.begin() as connection:
            return [(row.id, row.version, row.digest) for row in connection.execute(_VERSIONS)]

    def known_contracts(self) -> list[tuple[ContractId, KnownVersion]]:
        """Id and highest version of each series."""
        with failures.mapped(), self._reading.begin() as connection:
            return [
                (
                    row.id,
                    KnownVersion(
                        version=row.version,
                        digest=row.digest,
                        runs=row.runs,
                        withdrawn=bool(row.withdrawn),
                        paused=frozenset(row.paused.split()),
                    ),
                )
                for row in connection.execute(_VERSIONS)
            ]

    def known_disks(self) -> list[KnownDisk]:
        """Every disk."""
        with failures.mapped(), self._reading.begin() as connection:
            return [
                KnownDisk(manifest_digest=row.manifest, cipher=row.cipher, sealed_key=row.sealed_key)
                for row in connection.execute(_DISKS)
            ]

    def staged_settings(self) -> bytes | None:
        """The broker's file as a rotation has made it, where it is not in its place yet."""
        with failures.mapped(), self._reading.begin() as connection:
            staged: bytes | None = connection.execute(_STAGED).scalar_one_or_none()
            return staged

    def keys(self) -> str | None:
        """The keys that the database is of, where they were given to it."""
        with failures.mapped(), self._reading.begin() as connection:
            keys: str | None = connection.execute(_KEYS).scalar_one_or_none()
            return keys

    def latest_time(self) -> int:
        """The latest time known, in seconds since 1970."""
        with failures.mapped(), self._reading.begin() as connection:
            return int(connection.execute(_CLOCK).scalar_one())


class Readers:
    """Reading connections, as many as threads read at once; each is kept for whoever reads next."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._idle: list[sa.Connection] = []

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One for the calling thread alone, until the context ends."""
        with failures.mapped():
            try:
                own = self._idle.pop()
            except IndexError:
                own = self._engine.connect()
                driver(own).execute("PRAGMA query_only=ON")
            try:
                yield driver(own)
            finally:
                self._idle.append(own)

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()


class SqliteLedgerView:
    """Implements `broker.ports.LedgerView`."""

    def __init__(self, readers: Readers, nodes: cache.NodeCache) -> None:
        self._readers = readers
        self._nodes = nodes

    def size(self) -> int:
        """How many leaves are durable."""
        with self._readers.connection() as connection:
            return transaction.read_size(connection.execute)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        value = self._nodes.get(level, index)
        if value is None:
            with self._readers.connection() as connection:
                read = cache.read_run(connection.execute, level, index)
            self._nodes.add(read)
            value = read[level, index]
        return value

    def leaves(self, start: int, count: int) -> Sequence[bytes]:
        """The bytes of leaves start … start+count-1."""
        with self._readers.connection() as connection:
            return transaction.read_leaves(connection.execute, start, count)

    def total(self, start: int, count: int) -> int:
        """How many bytes leaves start … start+count-1 have together."""
        with self._readers.connection() as connection:
            return int(connection.execute(_TOTAL, {"first": start, "end": start + count}).fetchone()[0] or 0)

    def of_run(self, run_id: RunId) -> Sequence[tuple[int, bytes]]:
        """Index and bytes of the run's first 32 leaves and its last 32, in order: a service's are without end."""
        with self._readers.connection() as connection:
            rows = [
                row
                for statement in (_FIRST_OF_RUN, _LAST_OF_RUN)
                for row in connection.execute(statement, {"wanted": run_id})
            ]
            return sorted({row[0]: row[1] for row in rows}.items())


def create(path: Path) -> None:
    """Make an empty database that only its owner may read. Raises `Unavailable`."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    SqliteStore(path).close()


def open_store(path: Path, *, busy_seconds: float = BUSY_SECONDS) -> SqliteStore:
    """Open a database that exists. A missing file is never made anew: its ledger would be lost."""
    if not path.is_file():
        raise NotFound(f"{path}: no broker database", hint="`strongroom broker init` makes one")
    return SqliteStore(path, busy_seconds=busy_seconds)


def _engine(path: Path, *, begin: str, busy_seconds: float, size: int) -> sa.Engine:
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=pool.QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"timeout": busy_seconds, "check_same_thread": False, "cached_statements": 256},
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, explicitly
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "secure_delete=ON",
            "temp_store=MEMORY",
            "wal_autocheckpoint=4000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def began(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
