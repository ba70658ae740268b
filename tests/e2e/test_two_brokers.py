"""Two owners with a broker each: a room needs both, and each record tells its half of the same run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from strongroom.errors import Refused
from strongroom.model.receipt import Outcome
from tests.e2e import real_rooms, two_owners
from tests.e2e.real_rooms import strongroom

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]
SCRIPT = "cat /data/table/table.csv > /out/copy; echo said in the room; echo and complained >&2; exit 7"


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-two-"))
    try:
        with two_owners.world(root, programs={"shell": two_owners.busybox(root)}) as made:
            yield made
    finally:
        two_owners.remove(root)


def shell(world, script, *options):
    return world.contract("shell", "--memory-mib", 256, "--argument", "-c", "--argument", script,
                          "--exact-exit-status", "--exact-sizes", *options)  # fmt: skip


@pytest.fixture(scope="module")
def ran(world):
    contract = shell(world, SCRIPT, "--logs", "alice", "--certificate-name", "room.example.org")
    return world.run(contract, "shell")


@pytest.fixture(scope="module")
def pack(world, ran):
    made = world.path("run.proof")
    strongroom("proof", "export", ran.folder, "--out", made)
    return made


def trust(world, *names):
    return [word for name in names for word in ("--trust", world.path(f"{name}.party.json"))]


def test_both_release_and_the_program_runs_on_what_both_gave(world, ran):
    assert (ran.code, ran.receipt.outcome, ran.receipt.exit_status) == (8, Outcome.EXITED, 7), ran.text
    assert ran.phases[2:4] == ["attested:alice", "attested:bob"]
    assert ran.output(world.identity("bob"))["copy"] == two_owners.TABLE.encode()


def test_the_log_is_sealed_to_whom_the_contract_names_and_is_nowhere_else(world, ran):
    sealed = (ran.folder / "log.age").read_bytes()
    assert world.identity("alice").age.open(sealed) == b"said in the room\nand complained\n"
    with pytest.raises(Refused):
        world.identity("bob").age.open(sealed)
    kept = two_owners.everything(ran.folder) + ran.text.encode()
    for word in (b"said in the room", b"and complained", b"17.99"):
        assert word not in kept


def test_the_proof_has_both_halves_and_holds(world, ran, pack):
    verified = strongroom("proof", "verify", pack, *trust(world, "alice", "bob"))
    lines = verified.stdout.splitlines()
    assert lines[0].startswith("SIMULATED")
    assert lines[-1] == "the proof holds, for a SIMULATED room"
    for name in two_owners.OWNERS:
        for check in ("ledger", "record", "verdict", "certificates", "receipt"):
            assert any(line.startswith(f"ok  {check}.{name}:") for line in lines)
    assert f"run      {ran.receipt.run_id}: exited, status 7" in lines
    alone = strongroom("proof", "verify", pack, *trust(world, "alice"))
    assert "the keys of bob are taken from the contract" in alone.stdout
    told = json.loads(strongroom("proof", "verify", pack, *trust(world, "bob"), "--json").stdout)
    assert (told["holds"], told["simulated"], told["trusted"]) == (True, True, ["bob"])


def test_no_secret_is_in_the_proof(world, pack):
    data = pack.read_bytes()
    assert b"AGE-SECRET-KEY" not in data
    for name in ("table", "shell"):
        owner = "alice" if name == "table" else "bob"
        key = world.identity(owner).age.open(world.path(f"{name}.key.age").read_bytes())
        assert key[:16] not in data
    assert b"17.99" not in data


def test_the_proof_without_anchors_or_with_a_strangers_proves_nothing(world, pack, tmp_path):
    done = strongroom("proof", "verify", pack, check=False)
    assert done.returncode == 3
    assert "--trust" in done.stderr
    strongroom("identity", "new", "alice", "--out", tmp_path)
    done = strongroom("proof", "verify", pack, "--trust", tmp_path / "alice.party.json", check=False)
    assert done.returncode == 3
    assert "parties.alice" in done.stderr
    assert "the proof holds" not in done.stdout


@pytest.mark.parametrize("place", [0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
def test_one_changed_byte_of_a_real_proof(world, pack, tmp_path, place):
    data = bytearray(pack.read_bytes())
    data[int(len(data) * place)] ^= 1
    (tmp_path / "spoilt").write_bytes(data)
    done = strongroom("proof", "verify", tmp_path / "spoilt", *trust(world, "alice"), check=False)
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr


def test_each_ledger_holds_its_half_of_the_run(world, ran):
    entries = {}
    for name in two_owners.OWNERS:
        shown = strongroom(
            "ledger", "show", world.path(f"{name}.party.json"), "--run", ran.receipt.run_id, "--json"
        )
        entries[name] = json.loads(shown.stdout)
        assert [one["kind"] for one in entries[name]] == ["release", "receipt"]
    assert entries["alice"][1]["body"] == entries["bob"][1]["body"]
    assert entries["alice"][0]["body"]["disks"] != entries["bob"][0]["body"]["disks"]


def test_without_bobs_broker_there_is_no_run(world):
    contract = shell(world, "echo never > /out/x")
    world.stop("bob")
    try:
        ran = world.run(contract, "shell")
    finally:
        world.serve("bob")
    assert ran.code == 4, ran.text
    assert "bob" in ran.text
    # Alice's keys were in the room by then: the run ends in a receipt, which her ledger has and Bob's has not.
    assert ran.receipt.outcome is Outcome.NOT_STARTED
    assert not list(ran.folder.glob("out-*"))
    assert "program-started" not in ran.phases
    # What there is can be looked at, and proves no run.
    strongroom("proof", "export", ran.folder, "--out", world.path("half.proof"))
    trust = [part for name in two_owners.OWNERS for part in ("--trust", world.path(f"{name}.party.json"))]
    done = strongroom("proof", "verify", world.path("half.proof"), *trust, check=False)
    assert done.returncode == 3
    assert "brokers.complete" in done.stdout + done.stderr


def test_a_disk_whose_key_its_owner_never_gave_is_denied_by_that_broker_alone(world):
    strongroom(
        "convert", *two_owners.busybox(world.path("again")), "-i", world.path("bob.identity"),
        "--name", "unknown", "--out", world.root, "--encrypt",
    )  # fmt: skip
    options = ("--memory-mib", 256, "--argument", "-c", "--argument", "exit 0")
    ran = world.run(world.contract("unknown", *options), "unknown")
    assert ran.code == 3, ran.text
    assert "keys.present" in ran.text
    assert "attested:alice" in ran.phases
    assert "attested:bob" not in ran.phases
