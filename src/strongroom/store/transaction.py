"""One transaction: the broker's storage Protocols over one SQLite connection.

What works append to the ledger is kept in memory and written together before the commit; whatever else they write
is in a savepoint of their own, so that one that raises is undone alone.

Statements are built by SQLAlchemy Core once, at import, and executed by the driver itself: on the path
of a release SQLAlchemy's execution would cost more than SQLite's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from strongroom.broker.ports import KnownDisk, KnownVersion, NonceUse, Run, Series
from strongroom.errors import Unavailable
from strongroom.ledger import merkle
from strongroom.store import cache, schema
from strongroom.store.certificates import CERTIFICATES_FORGET, SqlCertificates
from strongroom.store.moments import moment, seconds
from strongroom.store.statements import text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from strongroom.model.identifiers import ContractDigest, ManifestDigest, RoomName, RunId

    Execute = Callable[[str, Mapping[str, object]], sqlite3.Cursor]

_used, _clock, _contracts, _runs = schema.used_nonces, schema.clock, schema.contracts, schema.runs
_disks, _leaves, _nodes = schema.disks, schema.leaves, schema.nodes
_WANTED: sa.BindParameter[object] = sa.bindparam("wanted")

_NONCE_USE = text(insert(_used).on_conflict_do_nothing())
_NONCE_FIND = text(sa.select(_used.c.expires).where(_used.c.nonce == _WANTED))
_NONCE_FORGET = text(sa.delete(_used).where(_used.c.expires <= sa.bindparam("now")))
_CLOCK_READ = text(sa.select(_clock.c.reached))
_CLOCK_SET = text(sa.update(_clock).values(reached=sa.bindparam("now")))
_VERSION_FIND = text(
    sa.select(
        _contracts.c.version,
        _contracts.c.digest,
        _contracts.c.runs,
        _contracts.c.withdrawn,
        _contracts.c.paused,
    ).where(_contracts.c.id == _WANTED, _contracts.c.owners == sa.bindparam("owners"))
)
_version_put = insert(_contracts)
_VERSION_PUT = text(
    _version_put.on_conflict_do_update(
        index_elements=[_contracts.c.id, _contracts.c.owners],
        set_={
            name: _version_put.excluded[name] for name in ("version", "digest", "runs", "withdrawn", "paused")
        },
    )
)
_SERIES_OF = text(sa.select(_contracts.c.id, _contracts.c.owners).where(_contracts.c.digest == _WANTED))
_RUN_USED = text(
    sa.select(sa.func.max(_runs.c.ordinal)).where(
        _runs.c.contract == _WANTED, _runs.c.room == sa.bindparam("room")
    )
)
_RUN_FIND = text(
    sa.select(
        _runs.c.run,
        _runs.c.contract,
        _runs.c.room,
        _runs.c.signing_key,
        _runs.c.release,
        _runs.c.receipt,
        _runs.c.sequence,
        _runs.c.latest,
    ).where(_runs.c.run == _WANTED)
)
_RUN_ADD = text(sa.insert(_runs))
_report = sa.update(_runs).where(_runs.c.run == _WANTED)
_RUN_REPORT = text(_report.values(latest=sa.bindparam("at"), sequence=sa.bindparam("number")))
_RUN_CLOSE = text(
    _report.values(
        latest=sa.bindparam("at"), sequence=sa.bindparam("number"), receipt=sa.bindparam("ends_at")
    )
)
_DISK_FIND = text(
    sa.select(_disks.c.manifest, _disks.c.cipher, _disks.c.sealed_key).where(_disks.c.manifest == _WANTED)
)
_disk_put = insert(_disks)
_DISK_PUT = text(
    _disk_put.on_conflict_do_update(
        index_elements=[_disks.c.manifest],
        set_={"cipher": _disk_put.excluded.cipher, "sealed_key": _disk_put.excluded.sealed_key},
    )
)
_DISK_REMOVE = text(sa.delete(_disks).where(_disks.c.manifest == _WANTED))
_DISK_EVERY = text(
    sa.select(_disks.c.manifest, _disks.c.cipher, _disks.c.sealed_key).order_by(_disks.c.manifest)
)
_STAGED_PUT = text(sa.insert(schema.staged))
_STAGED_CLEAR = text(sa.delete(schema.staged))
_KEYS_PUT = text(sa.insert(schema.keys))
_KEYS_CLEAR = text(sa.delete(schema.keys))
_SIZE = text(sa.select(sa.func.max(_leaves.c.idx)))
_LEAF_ADD = text(sa.insert(_leaves), placed=True)
_NODE_ADD = text(sa.insert(_nodes), placed=True)
_LEAVES = text(
    sa.select(_leaves.c.entry)
    .where(_leaves.c.idx >= sa.bindparam("first"), _leaves.c.idx < sa.bindparam("end"))
    .order_by(_leaves.c.idx)
)


class WriteSession:
    """The writing connection, with one savepoint for each work that writes, opened by its first write."""

    __slots__ = ("_connection", "_saved")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._saved = False

    def read(self, statement: str, values: Mapping[str, object]) -> sqlite3.Cursor:
        """Run a statement that changes nothing."""
        return self._connection.execute(statement, values)

    def write(self, statement: str, values: Mapping[str, object]) -> sqlite3.Cursor:
        """Run a statement that a failing work takes back."""
        if not self._saved:
            self._connection.execute("SAVEPOINT work")
            self._saved = True
        return self._connection.execute(statement, values)

    def end(self, *, undo: bool) -> None:
        """End the work: keep what it wrote, or undo it."""
        if not self._saved:
            return
        if undo:
            self._connection.execute("ROLLBACK TO work")
        self._connection.execute("RELEASE work")
        self._saved = False


class SqlTransaction:
    """What one batch of works shares."""

    def __init__(self, connection: sqlite3.Connection, nodes: cache.NodeCache) -> None:
        self._connection = connection
        self._session = WriteSession(connection)
        self.clock = SqlClock(self._session)
        self.nonces = SqlNonces(self._session, self.clock)
        self.contracts = SqlContracts(self._session)
        self.runs = SqlRuns(self._session)
        self.disks = SqlDisks(self._session)
        self.certificates = SqlCertificates(self._session.read, self._session.write)
        self.staged = SqlStaged(self._session)
        self.ledger = SqlLedger(self._session, nodes)

    def keep(self) -> None:
        """End a work that succeeded."""
        self._session.end(undo=False)
        self.ledger.keep()

    def undo(self) -> None:
        """End a work that failed: nothing of it stays, in the database or in memory."""
        self._session.end(undo=True)
        self.clock.forget()
        self.contracts.forget()
        self.runs.forget()
        self.disks.forget()
        self.ledger.undo()

    def flush(self) -> int:
        """Write what the batch has appended, all at once; call before the commit. Return the ledger's size."""
        return self.ledger.flush(self._connection)


class SqlClock:
    """Implements `broker.ports.Clock`."""

    def __init__(self, session: WriteSession) -> None:
        self._session = session
        self._reached: int | None = None

    def forget(self) -> None:
        """Read again."""
        self._reached = None

    def reach(self, now: datetime) -> datetime:
        """Remember `now`; nonces and certificates that have ended by then are forgotten: they are refused by the clock."""
        if self._reached is None:
            self._reached = int(self._session.read(_CLOCK_READ, {}).fetchone()[0])
        if seconds(now) > self._reached:
            self._reached = seconds(now)
            self._session.write(_CLOCK_SET, {"now": self._reached})
            self._session.write(_NONCE_FORGET, {"now": self._reached})
            self._session.write(CERTIFICATES_FORGET, {"now": self._reached})
        return moment(self._reached)


class SqlNonces:
    """Implements `broker.ports.Nonces`."""

    def __init__(self, session: WriteSession, clock: SqlClock) -> None:
        self._session = session
        self._clock = clock

    def use(self, nonce: bytes, *, expires: datetime, now: datetime) -> NonceUse:
        """Use the nonce up."""
        if expires <= self._clock.reach(now):
            return NonceUse.ENDED
        row = {"nonce": nonce, "expires": seconds(expires)}
        return NonceUse.FRESH if self._session.write(_NONCE_USE, row).rowcount == 1 else NonceUse.USED

    def used(self, nonce: bytes) -> bool:
        """Whether the nonce is known as used."""
        return self._session.read(_NONCE_FIND, {"wanted": nonce}).fetchone() is not None


class SqlContracts:
    """Implements `broker.ports.Contracts`."""

    def __init__(self, session: WriteSession) -> None:
        self._session = session
        self._known: dict[Series, KnownVersion | None] = {}

    def forget(self) -> None:
        """Read again."""
        self._known = {}

    def highest(self, series: Series) -> KnownVersion | None:
        """The highest version seen. Read once a batch, which nobody else can write during."""
        if series not in self._known:
            wanted = {"wanted": series.id, "owners": series.owners}
            row = self._session.read(_VERSION_FIND, wanted).fetchone()
            version = None
            if row is not None:
                version = KnownVersion(
                    version=row[0],
                    digest=row[1],
                    runs=row[2],
                    withdrawn=bool(row[3]),
                    paused=frozenset(row[4].split()),
                )
            self._known[series] = version
        return self._known[series]

    def of_digest(self, contract_digest: ContractDigest) -> Series | None:
        """The series whose highest known version has that digest."""
        row = self._session.read(_SERIES_OF, {"wanted": contract_digest}).fetchone()
        return None if row is None else Series(id=row[0], owners=row[1])

    def withdraw(self, series: Series, version: KnownVersion) -> None:
        """Remember that the series is withdrawn."""
        self._put(series, replace(self.highest(series) or version, withdrawn=True))

    def raise_to(self, series: Series, version: KnownVersion) -> None:
        """Remember a version as the highest."""
        known = self.highest(series)
        if known is not None:  # what the owner has ended or paused is so in every version
            version = replace(version, withdrawn=known.withdrawn, paused=known.paused)
        if known != version:
            self._put(series, version)

    def pause(self, series: Series, version: KnownVersion) -> None:
        """Remember which rooms of the series are paused."""
        self._put(series, replace(self.highest(series) or version, paused=version.paused))

    def _put(self, series: Series, version: KnownVersion) -> None:
        row = {
            "id": series.id,
            "owners": series.owners,
            "version": version.version,
            "digest": version.digest,
            "runs": version.runs,
            "withdrawn": int(version.withdrawn),
            "paused": " ".join(sorted(version.paused)),
        }
        self._session.write(_VERSION_PUT, row)
        self._known[series] = version


class SqlRuns:
    """Implements `broker.ports.Runs`."""

    def __init__(self, session: WriteSession) -> None:
        self._session = session
        self._used: dict[tuple[str, str], int] = {}

    def forget(self) -> None:
        """Count again."""
        self._used = {}

    def used(self, contract_digest: ContractDigest, room: RoomName) -> int:
        """How many runs of that room were released under the contract. Counted once a batch."""
        key = (contract_digest, room)
        if key not in self._used:
            last = self._session.read(_RUN_USED, {"wanted": contract_digest, "room": room}).fetchone()[0]
            self._used[key] = int(last or 0)
        return self._used[key]

    def add(self, run: Run) -> None:
        """Count a run."""
        ordinal = self.used(run.contract_digest, run.room) + 1
        row = {
            "run": run.run_id,
            "contract": run.contract_digest,
            "room": run.room,
            "ordinal": ordinal,
            "signing_key": run.signing_key,
            "release": run.release,
            "receipt": run.receipt,
            "sequence": run.sequence,
            "latest": run.latest,
        }
        self._session.write(_RUN_ADD, row)
        self._used[(run.contract_digest, run.room)] = ordinal

    def find(self, run_id: RunId) -> Run | None:
        """The run of that name."""
        row = self._session.read(_RUN_FIND, {"wanted": run_id}).fetchone()
        if row is None:
            return None
        name, contract, room, signing_key, release, receipt, sequence, latest = row
        return Run(
            run_id=name,
            contract_digest=contract,
            room=room,
            signing_key=signing_key,
            release=release,
            receipt=receipt,
            sequence=sequence,
            latest=latest,
        )

    def report(self, run_id: RunId, *, receipt: int, sequence: int, is_last: bool) -> None:
        """Remember where the run's newest receipt stands."""
        row: dict[str, object] = {"wanted": run_id, "at": receipt, "number": sequence}
        if is_last:
            self._session.write(_RUN_CLOSE, {**row, "ends_at": receipt})
        else:
            self._session.write(_RUN_REPORT, row)


class SqlDisks:
    """Implements `broker.ports.Disks`."""

    def __init__(self, session: WriteSession) -> None:
        self._session = session
        self._known: dict[str, KnownDisk] = {}

    def forget(self) -> None:
        """Read again."""
        self._known = {}

    def find(self, manifest_digest: ManifestDigest) -> KnownDisk | None:
        """The disk of that manifest digest. Read once a batch."""
        if manifest_digest not in self._known:
            row = self._session.read(_DISK_FIND, {"wanted": manifest_digest}).fetchone()
            if row is None:
                return None
            self._known[manifest_digest] = KnownDisk(manifest_digest=row[0], cipher=row[1], sealed_key=row[2])
        return self._known[manifest_digest]

    def put(self, disk: KnownDisk) -> None:
        """Remember a disk."""
        row = {"manifest": disk.manifest_digest, "cipher": disk.cipher, "sealed_key": disk.sealed_key}
        self._session.write(_DISK_PUT, row)
        self._known[disk.manifest_digest] = disk

    def remove(self, manifest_digest: ManifestDigest) -> None:
        """Forget a disk."""
        self._session.write(_DISK_REMOVE, {"wanted": manifest_digest})
        self._known.pop(manifest_digest, None)

    def every(self) -> Sequence[KnownDisk]:
        """All disks."""
        rows = self._session.read(_DISK_EVERY, {}).fetchall()
        return [KnownDisk(manifest_digest=row[0], cipher=row[1], sealed_key=row[2]) for row in rows]


class SqlStaged:
    """Implements `broker.ports.Staged`."""

    def __init__(self, session: WriteSession) -> None:
        self._session = session

    def put(self, settings: bytes) -> None:
        """Remember the file."""
        self.clear()
        self._session.write(_STAGED_PUT, {"one": 1, "settings": settings})

    def clear(self) -> None:
        """Forget the file."""
        self._session.write(_STAGED_CLEAR, {})

    def belong(self, keys: str) -> None:
        """Remember the keys that the database is of."""
        self._session.write(_KEYS_CLEAR, {})
        self._session.write(_KEYS_PUT, {"one": 1, "told": keys})


class SqlLedger:
    """Implements `broker.ports.Ledger`. What a batch appends is in memory until it is flushed."""

    def __init__(self, session: WriteSession, nodes: cache.NodeCache) -> None:
        self._session = session
        self._cache = nodes
        self._nodes: list[tuple[int, int, bytes]] = []
        self._rows: list[tuple[int, str, bytes]] = []
        self._kept = 0
        self._before: int | None = None

    def keep(self) -> None:
        """What was appended so far stays."""
        self._kept = len(self._rows)

    def undo(self) -> None:
        """Take back what the last work appended."""
        del self._rows[self._kept :]

    def flush(self, connection: sqlite3.Connection) -> int:
        """Write leaves and the nodes that they complete; return the size."""
        size = self.size()
        entries = [entry for _, _, entry in self._rows]
        self._nodes = merkle.append(self, size - len(entries), entries)
        connection.executemany(_LEAF_ADD, self._rows)
        connection.executemany(_NODE_ADD, self._nodes)
        return size

    def committed(self) -> None:
        """Call after the commit: hand the batch's nodes to the cache."""
        self._cache.add({(level, at): value for level, at, value in self._nodes})

    def size(self) -> int:
        """How many leaves there are."""
        if self._before is None:
            self._before = read_size(self._session.read)
        return self._before + len(self._rows)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a subtree that was complete before this batch."""
        value = self._cache.get(level, index)
        if value is None:
            read = cache.read_run(self._session.read, level, index)
            self._cache.add(read)
            value = read[level, index]
        return value

    def leaves(self, start: int, count: int) -> Sequence[bytes]:
        """The bytes of leaves start … start+count-1, those of this batch too."""
        stored = read_leaves(self._session.read, start, count)
        return [*stored, *(entry for index, _, entry in self._rows if start <= index < start + count)]

    def append(self, entry: bytes, *, run_id: RunId) -> int:
        """Append a leaf. The nodes that it completes are made when the batch is flushed."""
        index = self.size()
        if index >= merkle.MAX_SIZE:
            raise Unavailable(
                f"ledger: full, with {index} entries",
                code="ledger-full",
                hint="make a new broker for what comes: `strongroom broker init`; keep this one for its ledger",
            )
        self._rows.append((index, run_id, entry))
        return index


def read_leaves(read: Execute, start: int, count: int) -> list[bytes]:
    """The bytes of leaves start … start+count-1; shorter at the end of the ledger."""
    return [row[0] for row in read(_LEAVES, {"first": start, "end": start + count})]


def read_size(read: Execute) -> int:
    """How many leaves a connection sees."""
    last = read(_SIZE, {}).fetchone()[0]
    return 0 if last is None else int(last) + 1
