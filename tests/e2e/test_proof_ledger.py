"""`strongroom ledger …` against a real broker that behaves, and against ones that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from dataclasses import replace

import pytest

from strongroom.broker.challenge import challenge
from strongroom.broker.release import release
from strongroom.crypto import sign
from strongroom.errors import Unavailable
from strongroom.fetch.brokers import BrokerReader
from strongroom.ledger import checkpoint, merkle, tiles
from strongroom.model import identity, messages
from strongroom.wiring import broker as wiring
from strongroom_testing import broker_process, brokers, lying_broker
from tests.e2e.real_rooms import PASSPHRASE, strongroom
from tests.unit.ledger.memory_tiles import Memory


@pytest.fixture(scope="module")
def bob(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bob")
    strongroom("identity", "new", "bob", "--out", folder)
    return folder / "bob.identity"


@pytest.fixture
def prepared(tmp_path):
    made = broker_process.prepare(tmp_path / "broker")
    (tmp_path / "alice.party.json").write_bytes(made.settings.party.encode())
    return made


@pytest.fixture
def alice(prepared, tmp_path):
    return tmp_path / "alice.party.json"


def add_entries(prepared, count, *, agreement=None):
    """Releases by the broker's own code, without its network: `count` entries more."""
    agreement = agreement or prepared.agreement

    async def all_of_them(broker):
        for _ in range(count):
            body = messages.encode_challenge_request(agreement.contract.digest)
            nonce = (await challenge(broker, body)).nonce
            await release(broker, prepared.room().request(nonce))

    with wiring.open_broker(prepared.directory, brokers.PASSPHRASE) as opened:
        asyncio.run(all_of_them(opened.broker))


def test_show_verify_and_witness_a_growing_ledger(prepared, alice, bob, tmp_path):
    mine, theirs = tmp_path / "bob.checkpoint", tmp_path / "auditor.checkpoint"
    with broker_process.served(prepared):
        assert "0 entries" in strongroom("ledger", "show", alice).stdout
        strongroom("ledger", "witness", alice, "--state", mine, "-i", bob)
    add_entries(prepared, 3)
    with broker_process.served(prepared):
        shown = strongroom("ledger", "show", alice).stdout
        assert shown.count("  release  ") == 3
        assert "3 entries" in shown
        rows = json.loads(strongroom("ledger", "show", alice, "--json").stdout)
        one = strongroom("ledger", "show", alice, "--run", rows[1]["run"], "--json").stdout
        assert [row["index"] for row in json.loads(one)] == [1]
        told = strongroom("ledger", "witness", alice, "--state", mine, "-i", bob).stdout
        assert "cosigned as bob: 3 entries" in told
        done = strongroom("ledger", "verify", alice, "--state", theirs, "--against", mine)
        assert "consistent: 3 entries" in done.stdout
    seen = checkpoint.parse(mine.read_text())
    key = identity.unlock(bob.read_bytes(), PASSPHRASE.encode()).signing.public
    assert abs(checkpoint.verify_cosignature(seen, "bob", key) - time.time()) < 600


def test_rule_47_yesterdays_database_restored(prepared, alice, bob, tmp_path):
    """The broker's folder is copied, the ledger grows, the copy is put back, and it even grows again."""
    state = tmp_path / "state"
    add_entries(prepared, 2)
    backup = tmp_path / "backup"
    shutil.copytree(prepared.directory, backup)
    add_entries(prepared, 3)
    with broker_process.served(prepared):
        strongroom("ledger", "witness", alice, "--state", state, "-i", bob)
    before = state.read_bytes()
    shutil.rmtree(prepared.directory)
    backup.rename(prepared.directory)
    for more in (0, 2, 4):  # shorter, as long and longer than what the witness saw
        add_entries(prepared, more and 2)
        with broker_process.served(prepared):
            for words in (
                ("witness", alice, "--state", state, "-i", bob),
                ("verify", alice, "--state", state),
            ):
                done = strongroom("ledger", *words, check=False)
                assert done.returncode == 3, done.stdout
                assert "ledger-forked" in done.stderr
                assert "state.forked" in done.stderr
        assert state.read_bytes() == before
    # Both notes are signed by the ledger itself: whoever holds them can show what it did.
    key = sign.VerifyingKey(prepared.settings.address.ledger_key)
    old, new = (checkpoint.verify(path.read_text(), key) for path in (state, tmp_path / "state.forked"))
    assert (old.size, new.size) == (5, 6)


def test_rule_52_two_parties_who_were_shown_two_histories(prepared, alice, bob, tmp_path):
    add_entries(prepared, 2)
    fork = tmp_path / "fork"
    shutil.copytree(prepared.directory, fork)
    add_entries(prepared, 2)
    with broker_process.served(prepared):
        strongroom("ledger", "witness", alice, "--state", tmp_path / "for-bob", "-i", bob)
    shutil.rmtree(prepared.directory)
    fork.rename(prepared.directory)
    for _ in range(2):  # a shorter, then an equally long other history
        add_entries(prepared, 1)
        with broker_process.served(prepared):
            done = strongroom(
                "ledger", "verify", alice, "--state", tmp_path / "mine", "--against", tmp_path / "for-bob",
                check=False,
            )  # fmt: skip
        assert done.returncode == 3
    assert "ledger-forked" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_partial_tiles_beyond_the_first(prepared, alice, tmp_path):
    """256, 257 and 513 entries: a full tile alone, one and one, two and one."""
    sizes = []
    for count in (256, 1, 256):
        add_entries(prepared, count)
        sizes.append(sum(sizes[-1:]) + count)
        with broker_process.served(prepared):
            done = strongroom("ledger", "verify", alice, "--state", tmp_path / "state")
            assert f"consistent: {sizes[-1]} entries" in done.stdout
    assert sizes == [256, 257, 513]


def test_another_key_at_the_address(prepared, alice, tmp_path):
    address = prepared.settings.address
    changes = {
        "wrong-broker": replace(address, pin="sha256:" + "0" * 64),
        "wrong-ledger": replace(address, ledger_key=sign.generate().public.raw),
    }
    with broker_process.served(prepared):
        for code, changed in changes.items():
            alice.write_bytes(replace(prepared.settings.party, broker=changed).encode())
            for verb in ("show", "verify"):
                state = ("--state", tmp_path / "state") if verb == "verify" else ()
                done = strongroom("ledger", verb, alice, *state, check=False)
                assert done.returncode == 3
                assert f"[{code}]" in done.stderr
    assert not (tmp_path / "state").exists()


def test_nobody_there(prepared, alice, bob, tmp_path):
    done = strongroom("ledger", "witness", alice, "--state", tmp_path / "s", "-i", bob, check=False)
    assert done.returncode == 4
    assert "broker-unreachable" in done.stderr
    assert not (tmp_path / "s").exists()
    odd = replace(prepared.settings.address, url=f"https://{'a' * 64}.example:8443")
    alice.write_bytes(replace(prepared.settings.party, broker=odd).encode())
    done = strongroom("ledger", "show", alice, check=False)
    assert done.returncode == 2, done.stderr
    assert "party.broker.url" in done.stderr
    (tmp_path / "bob.party.json").write_bytes(identity.generate("bob").party().encode())
    done = strongroom("ledger", "show", tmp_path / "bob.party.json", check=False)
    assert done.returncode == 2
    assert "has no broker" in done.stderr


def test_a_spoilt_state_file(prepared, alice, tmp_path):
    state = tmp_path / "state"
    with broker_process.served(prepared):
        for junk in (b"", b"\xff\xfe", b"junk\n", b"x" * 100_000):
            state.write_bytes(junk)
            done = strongroom("ledger", "verify", alice, "--state", state, check=False)
            assert done.returncode == 2
            assert state.read_bytes() == junk
        stranger = sign.generate()
        state.write_text(checkpoint.issue(stranger, size=1, root=bytes(32)))
        assert strongroom("ledger", "verify", alice, "--state", state, check=False).returncode == 3


def ledger_of(entries):
    memory = Memory()
    for one in entries:
        memory.add(one)
    return memory


def test_entries_that_are_not_those_of_the_checkpoint(tmp_path):
    true, shown = ledger_of([b"a", b"b"]), ledger_of([b"a", b"c"])

    def answer(path, key):
        if path.endswith("/checkpoint"):
            return 200, [checkpoint.issue(key, size=2, root=merkle.root(true, 2)).encode()]
        return 200, list(tiles.read(shown, 2, tiles.parse_path(path.split("/tile/")[1])))

    with lying_broker.serve(tmp_path, answer) as (alice, _):
        done = strongroom("ledger", "show", alice, check=False)
        assert (done.returncode, done.stdout) == (2, "")  # "a" is no record
        done = strongroom("ledger", "verify", alice, "--state", tmp_path / "state", check=False)
        assert done.returncode in (2, 3)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b"", 2),
        (200, b"\xff\xff", 2),
        (200, b"junk", 2),
        (200, b"\0" * 100_000, 4),
        (302, b"", 4),
        (404, b"", 5),
        (500, b"", 4),
    ],
)
def test_junk_for_a_checkpoint(tmp_path, status, body, code):
    with lying_broker.serve(tmp_path, lambda _path, _key: (status, [body])) as (alice, _):
        done = strongroom("ledger", "show", alice, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


def test_a_broker_without_a_proof_of_growth_is_refused(tmp_path):
    memory = ledger_of([b"a", b"b"])

    def answer(path, key):
        if path.endswith("/checkpoint"):
            return 200, [checkpoint.issue(key, size=2, root=merkle.root(memory, 2)).encode()]
        return (404, []) if "consistency" in path else (500, [])

    seen = []

    def remember(path, key):
        seen.append(checkpoint.issue(key, size=1, root=merkle.root(memory, 1)))
        return answer(path, key)

    with lying_broker.serve(tmp_path, remember) as (alice, _):
        strongroom("ledger", "show", alice, check=False)
        (tmp_path / "state").write_text(seen[0])
        done = strongroom("ledger", "verify", alice, "--state", tmp_path / "state", check=False)
    assert done.returncode == 3
    assert "ledger-forked" in done.stderr or "ledger-proof" in done.stderr


def test_rule_59_a_broker_that_trickles_does_not_hold_its_reader(tmp_path):
    def slowly():
        while True:
            time.sleep(0.05)
            yield b"x"

    with (
        lying_broker.serve(tmp_path, lambda _path, _key: (200, slowly())) as (_, address),
        contextlib.suppress(Unavailable),  # it ends, though what comes does not
    ):
        BrokerReader(address=address, total_seconds=0.5).checkpoint()


def test_text_of_a_broker_does_not_reach_the_terminal_as_commands(tmp_path):
    """An origin with an escape sequence and a false last line."""

    def answer(_path, key):
        note = checkpoint.issue(key, size=0, root=merkle.EMPTY_ROOT)
        return 200, [note.replace("strongroom-ledger/", "\x1b[2Jevil\u202e", 1).encode()]

    with lying_broker.serve(tmp_path, answer) as (alice, _):
        done = strongroom("ledger", "show", alice, check=False)
    assert done.returncode == 3
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert "\\x1b[2Jevil\\u202e" in done.stderr
