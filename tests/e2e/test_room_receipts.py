"""Real rooms and a real broker that goes away while the program runs: record before release, for outputs too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from strongroom.crypto import sign
from strongroom.ledger import proof
from strongroom.model import messages, receipt
from strongroom.model.contracts import agreement
from strongroom.model.receipt import Outcome
from tests.e2e import real_rooms
from tests.e2e.real_rooms import COMMAND, PASSPHRASE, Ran

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]
SCRIPT = "echo 4711 > /out/n; echo chatter; sleep 3; exit 0"


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-receipts-"))
    made = real_rooms.prepare(root)
    yield made
    made.close()
    shutil.rmtree(root)


def run(world, contract, *, at):
    """One run; `at` maps a phase to what is done when the operator is told of it."""
    folder = world.path(f"run-{contract.stem}")
    process = subprocess.Popen(
        [
            *COMMAND, "run", str(contract), "--node", str(world.path("node")), "--base", str(world.path("base")),
            "--disk", str(world.path("query.disk")), "--disk", str(world.path("flights.disk")),
            "--out", str(folder), "--no-memory-guard", "--start-anyway",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    text = ""
    with process.stdout:
        for line in process.stdout:
            text += line
            for phase, act in at.items():
                if line.split()[-1:] == [phase]:
                    act(folder)
    return Ran(code=process.wait(60), text=text, folder=folder)


def serve(world):
    """The broker again, at the address that it had."""
    world.broker = subprocess.Popen(
        [*COMMAND, "broker", "serve", str(world.path("broker"))],
        env={**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert world.broker.stdout.readline()


def end(world):
    world.broker.send_signal(signal.SIGKILL)
    world.broker.wait(60)
    world.broker.stdout.close()


def sealed(folder):
    return sorted(
        path.name for path in folder.iterdir() if path.name.startswith(("out-", ".out-", "log", ".log"))
    )


def test_without_a_record_no_output_reaches_the_node_and_the_broker_is_named(world):
    contract = world.contract(SCRIPT, "--logs", "bob", "--receipt-wait", 4)
    ran = run(world, contract, at={"program-started": lambda _: end(world)})
    serve(world)
    assert ran.code == 4, ran.text
    assert "receipt-not-recorded" in ran.text
    assert "receipt-waits:alice" in ran.text
    assert "alice" in ran.text.partition("receipt-not-recorded")[2]
    assert sealed(ran.folder) == []
    # The room signed what happened all the same.
    assert (ran.receipt.outcome, ran.receipt.exit_status) == (Outcome.EXITED, 0)
    assert len(ran.receipt.outputs) == 1


def test_a_broker_that_comes_back_in_time_lets_the_outputs_leave_after_the_record(world):
    seen = {}
    contract = world.contract(SCRIPT, "--logs", "bob", "--receipt-wait", 240)

    def back(folder):
        seen["before"] = sealed(folder)
        serve(world)

    ran = run(world, contract, at={"program-started": lambda _: end(world), "receipt-waits:alice": back})
    assert ran.code == 0, ran.text
    assert seen == {"before": []}
    assert ran.output(world.identity("bob")) == {"n": b"4711\n"}
    assert sealed(ran.folder) == ["log.age", "out-0.tar.age"]
    given = messages.parse_ledger_proof((ran.folder / "receipt-alice.json").read_bytes())
    signed = agreement.read((ran.folder / "agreement.json").read_bytes())
    key = sign.VerifyingKey(signed.contract.party("alice").broker.ledger_key)
    entry, _ = proof.verify(given, key)
    assert receipt.parse_envelope((ran.folder / "receipt.json").read_bytes())[1].run_id == entry.run_id
    names = [name for name in ran.phases if name in ("receipt-posted", "outputs-sent")]
    assert names == ["receipt-posted", "outputs-sent"]


def test_folders_too_deep_for_any_path_end_in_a_receipt_and_sizes_and_status_are_coarse(world):
    # A shell walks no path over 4095 bytes: three chains of folders, hung below each other.
    name = "d" * 200
    down = f"for i in 0 1 2 3 4 5 6 7 8 9 a b c d e; do cd {name}; done"
    chain = f"for i in 0 1 2 3 4 5 6 7 8 9 a b c d e; do busybox mkdir {name}; cd {name}; done"
    deep = f"set -e; for k in a b c; do busybox mkdir /out/$k; cd /out/$k; {chain}; done; "
    deep += f"cd /out/b; {down}; busybox mv /out/c .; cd /out/a; {down}; busybox mv /out/b .; exit 3"
    ran = world.run(world.contract(deep))
    assert ran.code == 8, ran.text
    assert (ran.receipt.outcome, ran.receipt.exit_status) == (Outcome.OUTPUT_TOO_LARGE, 1)
    assert ran.receipt.details == ("output-depth",)
    ran = world.run(world.contract("head -c 9999 /dev/zero > /out/x; exit 77", "--logs", "bob"))
    assert (ran.receipt.outcome, ran.receipt.exit_status) == (Outcome.EXITED, 1)
    for file, size in (("out-0.tar.age", 16384), ("log.age", 4096)):
        plain = world.identity("bob").age.open((ran.folder / file).read_bytes())
        assert len(plain) == size
