"""Real rooms under a real broker: what an operator might try, and what comes of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import Refused
from strongroom.model import record
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.receipt import Outcome
from strongroom.node import disks, room
from strongroom.node.qemu import machine
from strongroom.node.vtpm import state
from strongroom.store import sqlite
from strongroom.wiring import broker
from strongroom_testing import ports
from tests.e2e import real_rooms
from tests.e2e.real_rooms import strongroom

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]
OFF = "--without-memory-guard"


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-cheats-"))
    made = real_rooms.prepare(root)
    yield made
    made.close()
    shutil.rmtree(root)


def command(world, contract, folder, *options, base="base"):
    """`strongroom run` as its arguments."""
    return [
        "run", contract, "--node", world.path("node"), "--base", world.path(base),
        "--disk", world.path("query.disk"), "--disk", world.path("flights.disk"), "--out", folder, "--start-anyway",
        *options,
    ]  # fmt: skip


def started(world, contract, folder, *options, base="base"):
    return subprocess.Popen(
        [*real_rooms.COMMAND, *map(str, command(world, contract, folder, *options, base=base))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def phase(running, name):
    """Wait until the run says so on standard error."""
    for line in running.stderr:
        if line.split()[-1] == name:
            return
    raise AssertionError(f"never came to {name}")


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = stat.read_text().rpartition(")")[2].split()
            name = (stat.parent / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest[1]) == pid:
            found.append((int(stat.parent.name), name))
    return found


def failed_checks(folder):
    error = json.loads((folder / "status.json").read_bytes())["error"]
    return error, {one["name"]: one for one in error["checks"]}


def changed_base(world, name, part, change):
    folder = world.path(name)
    shutil.copytree(world.path("base"), folder)
    data = bytearray((folder / part).read_bytes())
    change(data)
    (folder / part).write_bytes(data)
    return name


def test_a_base_with_one_changed_byte_gets_no_key(world):
    """The byte is of a time that nobody reads, in the initrd's first entry: it boots as well as the true one."""

    def later(data):
        assert data[:6] == b"070701"  # cpio: then inode, mode, owner, group, links, time, of 8 digits each
        data[53] = ord("0") if data[53] != ord("0") else ord("1")

    base = changed_base(world, "base-changed", "initrd", later)
    before = decisions(world)
    ran = world.run(world.contract("exit 0"), base=base)
    assert ran.code == 3
    assert decisions(world)[len(before) :] == [record.RecordKind.DENIAL]
    error, checks = failed_checks(ran.folder)
    assert error["code"] == "denied"
    assert {name for name, one in checks.items() if not one["ok"]} == {"platform.reference.initrd"}
    assert all(one["hint"] for one in checks.values())
    assert "program-started" not in ran.phases
    assert not (ran.folder / "receipt.json").exists()
    assert (ran.folder / "evidence-alice.json").exists()  # what the broker judged is kept


@pytest.mark.soak  # one changed byte of the initrd is denied by the same check
def test_another_command_line_gets_no_key(world):
    base = changed_base(world, "base-cmdline", "cmdline", lambda data: data.extend(b" strongroom.debug=1"))
    ran = world.run(world.contract("exit 0"), base=base)
    assert ran.code == 3
    _, checks = failed_checks(ran.folder)
    assert any("cmdline" in one["name"] + one["got"] + one["expected"] for one in checks.values()), checks


def _one_byte(data):
    data[1024 + 80] ^= 1  # in the superblock, whose block is read first of all


def _a_byte_of_every_block(data):
    data[len(data) // 2 :: 4096] = bytes(byte ^ 1 for byte in data[len(data) // 2 :: 4096])


@pytest.mark.parametrize("change", [_one_byte, _a_byte_of_every_block])
def test_a_changed_base_disk_does_not_come_to_attest(world, change):
    base = changed_base(world, f"base-disk{change.__name__}", "base.disk", change)
    before = decisions(world)
    ran = world.run(world.contract("exit 0"), base=base)
    assert ran.code == 4
    assert "[room-died]" in ran.text
    assert ran.phases == []
    assert decisions(world) == before
    assert not (ran.folder / "evidence-alice.json").exists()
    assert not (ran.folder / "receipt.json").exists()


@pytest.mark.soak
def test_a_version_whose_past_the_broker_has_not_seen_gets_no_key_until_the_operator_brings_it(world):
    first = world.contract("echo first > /out/x")
    second = world.contract("echo second > /out/x", replaces=first)
    third = world.contract("echo third > /out/x", replaces=second)
    before = decisions(world)
    ran = world.run(third, "--earlier", second)  # the first of all is not there
    assert ran.code == 3
    assert decisions(world)[len(before) :] == [record.RecordKind.DENIAL]
    _, checks = failed_checks(ran.folder)
    refused = {name for name, one in checks.items() if not one["ok"]}
    assert refused == {"contract.version", "evidence.verified"}  # the latter: not looked at any more
    assert "program-started" not in ran.phases
    assert not (ran.folder / "receipt.json").exists()
    shutil.rmtree(ran.folder)
    ran = world.run(third, "--earlier", second, "--earlier", first)
    assert ran.code == 0, ran.text
    assert ran.output(world.identity("bob")) == {"x": b"third\n"}
    told = json.loads((ran.folder / "release-alice.json").read_bytes())["verdict"]
    passed = {one["name"] for one in told["checks"] if one["ok"]}
    assert {"contract.earlier", "contract.version", "contract.replaces"} <= passed


@pytest.fixture(scope="module")
def thief(world):
    """Another program of bob's, signed by him, that no contract names."""
    shutil.copytree(world.path("image"), world.path("thief"), symlinks=True)
    (world.path("thief") / "etc/motd").write_text("send it all home\n")
    strongroom(
        "convert", world.path("thief"), "-i", world.path("bob.identity"), "--name", "thief",
        "--config", world.path("config.json"), "--out", world.root,
    )  # fmt: skip
    return world.path("thief.disk")


def decisions(world):
    """What alice's broker has recorded: kinds of entries, in order."""
    store = sqlite.open_store(world.path("broker") / broker.DATABASE)
    try:
        return [record.parse(leaf).kind for leaf in store.ledger.leaves(0, store.ledger.size())]
    finally:
        store.close()


def order_of(world, contract, folder, **changes):
    """What a node of the operator's own making runs: the contract's disks, but for the changes."""
    agreement = agreement_model.read(contract.read_bytes())
    sealed = [disks.load(world.path(f"{name}.disk")) for name in ("query", "flights")]
    drives, manifests = disks.match(agreement.contract, agreement.contract.rooms[0], sealed)
    folder.mkdir()
    order = room.Order(
        room="main", node=state.load(world.path("node")), base=world.path("base"), agreement=agreement,
        drives=drives, manifests=manifests, out=folder, guarded=False,
    )  # fmt: skip
    return replace(order, **changes)


def test_another_program_is_refused_before_a_key_is_asked_for(world, thief):
    """By the node; and, where the node lies, by the agent, before it speaks to a broker."""
    contract = world.contract("exit 0")
    before = decisions(world)
    done = strongroom(
        "run", contract, "--node", world.path("node"), "--base", world.path("base"),
        "--disk", thief, "--disk", world.path("flights.disk"),
        "--out", world.path("thief-out"), "--no-memory-guard", "--start-anyway", check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "[missing-disk]" in done.stderr
    assert "the image of bob" in done.stderr
    order = order_of(world, contract, world.path("thief-out-1"))
    order = replace(
        order,
        drives=(machine.Drive(serial="image", path=thief), *order.drives[1:]),
        manifests={**order.manifests, "image": thief.with_suffix(".manifest.json").read_bytes()},
    )
    phases = []
    with pytest.raises(Refused, match="the manifest of the image: expected the image") as caught:
        room.Room(order=order, on_phase=lambda name, _moment: phases.append(name)).run()
    assert caught.value.code == "wrong-manifest"
    assert phases == ["booted", "contract-bound"]
    assert decisions(world) == before  # no key was released, nor even refused: nobody was asked
    assert not (order.out / "evidence-alice.json").exists()
    assert not (order.out / "release-alice.json").exists()


def test_another_program_under_the_contracts_manifest_never_starts(world, thief):
    """The node shows the manifest that was signed, and attaches other bytes: the room has the key and opens no disk."""
    order = order_of(world, world.contract("cat /data/flights/table.csv"), world.path("thief-out-2"))
    order = replace(order, drives=(machine.Drive(serial="image", path=thief), *order.drives[1:]))
    before = decisions(world)
    phases = []
    result = room.Room(order=order, on_phase=lambda name, _moment: phases.append(name)).run()
    assert phases[:3] == ["booted", "contract-bound", "attested:alice"]
    assert "program-started" not in phases
    assert result.receipt.outcome is Outcome.DATA_CORRUPTED
    assert result.receipt.outputs == ()
    # The broker could not know: it released the key to the measured agent, and its ledger has how that ended.
    assert decisions(world)[len(before) :] == [record.RecordKind.RELEASE, record.RecordKind.RECEIPT]
    assert not [path for path in order.out.iterdir() if path.suffix == ".age"]


def test_another_contract_signed_by_nobody_who_matters(world):
    """The operator draws the contract again with himself as the reader of the outputs."""
    strongroom("identity", "new", "mallory", "--out", world.root)
    made = world.path("forged.json")
    strongroom(
        "contract", "new", "run-forged", "--out", made,
        "--party", f"data-owner={world.path('alice.party.json')}",
        "--party", f"program-owner={world.path('bob.party.json')}",
        "--party", f"recipient={world.path('mallory.party.json')}",
        "--image", world.path("query.manifest.json"), "--base", world.path("base"),
        "--node", world.path("node.json"), "--dataset", f"flights={world.path('flights.manifest.json')}",
        "--argument", "-c", "--argument", "cat /data/flights/table.csv > /out/x", "--simulated", OFF,
        "--memory-mib", 256, "--output", "/out=mallory", "--threshold", 1,
    )  # fmt: skip
    strongroom("contract", "sign", made, "-i", world.path("mallory.identity"), "--yes")
    ran = world.run(made)
    assert ran.code == 3
    assert "program-started" not in ran.phases
    assert not (ran.folder / "out-0.tar.age").exists()


def test_a_node_that_the_contract_does_not_name(world):
    strongroom("node", "init", world.path("other-node"), "--name", "other")
    contract = world.contract("exit 0")
    folder = world.path("other-node-out")
    arguments = command(world, contract, folder, "--no-memory-guard")
    arguments[arguments.index("--node") + 1] = world.path("other-node")
    before = decisions(world)
    done = strongroom(*arguments, check=False)
    assert done.returncode == 3
    assert decisions(world)[len(before) :] == [record.RecordKind.DENIAL]
    _, checks = failed_checks(folder)
    assert {name for name, one in checks.items() if not one["ok"]} == {"evidence.chain.root"}


def test_the_guard_may_be_off_only_where_the_contract_says_so(world):
    options = ["--memory-mib", "256"]
    made = world.path("guarded.json")
    strongroom(
        "contract", "new", "run-guarded", "--out", made,
        "--party", f"data-owner={world.path('alice.party.json')}",
        "--party", f"program-owner={world.path('bob.party.json')}",
        "--image", world.path("query.manifest.json"), "--base", world.path("base"),
        "--node", world.path("node.json"), "--dataset", f"flights={world.path('flights.manifest.json')}",
        "--argument", "-c", "--argument", "wc -l < /data/flights/table.csv > /out/n",
        "--simulated", *options, "--output", "/out=bob", "--runs", 2,
    )  # fmt: skip
    for name in ("alice", "bob"):
        strongroom("contract", "sign", made, "-i", world.path(f"{name}.identity"), "--yes")
    off, on = world.path("guard-off"), world.path("guard-on")
    done = strongroom(*command(world, made, off, "--no-memory-guard"), check=False)
    assert done.returncode == 3
    _, checks = failed_checks(off)
    assert any("guard" in name for name in checks), checks
    done = strongroom(*command(world, made, on))
    ran = real_rooms.Ran(code=done.returncode, text=done.stdout, folder=on)
    assert ran.output(world.identity("bob"))["n"].strip() == b"40000"
    assert json.loads((on / "launch-record.json").read_bytes())["memory_guard"] is True


@pytest.mark.soak  # test_broker_process has rooms that race for the last run
def test_no_more_runs_than_agreed(world):
    contract = world.contract("exit 0")
    assert world.run(contract).code == 0
    folder = world.path("second")
    done = strongroom(*command(world, contract, folder, "--no-memory-guard"), check=False)
    assert done.returncode == 3
    _, checks = failed_checks(folder)
    assert any("runs" in name for name in checks), checks


@pytest.mark.soak  # test_broker_process has 32 of them
def test_two_rooms_race_for_the_last_run(world):
    contract = world.contract("exit 0")
    folders = [world.path(f"race-{number}") for number in range(2)]
    running = [started(world, contract, one, "--no-memory-guard") for one in folders]
    ended = [one.communicate(timeout=200) for one in running]
    assert sorted(one.returncode for one in running) == [0, 3], ended


def test_two_rooms_side_by_side(world):
    contract = world.contract("sha256sum /data/flights/table.csv > /out/sum", "--runs", 2)
    folders = [world.path(f"side-{number}") for number in range(2)]
    running = [started(world, contract, one, "--no-memory-guard") for one in folders]
    for one in running:
        _, text = one.communicate(timeout=200)
        assert one.returncode == 0, text
    ran = [real_rooms.Ran(code=0, text="", folder=one) for one in folders]
    outputs = [one.output(world.identity("bob")) for one in ran]
    assert outputs[0] == outputs[1]
    assert ran[0].receipt.run_id != ran[1].receipt.run_id  # each room has keys of its own


@pytest.mark.parametrize("guarded", [pytest.param(False, marks=pytest.mark.soak), True])
def test_qemu_killed_while_the_program_runs(world, guarded):
    contract = world.contract("echo begun > /out/x; sleep 100")
    folder = world.path(f"killed-{guarded}")
    running = started(world, contract, folder, *(() if guarded else ("--no-memory-guard",)))
    phase(running, "program-started")
    # The guarded one is a descendant: its name is what `comm` says, wherever it is in the tree.
    family, found = [running.pid], []
    while family:
        for pid, name in children_of(family.pop()):
            family.append(pid)
            if name.startswith("qemu"):
                found.append(pid)
    assert len(found) == 1
    os.kill(found[0], signal.SIGKILL)
    _, text = running.communicate(timeout=120)
    assert running.returncode == 4
    assert "[room-died]" in text
    assert "killed by signal 9" in text
    status = json.loads((folder / "status.json").read_bytes())
    assert (status["state"], status["error"]["code"]) == ("failed", "room-died")
    assert not (folder / "receipt.json").exists()
    assert not any(one.name.endswith(".part") for one in folder.rglob("*"))


def asking_first(world, contract, folder, *options, base="base"):
    """As an honest operator runs it."""
    line = command(world, contract, folder, "--no-memory-guard", *options, base=base)
    line.remove("--start-anyway")
    return line


def test_what_would_be_refused_is_refused_before_a_room_boots_and_leaves_no_trace(world):
    contract = world.contract("exit 0")
    folder = world.path("foreseen")
    base = changed_base(world, "base-foreseen", "cmdline", lambda data: data.extend(b" quiet"))
    before = decisions(world)
    done = strongroom(*asking_first(world, contract, folder, base=base), check=False)
    assert done.returncode == 3
    _, checks = failed_checks(folder)
    assert set(checks) == {"platform.reference.cmdline"}
    assert "no run was used" in done.stderr
    # In the same folder, and by the true base, it runs; then its one run is used up, and that is known before, too.
    assert strongroom(*asking_first(world, contract, folder)).returncode == 0
    assert (folder / "attempt-1/status.json").exists()
    used = strongroom(*asking_first(world, contract, world.path("foreseen-again")), check=False)
    assert used.returncode == 3
    _, checks = failed_checks(world.path("foreseen-again"))
    assert set(checks) == {"contract.runs"}
    assert decisions(world)[len(before) :] == [record.RecordKind.RELEASE, record.RecordKind.RECEIPT]
    asked = strongroom("contract", "check", contract, "--ask", check=False)
    assert asked.returncode == 3
    assert "NO   alice's broker, contract.runs" in asked.stdout


def test_an_interrupted_run_says_which_it_was_what_it_cost_and_what_to_type(world):
    contract = world.contract("sleep 100", "--runs", 2)
    folder = world.path("stopped")
    running = subprocess.Popen(
        [*real_rooms.COMMAND, *map(str, asking_first(world, contract, folder))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    phase(running, "program-started")
    below = [pid for pid, _ in children_of(running.pid)]
    assert len(below) == 2
    running.send_signal(signal.SIGINT)
    _, text = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Traceback" not in text
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)
    status = json.loads((folder / "status.json").read_bytes())
    assert status["state"] == "interrupted"
    assert status["run"].startswith("run-")
    assert status["cost"] == {"alice": "used"}
    assert f"run        {status['run']}, without a receipt" in text
    assert "ended      you stopped it while the room was at program-started" in text
    assert "cost       a run was used at the broker of alice: 1 of 2" in text
    assert "next       the same command again" in text


def test_a_broker_that_stands_still_only_delays_the_room(world):
    contract = world.contract("exit 0")
    world.broker.send_signal(signal.SIGSTOP)
    resume = threading.Timer(8, world.broker.send_signal, (signal.SIGCONT,))
    resume.start()
    try:
        ran = world.run(contract)
    finally:
        resume.cancel()
        resume.join()
        world.broker.send_signal(signal.SIGCONT)
    assert ran.code == 0, ran.text


def test_a_broker_that_is_not_there_is_named_and_no_run_is_used_up(world):
    party = json.loads(world.path("alice.party.json").read_bytes())
    true = dict(party["broker"])
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    party["broker"]["url"] = f"https://127.0.0.1:{port}"
    kept = world.path("alice.party.json").read_bytes()
    world.path("alice.party.json").write_text(json.dumps(party, sort_keys=True, separators=(",", ":")))
    try:
        astray = world.contract("exit 0")
    finally:
        world.path("alice.party.json").write_bytes(kept)
    before = decisions(world)
    ran = world.run(astray)
    assert ran.code == 4
    assert "[broker-unreachable]" in ran.text
    assert f"127.0.0.1:{port}" in ran.text
    assert true["url"] not in ran.text
    assert decisions(world) == before


@pytest.mark.soak  # test_two_brokers has such a room
def test_two_brokers_each_release_their_own_partys_key(world):
    """bob's program is encrypted too, and his broker holds its key."""
    root = world.root
    shutil.copy(world.path("bob.party.json"), world.path("bob-plain.party.json"))
    strongroom(
        "broker",
        "init",
        root / "broker-bob",
        "-i",
        root / "bob.identity",
        "--listen",
        f"127.0.0.1:{ports.free()}",
    )
    strongroom(
        "convert", root / "image", "-i", root / "bob.identity", "--name", "secret", "--encrypt",
        "--config", root / "config.json", "--out", root,
    )  # fmt: skip
    strongroom(
        "broker", "add-key", root / "broker-bob", root / "secret.manifest.json", root / "secret.key.age",
        "-i", root / "bob.identity",
    )  # fmt: skip
    served = subprocess.Popen(
        [*real_rooms.COMMAND, "broker", "serve", str(root / "broker-bob")],
        env={**os.environ, "STRONGROOM_PASSPHRASE": real_rooms.PASSPHRASE},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert served.stdout.readline()
        ran = world.run(world.contract("echo fine > /out/x", image="secret"), image="secret")
        assert ran.code == 0, ran.text
        assert {"attested:alice", "attested:bob"} <= set(ran.phases)
        for name in ("evidence", "release", "receipt"):
            for party in ("alice", "bob"):
                assert (ran.folder / f"{name}-{party}.json").exists()
        assert ran.output(world.identity("bob")) == {"x": b"fine\n"}
    finally:
        served.terminate()
        served.wait(60)
        served.stdout.close()
        shutil.move(world.path("bob-plain.party.json"), world.path("bob.party.json"))
