"""The store: durable, serial, honest about failure; and its ledger equals one computed by hand."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import sqlalchemy.dialects.sqlite

from strongroom.broker.ports import KnownDisk, KnownVersion, NonceUse, Run, Series
from strongroom.errors import Misuse, NotFound, Refused, Unavailable
from strongroom.ledger import merkle
from strongroom.store import schema, sqlite
from strongroom.store.statements import driver

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "broker.db"
    sqlite.create(made)
    return made


@pytest.fixture
def store(path):
    opened = sqlite.open_store(path)
    yield opened
    opened.close()


def write(store, work):
    return asyncio.run(store.write(work))


class Reference:
    """Node hashes of a list of leaves, computed straight from the definition."""

    def __init__(self, leaves):
        self.leaves = leaves

    def node(self, level, index):
        if level == 0:
            return merkle.leaf_hash(self.leaves[index])
        return merkle.node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 255, 256, 257, 600])
def test_roots_equal_the_definition_in_any_batching(path, size):
    leaves = [b"leaf %d" % at for at in range(size)]

    async def fill(store):
        for start in range(0, size, 77):
            part = leaves[start : start + 77]
            await asyncio.gather(
                *(store.write(lambda tx, one=one: tx.ledger.append(one, run_id="")) for one in part)
            )

    store = sqlite.open_store(path)
    asyncio.run(fill(store))
    assert merkle.root(store.ledger, size) == merkle.root(Reference(leaves), size)
    store.close()
    again = sqlite.open_store(path)  # nothing in memory now
    assert again.ledger.size() == size
    assert merkle.root(again.ledger, size) == merkle.root(Reference(leaves), size)
    assert list(again.ledger.leaves(0, size + 5)) == leaves
    again.close()


SERIES = Series(id="c", owners="o")


def test_a_failed_work_is_undone_alone_and_its_nodes_are_forgotten(store):
    def fails(tx):
        tx.ledger.append(b"ghost", run_id="")
        tx.ledger.append(b"ghost", run_id="")
        tx.contracts.raise_to(SERIES, KnownVersion(version=9, digest="x"))
        tx.nonces.use(b"n" * 32, expires=NOW, now=NOW - timedelta(seconds=9))
        tx.disks.put(KnownDisk(manifest_digest="m", cipher="none", sealed_key=None))
        tx.runs.add(
            Run(room="main", run_id="ghost", contract_digest="c", signing_key=b"", release=0, receipt=None)
        )
        raise Refused("no")

    async def all_of_them():
        return await asyncio.gather(
            store.write(lambda tx: tx.ledger.append(b"a", run_id="")),
            store.write(fails),
            store.write(lambda tx: tx.ledger.append(b"b", run_id="")),
            store.write(
                lambda tx: (
                    tx.contracts.highest(SERIES),
                    tx.nonces.used(b"n" * 32),
                    tx.disks.find("m"),
                    tx.runs.find("ghost"),
                    tx.runs.used("c", "main"),
                )
            ),
            return_exceptions=True,
        )

    results = asyncio.run(all_of_them())
    assert isinstance(results[1], Refused)
    assert results[3].value == (None, False, None, None, 0)
    assert merkle.root(store.ledger, 2) == merkle.root(Reference([b"a", b"b"]), 2)


def test_two_runs_cannot_take_the_same_place(store, path):
    """Were the count ever wrong, the database itself would refuse."""
    write(
        store,
        lambda tx: tx.runs.add(
            Run(room="main", run_id="a", contract_digest="c", signing_key=b"", release=0, receipt=None)
        ),
    )

    def cheat(tx):
        tx.runs._used["c", "main"] = 0
        tx.runs.add(
            Run(room="main", run_id="b", contract_digest="c", signing_key=b"", release=0, receipt=None)
        )

    with pytest.raises(Unavailable, match="IntegrityError"):
        write(store, cheat)
    assert store.runs_by_room() == [("c", "main", 1, 0)]


def use(store, nonce, *, expires, now):
    return write(store, lambda tx: tx.nonces.use(nonce, expires=expires, now=now)).value


def kept(store):
    with store._reading.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM used_nonces").scalar_one()


def test_rule_18_a_nonce_is_used_once_and_kept_until_it_ends(store, path):
    end = NOW + timedelta(seconds=9)
    assert use(store, b"1" * 32, expires=end, now=NOW) is NonceUse.FRESH
    assert use(store, b"1" * 32, expires=end, now=NOW) is NonceUse.USED
    assert use(store, b"2" * 32, expires=end, now=NOW) is NonceUse.FRESH
    assert store.read(lambda tx: tx.nonces.used(b"1" * 32))
    replica = sqlite.open_store(path)
    assert use(replica, b"1" * 32, expires=end, now=NOW) is NonceUse.USED
    replica.close()
    assert kept(store) == 2
    assert use(store, b"3" * 32, expires=end + timedelta(seconds=1), now=end) is NonceUse.FRESH
    assert kept(store) == 1  # what has ended takes no room


def test_rule_18_a_nonce_that_is_forgotten_has_ended_for_every_clock(store, path):
    """A clock set forward forgets it, and set back again does not make it good a second time."""
    end = NOW + timedelta(seconds=9)
    assert use(store, b"1" * 32, expires=end, now=NOW) is NonceUse.FRESH
    write(store, lambda tx: tx.clock.reach(NOW + timedelta(days=1)))
    assert kept(store) == 0
    for again in (store, sqlite.open_store(path)):
        assert use(again, b"1" * 32, expires=end, now=NOW) is NonceUse.ENDED
        assert again.latest_time() == int((NOW + timedelta(days=1)).timestamp())
    again.close()


def test_nothing_is_written_by_who_only_reads(store):
    with pytest.raises(Unavailable, match="the database can not be written"):
        store.read(lambda tx: tx.nonces.use(b"1" * 32, expires=NOW + timedelta(seconds=1), now=NOW))


def test_a_database_of_the_first_version_keeps_its_used_nonces_and_its_time(tmp_path):
    path = tmp_path / "broker.db"
    old = sqlite3.connect(path)
    end = int(NOW.timestamp())
    old.execute(
        "CREATE TABLE nonces (nonce BLOB PRIMARY KEY, contract TEXT NOT NULL, expires INTEGER NOT NULL, "
        "used INTEGER DEFAULT 0 NOT NULL) WITHOUT ROWID"
    )
    old.executemany(
        "INSERT INTO nonces VALUES (?, 'c', ?, ?)", [(b"1" * 32, end, 0), (b"2" * 32, end - 5, 2)]
    )
    old.execute(
        "CREATE TABLE contracts (id TEXT NOT NULL, owners TEXT NOT NULL, version INTEGER NOT NULL, "
        "digest TEXT NOT NULL, PRIMARY KEY (id, owners))"
    )
    old.execute("INSERT INTO contracts VALUES ('id', 'owners', 3, 'digest')")
    old.execute(
        "CREATE TABLE runs (run TEXT NOT NULL PRIMARY KEY, contract TEXT NOT NULL, ordinal INTEGER NOT NULL, "
        "signing_key BLOB NOT NULL, release INTEGER NOT NULL, receipt INTEGER, UNIQUE (contract, ordinal))"
    )
    old.execute("INSERT INTO runs VALUES ('run-a', 'digest', 1, x'00', 7, 8)")
    for table in ("disks", "leaves", "nodes"):
        ddl = sa.schema.CreateTable(schema.metadata.tables[table])
        old.execute(str(ddl.compile(dialect=sa.dialects.sqlite.dialect())))
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    store = sqlite.open_store(path)
    assert [store.read(lambda tx, one=one: tx.nonces.used(one * 32)) for one in (b"1", b"2")] == [False, True]
    assert store.latest_time() == end - 120
    # Rooms had one role, `room`, when they had no names.
    assert store.runs_by_room() == [("digest", "room", 1, 1)]
    assert store.read(lambda tx: tx.runs.find("run-a")).release == 7
    # Of its contracts nobody remembered how many runs they permit, and none was withdrawn.
    series, version = Series(id="id", owners="owners"), KnownVersion(version=3, digest="digest")
    assert store.read(lambda tx: tx.contracts.highest(series)) == version
    write(store, lambda tx: tx.contracts.raise_to(series, KnownVersion(version=3, digest="digest", runs=4)))
    assert store.known_contracts() == [("id", KnownVersion(version=3, digest="digest", runs=4))]
    store.close()


def test_a_withdrawal_is_never_undone(store):
    known = KnownVersion(version=1, digest="d", runs=1)
    write(store, lambda tx: tx.contracts.withdraw(SERIES, known))
    write(store, lambda tx: tx.contracts.raise_to(SERIES, KnownVersion(version=2, digest="e", runs=2)))
    found = store.read(lambda tx: tx.contracts.highest(SERIES))
    assert found == KnownVersion(version=2, digest="e", runs=2, withdrawn=True)
    assert store.read(lambda tx: tx.contracts.of_digest("e")) == SERIES
    assert store.read(lambda tx: tx.contracts.of_digest("d")) is None


def test_a_disk_that_is_removed_is_gone_and_a_failing_work_removes_none(store):
    disk = KnownDisk(manifest_digest="m", cipher="c", sealed_key=b"k")
    write(store, lambda tx: tx.disks.put(disk))

    def failing(tx):
        assert tx.disks.find("m") == disk
        tx.disks.remove("m")
        assert tx.disks.find("m") is None
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        write(store, failing)
    assert store.known_disks() == [disk]
    write(store, lambda tx: tx.disks.remove("m"))
    assert store.known_disks() == []


def test_rule_56_sixty_four_writers_never_see_a_locked_database(path):
    stores = [sqlite.open_store(path, busy_seconds=60) for _ in range(4)]
    failures = []

    def one(store):
        async def several():
            for _ in range(5):
                await store.write(lambda tx: tx.ledger.append(os.urandom(100), run_id=""))

        try:
            asyncio.run(several())
        except Unavailable as cause:
            failures.append(cause)

    threads = [threading.Thread(target=one, args=(stores[at % 4],)) for at in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stores[0].ledger.size() == 320
    leaves = list(stores[1].ledger.leaves(0, 320))
    for store in stores:
        assert merkle.root(store.ledger, 320) == merkle.root(Reference(leaves), 320)
        store.close()


@pytest.mark.slow("eight programs write into one database")
def test_rule_56_eight_processes_of_eight_writers_never_see_a_locked_database(path):
    program = (
        "import asyncio, sys, pathlib\n"
        "from strongroom.store import sqlite\n"
        "store = sqlite.open_store(pathlib.Path(sys.argv[1]), busy_seconds=120)\n"
        "async def one():\n"
        "    for _ in range(3):\n"
        "        await store.write(lambda tx: tx.ledger.append(b'x', run_id=''))\n"
        "async def main():\n"
        "    await asyncio.gather(*(one() for _ in range(8)))\n"
        "asyncio.run(main())\n"
        "store.close()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(8)]
    assert [one.wait(120) for one in processes] == [0] * 8
    store = sqlite.open_store(path)
    assert store.ledger.size() == 192
    assert merkle.root(store.ledger, 192) == merkle.root(Reference([b"x"] * 192), 192)
    store.close()


def test_a_database_locked_by_somebody_else_is_unavailable_not_an_acceptance(path):
    store = sqlite.open_store(path, busy_seconds=0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught:
        write(store, lambda tx: tx.ledger.append(b"x", run_id=""))
    assert caught.value.code == "store-busy"
    assert store.failing is not None
    other.execute("ROLLBACK")
    other.close()
    write(store, lambda tx: tx.ledger.append(b"x", run_id=""))
    assert store.failing is None
    store.close()


def test_a_full_database_is_unavailable_and_stores_nothing(store):
    write(store, lambda tx: tx.ledger.append(b"first", run_id=""))
    connection = store._writer._connection
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    connection.rollback()
    with pytest.raises(Unavailable) as caught:
        write(store, lambda tx: tx.ledger.append(bytes(1 << 20), run_id=""))
    assert caught.value.code == "disk-full"
    assert store.ledger.size() == 1
    connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    connection.rollback()
    assert write(store, lambda tx: tx.ledger.append(b"second", run_id="")).value == 1
    assert merkle.root(store.ledger, 2) == merkle.root(Reference([b"first", b"second"]), 2)


def test_a_damaged_database_is_unavailable_with_a_hint(path):
    store = sqlite.open_store(path)
    for _ in range(40):
        write(store, lambda tx: tx.ledger.append(bytes(4000), run_id=""))
    store.close()
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = b"\xa5" * 200
    path.write_bytes(data)

    def use():
        damaged = sqlite.open_store(path)
        try:
            write(damaged, lambda tx: tx.ledger.append(b"x", run_id=""))
        finally:
            damaged.close()

    with pytest.raises(Unavailable) as caught:
        use()
    assert caught.value.code == "store-corrupt"
    assert caught.value.hint


def test_what_is_no_database_is_said_to_be_none(tmp_path):
    file = tmp_path / "broker.db"
    file.write_bytes(b"not a database at all" * 100)
    with pytest.raises(Unavailable) as caught:
        sqlite.open_store(file)
    assert caught.value.code == "store-corrupt"


def test_a_missing_database_is_never_made_anew(tmp_path):
    with pytest.raises(NotFound, match="no broker database"):
        sqlite.open_store(tmp_path / "broker.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_a_newer_version_is_refused(path):
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    raw.close()
    newer, known = len(schema.MIGRATIONS) + 1, len(schema.MIGRATIONS)
    with pytest.raises(Misuse, match=f"version {newer}, this program knows up to {known}"):
        sqlite.open_store(path)


def test_every_commit_is_synced_and_deleted_secrets_are_overwritten(store):
    write(store, lambda tx: None)
    asked = {
        name: driver(store._writer._connection).execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "secure_delete", "trusted_schema")
    }
    assert asked == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "trusted_schema": 0}


def test_a_closed_store_says_so(path):
    store = sqlite.open_store(path)
    store.close()
    with pytest.raises(Unavailable, match="broker store: closed"):
        write(store, lambda tx: None)


def test_a_withdrawn_request_does_not_stop_the_writer(store):
    gate = threading.Event()

    async def withdraw():
        first = asyncio.ensure_future(store.write(lambda tx: gate.wait(60)))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(store.write(lambda tx: tx.ledger.append(b"gone", run_id="")))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.set()
        await first
        return await store.write(lambda tx: tx.ledger.append(b"kept", run_id=""))

    assert asyncio.run(withdraw()).value == 0
    assert list(store.ledger.leaves(0, 9)) == [b"kept"]


def test_a_defect_in_a_work_reaches_its_caller_alone(store):
    def broken(_tx):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(store, broken)
    assert write(store, lambda tx: tx.ledger.append(b"x", run_id="")).value == 0


def batches(store, monkeypatch):
    """How many works each commit had."""
    sizes, commit = [], store._writer._commit
    monkeypatch.setattr(store._writer, "_commit", lambda batch: sizes.append(len(batch)) or commit(batch))
    return sizes


async def one_after_the_other(store, count):
    async def late(at):
        await asyncio.sleep(0.02 * at)
        return await store.write(lambda tx: tx.ledger.append(b"%d" % at, run_id=""))

    return await asyncio.gather(*(late(at) for at in range(count)))


def test_a_batch_waits_for_works_that_are_on_their_way_and_no_longer(store, monkeypatch):
    from strongroom.store import writer

    monkeypatch.setattr(writer, "LOOKS", 30_000)
    sizes, coming, submitted = batches(store, monkeypatch), [True], []
    submit = store._writer.submit
    monkeypatch.setattr(store._writer, "submit", lambda work: submitted.append(1) or submit(work))
    store.gather_while(lambda: coming[0])

    async def main():
        first = asyncio.ensure_future(one_after_the_other(store, 1))
        await asyncio.sleep(0.05)
        others = asyncio.ensure_future(one_after_the_other(store, 3))
        while len(submitted) < 4:  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0.01)
        assert sizes == []
        coming[0] = False
        await asyncio.gather(first, others)

    asyncio.run(main())
    assert sizes == [4]
    asyncio.run(one_after_the_other(store, 2))
    assert sum(sizes) == 6
    assert len(sizes) > 1


def test_a_batch_waits_for_a_moment_at_most_and_not_at_all_once_it_is_full_or_the_store_closes(
    store, monkeypatch
):
    from strongroom.store import writer

    sizes = batches(store, monkeypatch)
    store.gather_while(lambda: True)
    asyncio.run(one_after_the_other(store, 1))  # nobody else ever comes
    assert sizes == [1]
    monkeypatch.setattr(writer, "LOOKS", 300_000)
    monkeypatch.setattr(writer, "BATCH", 3)
    asyncio.run(one_after_the_other(store, 3))
    assert sizes == [1, 3]

    async def closed():
        waiting = asyncio.ensure_future(store.write(lambda tx: tx.ledger.append(b"last", run_id="")))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(store._writer.close)
        return await waiting

    assert asyncio.run(closed()).size == 5


def test_a_database_from_before_pauses_has_none_and_its_runs_have_one_receipt_each(path):
    store = sqlite.open_store(path)
    run = Run(run_id="r", contract_digest="c", room="main", signing_key=b"k", release=0, receipt=None)
    write(store, lambda tx: tx.runs.add(run))
    write(store, lambda tx: tx.runs.add(replace(run, run_id="s")))
    write(store, lambda tx: tx.contracts.raise_to(SERIES, KnownVersion(version=1, digest="c")))
    store.close()
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("UPDATE runs SET receipt = 7 WHERE run = 's'")
    for table, column in (("contracts", "paused"), ("runs", "sequence"), ("runs", "latest")):
        old.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    old.execute("PRAGMA user_version = 7")
    old.close()
    store = sqlite.open_store(path)
    assert store.read(lambda tx: tx.runs.find("r")) == run
    assert store.read(lambda tx: tx.runs.find("s")) == replace(
        run, run_id="s", receipt=7, sequence=1, latest=7
    )
    assert store.read(lambda tx: tx.contracts.highest(SERIES)).paused == frozenset()
    store.close()
