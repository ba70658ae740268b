"""One transaction: the broker's storage Protocols over one SQLite connection.

Statements are built once; SQLAlchemy caches their compiled form.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from strongroom.broker.storage import IssuedNonce, KnownDisk, KnownVersion, Run
from strongroom.errors import Unavailable
from strongroom.ledger import merkle
from strongroom.store import cache, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

_nonces, _contracts, _runs = schema.nonces, schema.contracts, schema.runs
_disks, _leaves, _nodes = schema.disks, schema.leaves, schema.nodes

_NONCE_ADD = sa.insert(_nonces)
_NONCE_USE = (
    sa.update(_nonces)
    .where(_nonces.c.nonce == sa.bindparam("wanted"))
    .values(used=_nonces.c.used + 1)
    .returning(_nonces.c.contract, _nonces.c.expires, _nonces.c.used)
)
_NONCE_OPEN = sa.select(sa.func.count()).select_from(_nonces).where(_nonces.c.used == sa.literal_column("0"))
_NONCE_PURGE = sa.delete(_nonces).where(_nonces.c.expires < sa.bindparam("now"))
_VERSION_FIND = sa.select(_contracts.c.version, _contracts.c.digest).where(
    _contracts.c.id == sa.bindparam("wanted")
)
_version_put = insert(_contracts)
_VERSION_PUT = _version_put.on_conflict_do_update(
    index_elements=[_contracts.c.id],
    set_={"version": _version_put.excluded.version, "digest": _version_put.excluded.digest},
)
_RUN_USED = sa.select(sa.func.max(_runs.c.ordinal)).where(_runs.c.contract == sa.bindparam("wanted"))
_RUN_FIND = sa.select(_runs).where(_runs.c.run == sa.bindparam("wanted"))
_RUN_ADD = sa.insert(_runs)
_RUN_CLOSE = sa.update(_runs).where(_runs.c.run == sa.bindparam("wanted")).values(receipt=sa.bindparam("at"))
_DISK_FIND = sa.select(_disks).where(_disks.c.manifest == sa.bindparam("wanted"))
_disk_put = insert(_disks)
_DISK_PUT = _disk_put.on_conflict_do_update(
    index_elements=[_disks.c.manifest],
    set_={"cipher": _disk_put.excluded.cipher, "sealed_key": _disk_put.excluded.sealed_key},
)
_SIZE = sa.select(sa.func.max(_leaves.c.idx))
_LEAF_ADD = sa.insert(_leaves)
_NODE_ADD = sa.insert(_nodes)
_LEAVES = (
    sa.select(_leaves.c.entry)
    .where(_leaves.c.idx >= sa.bindparam("first"), _leaves.c.idx < sa.bindparam("end"))
    .order_by(_leaves.c.idx)
)


class Transaction:
    """What one batch of works shares. `forget` undoes what is in memory after a rolled-back work."""

    def __init__(self, connection: sa.Connection, nodes: cache.NodeCache) -> None:
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

    def __init__(self, connection: sa.Connection) -> None:
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
        row = self._connection.execute(_NONCE_USE, {"wanted": nonce}).one_or_none()
        if row is None:
            return None
        before = row.used - 1
        if before == 0 and self._open is not None:
            self._open -= 1
        return IssuedNonce(contract=row.contract, expires=moment(row.expires), used=before > 0)

    def open_count(self) -> int:
        """How many nonces wait to be used. Counted once a batch, since counting reads them all."""
        if self._open is None:
            self._open = int(self._connection.execute(_NONCE_OPEN).scalar_one())
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

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._known: dict[str, KnownVersion | None] = {}

    def forget(self) -> None:
        """Read again."""
        self._known = {}

    def highest(self, contract_id: str) -> KnownVersion | None:
        """The highest version seen. Read once a batch, which nobody else can write during."""
        if contract_id not in self._known:
            row = self._connection.execute(_VERSION_FIND, {"wanted": contract_id}).one_or_none()
            found = None if row is None else KnownVersion(version=row.version, digest=row.digest)
            self._known[contract_id] = found
        return self._known[contract_id]

    def raise_to(self, contract_id: str, version: KnownVersion) -> None:
        """Remember a version as the highest."""
        if self.highest(contract_id) != version:
            row = {"id": contract_id, "version": version.version, "digest": version.digest}
            self._connection.execute(_VERSION_PUT, row)
            self._known[contract_id] = version


class Runs:
    """Implements `broker.storage.Runs`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._used: dict[str, int] = {}

    def forget(self) -> None:
        """Count again."""
        self._used = {}

    def used(self, contract: str) -> int:
        """How many runs were released under the contract. Counted once a batch."""
        if contract not in self._used:
            last = self._connection.execute(_RUN_USED, {"wanted": contract}).scalar_one()
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
        row = self._connection.execute(_RUN_FIND, {"wanted": run}).one_or_none()
        if row is None:
            return None
        return Run(
            run=row.run,
            contract=row.contract,
            signing_key=row.signing_key,
            release=row.release,
            receipt=row.receipt,
        )

    def close(self, run: str, *, receipt: int) -> None:
        """Remember where the run's receipt stands."""
        self._connection.execute(_RUN_CLOSE, {"wanted": run, "at": receipt})


class Disks:
    """Implements `broker.storage.Disks`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._known: dict[str, KnownDisk] = {}

    def forget(self) -> None:
        """Read again."""
        self._known = {}

    def find(self, manifest: str) -> KnownDisk | None:
        """The disk of that manifest digest. Read once a batch."""
        if manifest not in self._known:
            row = self._connection.execute(_DISK_FIND, {"wanted": manifest}).one_or_none()
            if row is None:
                return None
            self._known[manifest] = KnownDisk(
                manifest=row.manifest, cipher=row.cipher, sealed_key=row.sealed_key
            )
        return self._known[manifest]

    def put(self, disk: KnownDisk) -> None:
        """Remember a disk."""
        row = {"manifest": disk.manifest, "cipher": disk.cipher, "sealed_key": disk.sealed_key}
        self._connection.execute(_DISK_PUT, row)
        self._known[disk.manifest] = disk


class Ledger:
    """Implements `broker.storage.Ledger`. Nodes of this batch stay apart from the committed ones."""

    def __init__(self, connection: sa.Connection, nodes: cache.NodeCache) -> None:
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
            last = self._connection.execute(_SIZE).scalar_one()
            self._size = 0 if last is None else int(last) + 1
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
        self._connection.execute(
            _NODE_ADD, [{"level": level, "idx": at, "hash": value} for level, at, value in rows]
        )
        self._fresh.update({(level, at): value for level, at, value in rows})
        self._size = index + 1
        return index


def read_leaves(connection: sa.Connection, start: int, count: int) -> list[bytes]:
    """The bytes of leaves start … start+count-1; shorter at the end of the ledger."""
    rows = connection.execute(_LEAVES, {"first": start, "end": start + count})
    return [row.entry for row in rows]


def read_size(connection: sa.Connection) -> int:
    """How many leaves `connection` sees."""
    last = connection.execute(_SIZE).scalar_one()
    return 0 if last is None else int(last) + 1


def seconds(time: datetime) -> int:
    """Whole seconds since 1970."""
    return int(time.timestamp())


def moment(value: int) -> datetime:
    """The time of so many seconds since 1970."""
    return datetime.fromtimestamp(value, UTC)
