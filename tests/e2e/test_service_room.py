"""Real rooms that live: a service whose host's clock is years off attests again twice and is stopped; another is paused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.encoding import fields
from strongroom.ledger import describe
from strongroom.model import messages, receipt, record
from strongroom.model.contracts import agreement, drafting
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts.certificate_terms import CertificateTerms
from strongroom.model.contracts.room_terms import Restart, ServiceTerms
from strongroom.model.receipt import Outcome
from strongroom.node import runs
from strongroom.store import sqlite
from strongroom.wiring import broker as wiring
from tests.e2e import real_rooms
from tests.e2e.real_rooms import COMMAND, Ran, strongroom

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]
# Says the time as it starts and as it is stopped.
SCRIPT = (
    "busybox date -u +%s > /out/started; trap 'busybox date -u +%s > /out/stopped; exit 0' TERM; "
    "while true; do sleep 1; done"
)
YEARS_OFF = "2019-05-04T03:02:01"


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-service-"))
    made = real_rooms.prepare(root, rows=10)
    yield made
    made.close()
    shutil.rmtree(root)


def service(world, **changes) -> Path:
    """A contract of both whose room is a service; its certificate lives for a minute."""
    world.number += 1
    drafted = world.path("drafted.json")
    drafted.unlink(missing_ok=True)
    strongroom(
        "contract", "new", f"service-{world.number}", "--out", drafted,
        "--party", f"data-owner={world.path('alice.party.json')}", "--party", f"program-owner={world.path('bob.party.json')}",
        "--image", world.path("query.manifest.json"), "--base", world.path("base"), "--node", world.path("node.json"),
        "--dataset", f"flights={world.path('flights.manifest.json')}", "--simulated", "--without-memory-guard",
        "--memory-mib", 256, "--argument", "-c", "--argument", SCRIPT, "--output", "/out=bob",
    )  # fmt: skip
    contract = agreement.read(drafted.read_bytes()).contract
    room = replace(
        contract.rooms[0],
        wall_seconds=0,
        service=ServiceTerms(renewal_seconds=60, restart=Restart.ALWAYS),
        certificate=CertificateTerms(names=("room.flights.example",), lifetime_seconds=60),
        **changes,
    )
    raw = drafting.encode(replace(contract, rooms=(room,), raw=b""))
    made = world.path(f"contract-{world.number}.json")
    made.write_bytes(agreement.draft(contract_model.parse(raw)).encode())
    for name in ("alice", "bob"):
        strongroom("contract", "sign", made, "-i", world.path(f"{name}.identity"), "--yes")
    return made


def run(world, contract, *options, act):
    """`strongroom run` of a service; `act(phase, process)` is called with each phase that it shows."""
    folder = world.path(f"run-{contract.stem}")
    process = subprocess.Popen(
        [
            *COMMAND, "run", str(contract), "--node", str(world.path("node")), "--base", str(world.path("base")),
            "--disk", str(world.path("query.disk")), "--disk", str(world.path("flights.disk")),
            "--out", str(folder), "--no-memory-guard", *options,
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    text = ""
    with process.stdout:
        for line in process.stdout:
            text += line
            act((line.split() or [""])[-1], process)
    return Ran(code=process.wait(60), text=text, folder=folder)


def entries(world, ran):
    """The run's entries in alice's ledger."""
    store = sqlite.open_store(world.path("broker") / wiring.DATABASE)
    try:
        return [record.parse(leaf) for _, leaf in store.ledger.of_run(ran.receipt.run_id)]
    finally:
        store.close()


def test_a_service_attests_again_twice_is_right_about_the_time_and_leaves_with_its_receipt(world):
    renewed = []

    def act(phase, process):
        if phase == "renewed:alice":
            renewed.append(time.time())
            if len(renewed) == 2:
                # A little later: a receipt of that renewal is on its way, and a stop would not wait for it.
                threading.Timer(8.0, process.send_signal, (signal.SIGTERM,)).start()

    begun = time.time()
    ran = run(world, service(world), "--clock", YEARS_OFF, act=act)
    ended = time.time()
    assert ran.code == 0, ran.text
    assert (ran.receipt.outcome, ran.receipt.exit_status, ran.receipt.details) == (
        Outcome.EXITED,
        0,
        ("stopped",),
    )
    assert ran.receipt.sequence == 3
    times = {name: int(content) for name, content in ran.output(world.identity("bob")).items()}
    assert begun - 2 < times["started"] < renewed[0]
    assert renewed[1] - 2 < times["stopped"] < ended + 2
    recorded = entries(world, ran)
    assert [entry.kind.value for entry in recorded] == [
        "release",
        *["renewal", "receipt"] * 2,
        "receipt",
    ]
    envelopes = [entry.body["envelope"] for entry in recorded if entry.kind is record.RecordKind.RECEIPT]
    receipts = [
        receipt.parse_envelope(fields.Fields({"e": text}, "entry").data("e", max_bytes=1 << 20))[1]
        for text in envelopes
    ]
    assert [one.sequence for one in receipts] == [1, 2, 3]
    certificates = {
        entry.body["certificate"] for entry in recorded if entry.kind is not record.RecordKind.RECEIPT
    }
    assert len(certificates) == 3
    assert describe.describe(recorded[1]).startswith("renewed, with a certificate")
    known = runs.read(ran.folder)
    assert (known.renewals, known.state.value) == (2, "done")
    assert messages.parse_ledger_proof((ran.folder / "receipt-alice.json").read_bytes())


def test_a_paused_room_ends_within_seconds_and_nothing_leaves_it(world):
    contract = service(world)
    moments = {}

    def act(phase, process):
        if phase == "program-started":
            strongroom("broker", "pause", world.path("broker"), contract)
            moments["paused"] = time.monotonic()
        elif phase == "program-ended":
            moments["ended"] = time.monotonic()

    ran = run(world, contract, act=act)
    assert ran.code == 8, ran.text
    assert (ran.receipt.outcome, ran.receipt.details) == (Outcome.KILLED, ("paused",))
    assert list(ran.folder.glob("out-*")) == []
    # The promise is 5 s, of a machine with nothing else to do; what is held to here is that no renewal was waited for.
    assert moments["ended"] - moments["paused"] < 25, moments
    print(f"ended {moments['ended'] - moments['paused']:.1f} s after the pause")
    kinds = [entry.kind.value for entry in entries(world, ran)]
    assert kinds == ["release", "receipt"]
    shutil.rmtree(ran.folder)
    again = run(world, contract, act=lambda _phase, _process: None)
    assert again.code != 0
    assert "contract.paused" in again.text
