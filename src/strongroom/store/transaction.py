"""One transaction: the broker's storage Protocols over one SQLite connection.

Statements are built by SQLAlchemy Core once, at import, and executed by the driver itself: on the path
of a release SQLAlchemy's execution would cost more than SQLite's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from strongroom.broker.storage import IssuedNonce, KnownDisk, KnownVersion, Run, Series
from strongroom.errors import Unavailable
from strongroom.ledger import merkle
from strongroom.store import cache, schema
from strongroom.store.statements import text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_nonces, _contracts, _runs = schema.nonces, schema.contracts, schema.runs
_disks, _leaves, _nodes = schema.disks, schema.leaves, schema.nodes
_WANTED: sa.BindParameter[object] = sa.bindparam("wanted")

_NONCE_ADD = text(sa.insert(_nonces))
_NONCE_USE = text(
    sa.update(_nonces)
    .where(_nonces.c.nonce == _WANTED)
    .values(used=_nonces.c.used + sa.literal_column("1"))
    .returning(_nonces.c.contract, _nonces.c.expires, _nonces.c.used)
)
_NONCE_OPEN = text(
    sa.select(sa.func.count()).select_from(_nonces).where(_nonces.c.used == sa.literal_column("0"))
)
_NONCE_PURGE = text(sa.delete(_nonces).where(_nonces.c.expires < sa.bindparam("now")))
_VERSION_FIND = text(
    sa.select(_contracts.c.version, _contracts.c.digest).where(
        _contracts.c.id == _WANTED, _contracts.c.owners == sa.bindparam("owners")
    )
)
_version_put = insert(_contracts)
_VERSION_PUT = text(
    _version_put.on_conflict_do_update(
        index_elements=[_contracts.c.id, _contracts.c.owners],
        set_={"version": _version_put.excluded.version, "digest": _version_put.excluded.digest},
    )
)
_RUN_USED = text(sa.select(sa.func.max(_runs.c.ordinal)).where(_runs.c.contract == _WANTED))
_RUN_FIND = text(
    sa.select(_runs.c.run, _runs.c.contract, _runs.c.signing_key, _runs.c.release, _runs.c.receipt).where(
        _runs.c.run == _WANTED
    )
)
_RUN_ADD = text(sa.insert(_runs))
_RUN_CLOSE = text(sa.update(_runs).where(_runs.c.run == _WANTED).values(receipt=sa.bindparam("at")))
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
_SIZE = text(sa.select(sa.func.max(_leaves.c.idx)))
_LEAF_ADD = text(sa.insert(_leaves))
_NODE_ADD = text(sa.insert(_nodes))
_LEAVES = text(
    sa.select(_leaves.c.entry)
    .where(_leaves.c.idx >= sa.bindparam("first"), _leaves.c.idx < sa.bindparam("end"))
    .order_by(_leaves.c.idx)
)


class Transaction:
    """What one batch of works shares. `forget` undoes what is in memory after a rolled-back work."""

    def __init__(self, connection: sqlite3.Connection, nodes: cache.NodeCache) -> None:
        self.nonces = Nonces(connection)
        self.contracts = Contracts(connection)
        self.runs = Runs(connection)
        self.disks = Disks(connection)
        self.ledger = Ledger(connection, nodes)

    def forget(self) -> None:
        """Read again what a rolled-back work may have changed."""
        self.nonces.forget()
        self.contracts.forget()
        self.runs.forget()
        self.disks.forget()
        self.ledger.forget()


class Nonces:
    """Implements `broker.storage.Nonces`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._open: int | None = None
        self._purged = 0

    def forget(self) -> None:
        """Count again."""
        self._open, self._purged = None, 0

    def add(self, nonce: bytes, *, contract: str, expires: datetime) -> None:
        """Remember a fresh nonce."""
        row = {"nonce": nonce, "contract": contract, "expires": seconds(expires), "used": 0}
        self._connection.execute(_NONCE_ADD, row)
        if self._open is not None:
            self._open += 1

    def take(self, nonce: bytes) -> IssuedNonce | None:
        """Mark the nonce as used and return how it stood before."""
        row = self._connection.execute(_NONCE_USE, {"wanted": nonce}).fetchone()
        if row is None:
            return None
        contract, expires, used = row
        before = used - 1
        if before == 0 and self._open is not None:
            self._open -= 1
        return IssuedNonce(contract=contract, expires=moment(expires), used=before > 0)

    def open_count(self) -> int:
        """How many nonces wait to be used. Counted once a batch, since counting reads them all."""
        if self._open is None:
            self._open = int(self._connection.execute(_NONCE_OPEN).fetchone()[0])
        return self._open

    def purge(self, now: datetime) -> None:
        """Forget every nonce that expired before `now`; at most once a second of one batch."""
        if self._purged == seconds(now):
            return
        self._purged = seconds(now)
        if self._connection.execute(_NONCE_PURGE, {"now": self._purged}).rowcount:
            self._open = None


class Contracts:
    """Implements `broker.storage.Contracts`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[Series, KnownVersion | None] = {}

    def forget(self) -> None:
        """Read again."""
        self._known = {}

    def highest(self, series: Series) -> KnownVersion | None:
        """The highest version seen. Read once a batch, which nobody else can write during."""
        if series not in self._known:
            wanted = {"wanted": series.id, "owners": series.owners}
            row = self._connection.execute(_VERSION_FIND, wanted).fetchone()
            found = None if row is None else KnownVersion(version=row[0], digest=row[1])
            self._known[series] = found
        return self._known[series]

    def raise_to(self, series: Series, version: KnownVersion) -> None:
        """Remember a version as the highest."""
        if self.highest(series) != version:
            row = {
                "id": series.id,
                "owners": series.owners,
                "version": version.version,
                "digest": version.digest,
            }
            self._connection.execute(_VERSION_PUT, row)
            self._known[series] = version


class Runs:
    """Implements `broker.storage.Runs`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._used: dict[str, int] = {}

    def forget(self) -> None:
        """Count again."""
        self._used = {}

    def used(self, contract: str) -> int:
        """How many runs were released under the contract. Counted once a batch."""
        if contract not in self._used:
            last = self._connection.execute(_RUN_USED, {"wanted": contract}).fetchone()[0]
            self._used[contract] = int(last or 0)
        return self._used[contract]

    def add(self, run: Run) -> None:
        """Count a run."""
        ordinal = self.used(run.contract) + 1
        row = {
            "run": run.run,
            "contract": run.contract,
            "ordinal": ordinal,
            "signing_key": run.signing_key,
            "release": run.release,
            "receipt": run.receipt,
        }
        self._connection.execute(_RUN_ADD, row)
        self._used[run.contract] = ordinal

    def find(self, run: str) -> Run | None:
        """The run of that name."""
        row = self._connection.execute(_RUN_FIND, {"wanted": run}).fetchone()
        if row is None:
            return None
        name, contract, signing_key, release, receipt = row
        return Run(run=name, contract=contract, signing_key=signing_key, release=release, receipt=receipt)

    def close(self, run: str, *, receipt: int) -> None:
        """Remember where the run's receipt stands."""
        self._connection.execute(_RUN_CLOSE, {"wanted": run, "at": receipt})


class Disks:
    """Implements `broker.storage.Disks`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, KnownDisk] = {}

    def forget(self) -> None:
        """Read again."""
        self._known = {}

    def find(self, manifest: str) -> KnownDisk | None:
        """The disk of that manifest digest. Read once a batch."""
        if manifest not in self._known:
            row = self._connection.execute(_DISK_FIND, {"wanted": manifest}).fetchone()
            if row is None:
                return None
            self._known[manifest] = KnownDisk(manifest=row[0], cipher=row[1], sealed_key=row[2])
        return self._known[manifest]

    def put(self, disk: KnownDisk) -> None:
        """Remember a disk."""
        row = {"manifest": disk.manifest, "cipher": disk.cipher, "sealed_key": disk.sealed_key}
        self._connection.execute(_DISK_PUT, row)
        self._known[disk.manifest] = disk


class Ledger:
    """Implements `broker.storage.Ledger`. Nodes of this batch stay apart from the committed ones."""

    def __init__(self, connection: sqlite3.Connection, nodes: cache.NodeCache) -> None:
        self._connection = connection
        self._committed = nodes
        self._fresh: dict[tuple[int, int], bytes] = {}
        self._size: int | None = None

    def forget(self) -> None:
        """Read again."""
        self._fresh, self._size = {}, None

    def committed(self) -> int:
        """Call after the commit: hand the batch's nodes to the cache, return the size."""
        self._committed.add(self._fresh)
        return self.size()

    def size(self) -> int:
        """How many leaves there are."""
        if self._size is None:
            self._size = read_size(self._connection)
        return self._size

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        found = self._fresh.get((level, index)) or self._committed.get(level, index)
        if found is None:
            self._fresh.update(cache.read_run(self._connection, level, index))
            found = self._fresh[level, index]
        return found

    def leaves(self, start: int, count: int) -> Sequence[bytes]:
        """The bytes of leaves start … start+count-1."""
        return read_leaves(self._connection, start, count)

    def append(self, entry: bytes, *, run: str) -> int:
        """Append a leaf and the nodes that it completes."""
        index = self.size()
        if index >= merkle.MAX_SIZE:
            raise Unavailable("ledger: full", code="ledger-full")
        rows = merkle.append(self, index, entry)
        self._connection.execute(_LEAF_ADD, {"idx": index, "run": run, "entry": entry})
        self._connection.executemany(
            _NODE_ADD, [{"level": level, "idx": at, "hash": value} for level, at, value in rows]
        )
        self._fresh.update({(level, at): value for level, at, value in rows})
        self._size = index + 1
        return index


def read_leaves(connection: sqlite3.Connection, start: int, count: int) -> list[bytes]:
    """The bytes of leaves start … start+count-1; shorter at the end of the ledger."""
    rows = connection.execute(_LEAVES, {"first": start, "end": start + count})
    return [row[0] for row in rows]


def read_size(connection: sqlite3.Connection) -> int:
    """How many leaves `connection` sees."""
    last = connection.execute(_SIZE).fetchone()[0]
    return 0 if last is None else int(last) + 1


def seconds(time: datetime) -> int:
    """Whole seconds since 1970."""
    return int(time.timestamp())


def moment(value: int) -> datetime:
    """The time of so many seconds since 1970."""
    return datetime.fromtimestamp(value, UTC)
