"""What is kept: while it counts, by its vendor's word; by one fetch for all; never older than seen; whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from strongroom.errors import Malformed, NotFound, Refused, Unavailable
from strongroom.fetch.endorsements import amd, disk_cache, nvidia, rollback, statement, validate
from strongroom.fetch.endorsements.library import CURRENT, OLD, PAST, UNTRUSTED
from strongroom.fetch.endorsements.statement import Mark, Statement
from strongroom.fetch.http.client import Client
from strongroom_testing.vendors.vendor_services import RIM_ID, Reply, revocation_list, serve
from tests.unit.fetch.vendors import BOUND, DAY, NOW, chip, fetcher, intel, library


@pytest.fixture
def services(tmp_path):
    with serve(tmp_path, now=NOW, amd=(chip(),), intel=intel()) as made:
        yield made


@pytest.fixture
def quote():
    return intel().evidence(BOUND)


# While it counts


def test_what_is_kept_is_served_without_asking(tmp_path, services, quote):
    first = fetcher(tmp_path, services).endorse(quote, now=NOW)
    asked = len(services.asked)
    assert fetcher(tmp_path, services).endorse(quote, now=NOW) == first
    assert fetcher(tmp_path, services, offline=True).endorse(quote, now=NOW) == first
    assert len(services.asked) == asked


def test_rule_03_no_limit_shorter_than_the_vendor_s(tmp_path, services, quote):
    """Issued a day ago for 30 days: served on day 29 to the second, fetched anew the second after."""
    made = fetcher(tmp_path, services)
    made.endorse(quote, now=NOW)
    asked = len(services.asked)
    made.endorse(quote, now=NOW + 29 * DAY)
    assert len(services.asked) == asked
    services.again(
        tcb={"nextUpdate": "2099-01-01T00:00:00Z"}, identity={"nextUpdate": "2099-01-01T00:00:00Z"}
    )
    made.endorse(quote, now=NOW + 29 * DAY + DAY / 86400)
    assert [path.split("?")[0] for path in services.asked[asked:]] == [
        "/tdx/certification/v4/tcb",
        "/tdx/certification/v4/qe/identity",
    ]


def test_what_is_past_its_end_is_never_served(tmp_path, services, quote):
    fetcher(tmp_path, services).endorse(quote, now=NOW)
    later = NOW + 29 * DAY + DAY / 86400
    with pytest.raises(Unavailable) as failure:
        fetcher(tmp_path, services, offline=True).endorse(quote, now=later)
    assert failure.value.code == "offline"
    assert "ended" in failure.value.message
    services.spoil("/", lambda _: Reply(status=500))
    with pytest.raises(Unavailable, match=r"certification/v4/tcb\?.*: HTTP 500"):
        fetcher(tmp_path, services).endorse(quote, now=later)


def test_offline_asks_nobody_and_says_what_to_do(tmp_path, services, quote):
    with pytest.raises(Unavailable) as failure:
        fetcher(tmp_path, services, offline=True).endorse(quote, now=NOW)
    assert failure.value.code == "offline"
    assert "import" in failure.value.hint
    assert services.asked == []


def test_refresh_asks_and_keeps_what_is_new(tmp_path, services, quote):
    fetcher(tmp_path, services).endorse(quote, now=NOW)
    services.again(tcb={"tcbEvaluationDataNumber": 18})
    new = fetcher(tmp_path, services, refresh=True).endorse(quote, now=NOW)
    assert b'"tcbEvaluationDataNumber":18' in new.parts["tcb-info"]
    assert (
        fetcher(tmp_path, services, offline=True).endorse(quote, now=NOW).parts["tcb-info"]
        == new.parts["tcb-info"]
    )


def test_a_failed_refresh_leaves_what_is_kept(tmp_path, services, quote):
    kept = fetcher(tmp_path, services).endorse(quote, now=NOW)
    services.spoil("/", lambda _: Reply(status=500))
    with pytest.raises(Unavailable, match=r"certification/v4/tcb\?.*: HTTP 500"):
        fetcher(tmp_path, services, refresh=True).endorse(quote, now=NOW)
    assert fetcher(tmp_path, services).endorse(quote, now=NOW) == kept


def test_what_another_root_signed_is_not_served(tmp_path, services, quote):
    fetcher(tmp_path, services).endorse(quote, now=NOW)
    other = library(tmp_path, roots={"sha256:" + "0" * 64}, offline=True)
    assert {one.state for one in other.listed(now=NOW)} == {UNTRUSTED}
    with pytest.raises(Unavailable, match="qe/tdx/standard: not kept, and this is offline"):
        other.get(services.vendors.pcs.qe_identity("tdx", "standard"), now=NOW)


def test_the_list_tells_states(tmp_path, services, quote):
    made = fetcher(tmp_path, services)
    made.endorse(quote, now=NOW)
    assert {one.state for one in made.library.listed(now=NOW)} == {CURRENT}
    states = {one.statement.key: one.state for one in made.library.listed(now=NOW + 29 * DAY + DAY / 24)}
    assert states["intel/tcb/tdx/00906ed50000/standard"] == PAST
    assert states["intel/crl/root"] == CURRENT
    (mark,) = next(
        one.terms.marks for one in made.library.listed(now=NOW) if one.statement.key == "intel/crl/root"
    )
    made.library.marks.raise_to((replace(mark, number=mark.number + 1),))
    assert {one.statement.key for one in made.library.listed(now=NOW) if one.state == OLD} == {
        "intel/crl/root"
    }


def test_what_is_older_than_seen_is_not_served_from_what_is_kept(tmp_path, services, quote):
    made = fetcher(tmp_path, services)
    made.endorse(quote, now=NOW)
    (mark,) = next(
        one.terms.marks for one in made.library.listed(now=NOW) if one.statement.key == "intel/crl/root"
    )
    made.library.marks.raise_to((replace(mark, number=5),))
    with pytest.raises(Unavailable, match="intel/crl/root: not kept, and this is offline"):
        fetcher(tmp_path, services, offline=True).endorse(quote, now=NOW)
    with pytest.raises(Refused, match="number 1, but 5 was seen"):
        fetcher(tmp_path, services).endorse(quote, now=NOW)
    services.intel_parts["sgx"]["root-ca-crl"] = revocation_list(intel().root, number=5, now=NOW)
    fetcher(tmp_path, services).endorse(quote, now=NOW)


# On disk


def test_files_are_private_and_hold_the_exact_bytes(tmp_path, services, quote):
    found = fetcher(tmp_path, services).endorse(quote, now=NOW)
    folder = tmp_path / "kept"
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    kept = disk_cache.Shelf(folder=folder).get("intel/tcb/tdx/00906ed50000/standard")
    assert kept.parts["tcb-info"] == found.parts["tcb-info"] == services.intel_parts["tdx"]["tcb-info"]
    assert kept.fetched == NOW


@pytest.mark.parametrize(
    "spoil", ["empty", "cut", "flip", "junk", "huge", "folder", "link", "other-key", "pipe"]
)
def test_damaged_files_count_as_absent(tmp_path, services, quote, spoil):
    made = fetcher(tmp_path, services)
    good = made.endorse(quote, now=NOW)
    asked = len(services.asked)
    other = made.library.shelf.get("intel/qe/tdx/standard").encode()
    for path in (tmp_path / "kept").glob("*.json"):
        data = path.read_bytes()
        path.unlink()
        match spoil:
            case "empty":
                path.write_bytes(b"")
            case "cut":
                path.write_bytes(data[:-1])
            case "flip":
                at = data.index(b'"parts"') + 60
                path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            case "junk":
                path.write_bytes(os.urandom(1000))
            case "huge":
                path.write_bytes(b"[" * (statement.MAX_BYTES + 1))
            case "folder":
                path.mkdir()
            case "link":
                (tmp_path / "elsewhere").write_bytes(data)
                path.symlink_to(tmp_path / "elsewhere")
            case "other-key":
                path.write_bytes(other)
            case "pipe":
                os.mkfifo(path)
    if spoil == "folder":  # the one thing that a file cannot replace
        with pytest.raises(IsADirectoryError):
            made.endorse(quote, now=NOW)
        return
    assert made.endorse(quote, now=NOW) == good
    assert len(services.asked) >= asked + (3 if spoil in ("other-key", "flip") else 4)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    disk_cache.write(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        disk_cache.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def one_statement(number, size=1000):
    return Statement(key=f"issuer/{number:064x}", parts={"certificate": os.urandom(size)}, fetched=NOW)


def test_the_shelf_is_bounded_and_the_oldest_go_first(tmp_path):
    small = disk_cache.Shelf(folder=tmp_path / "kept", max_total=20_000, max_files=5)
    for number in range(9):
        small.put(one_statement(number))
        time.sleep(0.01)
    assert small.everything() == tuple(one_statement(number).key for number in range(4, 9))
    small.put(one_statement(99, size=14_000))
    assert sum(path.stat().st_size for path in (tmp_path / "kept").glob("*.json")) <= 20_000
    assert one_statement(99).key in small.everything()


def test_left_overs_of_a_crash_are_tidied(tmp_path):
    one = disk_cache.Shelf(folder=tmp_path)
    stale, fresh = tmp_path / "a.json.0.part", tmp_path / "b.json.1.part"
    for path in (stale, fresh):
        path.write_bytes(b"x")
    os.utime(stale, (1, 1))
    one.put(one_statement(1))
    assert not stale.exists()
    assert fresh.exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{}", b'{"seen":{"x":"-1"}}', b'{"seen":{"x":1}}', b'{"seen":{"x":"01"}}', b'{"seen":[]}'],
)
def test_a_damaged_memory_is_refused_not_forgotten(tmp_path, services, quote, data):
    fetcher(tmp_path, services).endorse(quote, now=NOW)
    (tmp_path / "kept" / "seen.marks").write_bytes(data)
    for options in ({}, {"refresh": True}, {"offline": True}):
        with pytest.raises(Malformed) as failure:
            fetcher(tmp_path, services, **options).endorse(quote, now=NOW)
        assert failure.value.code == "marks-damaged"
        assert "remove it" in failure.value.hint


def test_marks_only_grow_whoever_raises_them(tmp_path):
    made = rollback.Marks(folder=tmp_path)
    big = 1 << 150

    def raising(start):
        for number in range(start, 400, 7):
            try:
                made.raise_to((Mark(name="x", number=number), Mark(name=f"own-{start}", number=number)))
            except Refused:
                pass

    threads = [threading.Thread(target=raising, args=(start,)) for start in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.seen()["x"] == 399
    made.raise_to((Mark(name="x", number=big),))
    assert made.seen()["x"] == big
    with pytest.raises(Refused, match=f"number {big - 1}, but {big} was seen"):
        made.raise_to((Mark(name="y", number=1), Mark(name="x", number=big - 1)))
    assert "y" not in made.seen()


def test_marks_are_durable_before_the_statement_is_kept(tmp_path, services, quote, monkeypatch):
    made = fetcher(tmp_path, services)
    order = []
    real = disk_cache.write

    def noting(path, data):
        order.append(path.suffix)
        real(path, data)

    monkeypatch.setattr(disk_cache, "write", noting)
    made.library.get(services.vendors.pcs.qe_identity("tdx", "standard"), now=NOW)
    assert order == [".marks", ".json"]


# One fetch for all


def slow(good):
    time.sleep(1)  # until all who ask are there, on a machine with other work too
    return good


def together(count, work):
    barrier = threading.Barrier(count)
    out = []

    def one():
        barrier.wait()
        try:
            out.append(work())
        except Exception as cause:  # noqa: BLE001
            out.append(cause)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def test_rule_59_a_stampede_of_threads_makes_one_fetch(tmp_path, services, quote):
    services.spoil("/", slow)
    made = fetcher(tmp_path, services)
    found = together(32, lambda: made.endorse(quote, now=NOW))
    assert all(one == found[0] for one in found), found[:3]
    assert len(services.asked) == 4


def test_rule_59_what_comes_between_the_look_and_the_wait_is_not_asked_for_again(
    tmp_path, services, monkeypatch
):
    """A thread that found nothing, and was overtaken by one that fetched and kept it, asked once more."""
    made = fetcher(tmp_path, services).library
    ask = services.vendors.pcs.qe_identity("tdx", "standard")
    look = type(made)._kept
    overtaken = []

    def slow_look(self, key, now):
        kept = look(self, key, now)
        if not overtaken:
            overtaken.append(True)
            self.get(ask, now=now)
        return kept

    monkeypatch.setattr(type(made), "_kept", slow_look)
    assert made.get(ask, now=NOW).key == ask.key
    assert len(services.asked) == 1


def test_rule_59_a_stampede_with_refresh_makes_one_fetch(tmp_path, services, quote):
    made = fetcher(tmp_path, services)
    made.endorse(quote, now=NOW)
    services.asked.clear()
    services.spoil("/", slow)
    ask = services.vendors.pcs.qe_identity("tdx", "standard")
    together(16, lambda: made.library.get(ask, now=NOW, refresh=True))
    assert len(services.asked) == 1


def test_rule_59_a_stampede_shares_a_failure_too(tmp_path, services, quote):
    def failing(_):
        time.sleep(1)
        return Reply(status=500)

    services.spoil("/tcb", failing)
    made = fetcher(tmp_path, services)
    found = together(16, lambda: made.endorse(quote, now=NOW))
    assert {type(one) for one in found} == {Unavailable}
    assert len(services.asked) <= 2
    services.heal()
    made.endorse(quote, now=NOW)  # a failure is not remembered beyond those who waited for it


def test_rule_59_a_stampede_of_libraries_makes_one_fetch(tmp_path, services, quote):
    """As of several processes: nothing but the folder is shared."""
    services.spoil("/", slow)
    found = together(8, lambda: fetcher(tmp_path, services).endorse(quote, now=NOW))
    assert all(one == found[0] for one in found), found[:3]
    assert len(services.asked) == 4


WORKER = """
import sys
from datetime import datetime
from pathlib import Path
from strongroom.fetch.endorsements import amd
from strongroom.fetch.endorsements.library import Library
from strongroom.fetch.endorsements.rollback import Marks
from strongroom.fetch.endorsements.disk_cache import Shelf
from strongroom.fetch.http.client import Client, Service
folder, base, ca, root, now = sys.argv[1:]
made = Library(shelf=Shelf(folder=Path(folder)), marks=Marks(folder=Path(folder)), client=Client(), roots=frozenset({root}))
print("ready", flush=True)
sys.stdin.readline()
one = made.get(amd.chain(Service(base=base, private=True, ca=Path(ca)), "vcek", "Milan"), now=datetime.fromisoformat(now))
print(len(one.parts["issuers"]), flush=True)
"""


def test_rule_59_a_stampede_of_processes_makes_one_fetch(tmp_path, services):
    services.spoil("/", lambda good: (time.sleep(2), good)[1])
    arguments = [str(tmp_path / "kept"), services.base, str(services.ca), chip().root, NOW.isoformat()]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    told = {worker.communicate(timeout=120)[0] for worker in workers}
    assert told == {f"{len(services.amd_parts()['issuers'])}\n"}
    assert len(services.asked) == 1


def test_rule_59_outbound_fetches_have_a_budget(tmp_path, services):
    made = library(tmp_path, a_minute=3)
    for number in range(3):
        with pytest.raises(NotFound):
            made.get(nvidia.rim(services.service, f"NV_{number}"), now=NOW)
    with pytest.raises(Unavailable) as failure:
        made.get(nvidia.rim(services.service, RIM_ID), now=NOW)
    assert failure.value.code == "fetch-budget"
    assert len(services.asked) == 3


def test_waiting_for_another_s_fetch_has_an_end(tmp_path):
    one = disk_cache.Shelf(folder=tmp_path)
    with one.alone("x", seconds=1), pytest.raises(Unavailable) as failure, one.alone("x", seconds=0.1):
        pass
    assert failure.value.code == "fetch-busy"


def test_a_slow_service_ends_with_the_deadline(tmp_path, services):
    def trickle():
        while True:
            time.sleep(0.05)
            yield b"H"

    services.spoil("cert_chain", lambda _: Reply(raw=trickle()))
    made = library(tmp_path, client=Client(read_seconds=1, total_seconds=0.5))
    with pytest.raises(Unavailable, match=r"took longer than 0\.5 s"):
        made.get(amd.chain(services.service, "vcek", "Milan"), now=NOW)


def test_busy_then_well(tmp_path, services, quote):
    left = [Reply(status=429, headers=(("Retry-After", "3"),))]
    services.spoil("/tcb", lambda good: left.pop() if left else good)
    waits = []
    fetcher(tmp_path, services, waits=waits).endorse(quote, now=NOW)
    assert waits == [3.0]
    assert len(services.asked) == 5


@pytest.mark.parametrize(
    "key",
    ["", "x", "amd", "amd/chain/vcek", "amd/chain/vcek/Venice", "amd/crl/x/Milan", "amd/vcek/Milan/zz/00", "intel/tcb/snp/00906ed50000/standard", "intel/tcb/tdx/00906ED50000/standard", "intel/tcb/tdx/00906ed50000/late", "intel/qe/tdx", "intel/crl/other", "intel/pck/x", "issuer/x", "issuer", "nvidia/rim", "nvidia/rim/../x", "nvidia/x/NV_a"],
)  # fmt: skip
def test_keys_of_nothing_are_refused(key):
    whose = {
        "amd": "no statement of AMD's",
        "intel": "no statement of Intel's",
        "issuer": "no issuer's certificate",
        "nvidia": "no statement of NVIDIA's",
    }.get(key.split("/")[0], "no statement that this version knows")
    one = Statement(key=key, parts={"certificate": b"x"}, fetched=NOW)
    with pytest.raises(Malformed, match=f"'{key}': {whose}"):
        validate.judge(one, roots=frozenset(), now=NOW)


@pytest.mark.parametrize("change", ["added", "renamed"])
def test_statements_have_their_own_parts_and_no_others(tmp_path, services, quote, change):
    made = fetcher(tmp_path, services)
    made.endorse(quote, now=NOW)
    made.endorse(chip().evidence(BOUND), now=NOW)
    for one in list(made.library.listed(now=NOW)):
        (name, part), *rest = one.statement.parts.items()
        parts = dict(rest) | ({name: part, "x": b"y"} if change == "added" else {"x": part})
        with pytest.raises(Malformed, match="other parts than it has"):
            validate.judge(replace(one.statement, parts=parts), roots=made.library.roots, now=NOW)
