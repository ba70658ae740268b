"""The tables of a broker's database, and how an older database becomes a newer one.

Times are whole seconds since 1970. `MIGRATIONS[n]` leads from version n to n+1; the version is kept
in SQLite's own `user_version`. A database of a newer version is refused, never guessed at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from strongroom.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

metadata = sa.MetaData()

# Challenges are not stored when they are given out; those that were answered are, until they end.
used_nonces = sa.Table(
    "used_nonces",
    metadata,
    sa.Column("nonce", sa.LargeBinary, primary_key=True),
    sa.Column("expires", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("used_nonces_by_expiry", used_nonces.c.expires)

# One row: the latest time that any process of this database has known.
clock = sa.Table(
    "clock",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("reached", sa.Integer, nullable=False),
)

contracts = sa.Table(
    "contracts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owners", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    # How many runs that version permits; NULL where it was last seen by a program that did not remember it.
    sa.Column("runs", sa.Integer),
    # 1: its owner has withdrawn it, every version. It never becomes 0 again.
    sa.Column("withdrawn", sa.Integer, nullable=False, server_default=sa.text("0")),
    # Names of rooms that its owner has paused, sorted, with a space between; `*`: all of them.
    sa.Column("paused", sa.Text, nullable=False, server_default=sa.text("''")),
)

# `ordinal` counts the runs of a room of a contract from 1. Being unique, it is both the count and the proof
# that no two runs took the same place.
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("contract", sa.Text, nullable=False),
    sa.Column("room", sa.Text, nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("signing_key", sa.LargeBinary, nullable=False),
    sa.Column("release", sa.Integer, nullable=False),
    # Of the last receipt; NULL while the run goes on.
    sa.Column("receipt", sa.Integer),
    # The highest number of a receipt, and where that one stands.
    sa.Column("sequence", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("latest", sa.Integer),
    sa.UniqueConstraint("contract", "room", "ordinal"),
)

disks = sa.Table(
    "disks",
    metadata,
    sa.Column("manifest", sa.Text, primary_key=True),
    sa.Column("cipher", sa.Text, nullable=False),
    sa.Column("sealed_key", sa.LargeBinary),
)

leaves = sa.Table(
    "leaves",
    metadata,
    sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
)
sa.Index("leaves_by_run", leaves.c.run, sqlite_where=leaves.c.run != "")

nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True),
    sa.Column("idx", sa.Integer, primary_key=True),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)


# At most one row: the broker's file after a rotation, until it is in its place in the folder.
staged = sa.Table(
    "staged",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("settings", sa.LargeBinary, nullable=False),
)


# One row: the keys that the database is of (`Settings.keys`), so that a broker's file of other keys beside it is noticed.
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("told", sa.Text, nullable=False),
)


# Certificates of rooms and of their contracts' issuers, until they end. Serial numbers have 16 bytes, and those of leaves
# no other leaf of this broker.
issuers = sa.Table(
    "issuers",
    metadata,
    sa.Column("contract", sa.Text, primary_key=True),
    sa.Column("root", sa.Text, nullable=False),
    sa.Column("certificate", sa.LargeBinary, nullable=False),
    sa.Column("serial", sa.LargeBinary, nullable=False),
    sa.Column("expires", sa.Integer, nullable=False),
    sa.Column("revoked", sa.Integer),
    sqlite_with_rowid=False,
)
sa.Index("issuers_by_root", issuers.c.root)

certificates = sa.Table(
    "certificates",
    metadata,
    sa.Column("serial", sa.LargeBinary, primary_key=True),
    sa.Column("contract", sa.Text, nullable=False),
    sa.Column("room", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("expires", sa.Integer, nullable=False),
    sa.Column("revoked", sa.Integer),
    sqlite_with_rowid=False,
)
sa.Index("certificates_by_contract", certificates.c.contract, certificates.c.room)
sa.Index("certificates_by_end", certificates.c.expires)


def _first(connection: sa.Connection) -> None:
    metadata.create_all(connection, tables=[disks, leaves, nodes])
    connection.exec_driver_sql(
        "CREATE TABLE runs (run TEXT NOT NULL PRIMARY KEY, contract TEXT NOT NULL, ordinal INTEGER NOT NULL, "
        "signing_key BLOB NOT NULL, release INTEGER NOT NULL, receipt INTEGER, UNIQUE (contract, ordinal))"
    )
    connection.exec_driver_sql(
        "CREATE TABLE contracts (id TEXT NOT NULL, owners TEXT NOT NULL, version INTEGER NOT NULL, "
        "digest TEXT NOT NULL, PRIMARY KEY (id, owners))"
    )
    connection.exec_driver_sql(
        "CREATE TABLE nonces (nonce BLOB PRIMARY KEY, contract TEXT NOT NULL, expires INTEGER NOT NULL, "
        "used INTEGER DEFAULT 0 NOT NULL) WITHOUT ROWID"
    )


def _second(connection: sa.Connection) -> None:
    """Nonces carry their own proof (docs/decisions/0027-nonces-prove-themselves.md): only used nonces are kept. Nonces from before that are open are refused."""
    metadata.create_all(connection, tables=[used_nonces, clock])
    connection.exec_driver_sql(
        "INSERT INTO used_nonces (nonce, expires) SELECT nonce, expires FROM nonces WHERE used > 0"
    )
    # A nonce was given out at most two minutes before it ends: so late it has been at least.
    connection.exec_driver_sql(
        "INSERT INTO clock (one, reached) SELECT 1, coalesce(max(expires) - 120, 0) FROM nonces"
    )
    connection.exec_driver_sql("DROP TABLE nonces")


def _third(connection: sa.Connection) -> None:
    """What `broker status` tells of a contract, and whether it was withdrawn."""
    connection.exec_driver_sql("ALTER TABLE contracts ADD COLUMN runs INTEGER")
    connection.exec_driver_sql("ALTER TABLE contracts ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0")


def _fourth(connection: sa.Connection) -> None:
    metadata.create_all(connection, tables=[staged])


def _fifth(connection: sa.Connection) -> None:
    """A table of whose keys the database is for: the first broker's file that is opened beside it says that."""
    metadata.create_all(connection, tables=[keys])


def _sixth(connection: sa.Connection) -> None:
    """Runs are counted by room. Until then every room was called `room`."""
    connection.exec_driver_sql("ALTER TABLE runs RENAME TO runs_of_contracts")
    connection.exec_driver_sql(
        "CREATE TABLE runs (run TEXT NOT NULL PRIMARY KEY, contract TEXT NOT NULL, room TEXT NOT NULL, ordinal INTEGER NOT NULL, "
        "signing_key BLOB NOT NULL, release INTEGER NOT NULL, receipt INTEGER, UNIQUE (contract, room, ordinal))"
    )
    connection.exec_driver_sql(
        "INSERT INTO runs (run, contract, room, ordinal, signing_key, release, receipt) "
        "SELECT run, contract, 'room', ordinal, signing_key, release, receipt FROM runs_of_contracts"
    )
    connection.exec_driver_sql("DROP TABLE runs_of_contracts")


def _certificates(connection: sa.Connection) -> None:
    """Which certificates were issued, and which of them revoked. Those from before are not known, and end within a day."""
    metadata.create_all(connection, tables=[issuers, certificates])


def _lives(connection: sa.Connection) -> None:
    """Pauses, and runs with several receipts. Until then a run had one, which ended it."""
    connection.exec_driver_sql("ALTER TABLE contracts ADD COLUMN paused TEXT NOT NULL DEFAULT ''")
    connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0")
    connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN latest INTEGER")
    connection.exec_driver_sql("UPDATE runs SET sequence = 1, latest = receipt WHERE receipt IS NOT NULL")


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (
    _first,
    _second,
    _third,
    _fourth,
    _fifth,
    _sixth,
    _certificates,
    _lives,
)


def migrate(connection: sa.Connection) -> None:
    """Bring the database to the newest version, within the caller's transaction."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version > len(MIGRATIONS):
        raise Misuse(
            f"broker database: version {version}, this program knows up to {len(MIGRATIONS)}",
            code="newer-store",
            hint="run the newer Strongroom that wrote it",
        )
    for step in MIGRATIONS[version:]:
        step(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {len(MIGRATIONS)}")
