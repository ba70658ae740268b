"""Whole rooms as in a Nitro enclave: the image file that AWS would start, its channel by vsock, its sealed disks over NBD.

What stands in for the enclave is told in `enclave`. The node is one whose storage fails, and so chooses which rows count,
if the program shrugs at that.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from strongroom.model.receipt import Outcome
from strongroom.node.nitro import nbd
from tests.e2e import enclave, failing_disks, real_rooms
from tests.e2e.failing_disks import COUNT, FILES, Fault, assert_corrupted, block_of

pytestmark = [
    pytest.mark.room,
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-enclave-"))
    made = real_rooms.prepare(root)
    failing_disks.seal_many(made)
    real_rooms.strongroom("base", "build", "--for", "nitro", "--out", root / "nitro")
    enclave.unpack(root / "nitro", root / "enclave")
    yield made
    made.close()
    shutil.rmtree(root)


def run(world, contract, *, image="query"):
    return failing_disks.run(
        world,
        contract,
        (image, "many"),
        lambda order, phases: enclave.run(order, world.path("enclave"), world.path("vsock"), phases),
        base=world.path("nitro"),
    )


def contract(world, script, *options):
    return world.contract(script, *options, dataset="many", base="enclave")


def test_a_room_without_disks_or_ports_does_its_work_by_vsock(world):
    seen = run(world, contract(world, f"{COUNT}; exit 0"))
    assert seen.error is None
    assert (seen.receipt.outcome, seen.receipt.exit_status) == (Outcome.EXITED, 0)
    assert seen.phases == [
        "booted", "contract-bound", "attested:alice", "disks-open", "program-started", "program-ended",
        "outputs-sealed", "receipt-posted", "outputs-sent",
    ]  # fmt: skip
    ran = real_rooms.Ran(code=0, text="", folder=seen.folder)
    assert ran.output(world.identity("bob")) == {"rows": f"{FILES}\n".encode()}


@pytest.mark.parametrize(
    "kind", ["superblock", "root of the tree", "directory", "inode", "file", "leaf of the tree", "last block"]
)
def test_any_kind_of_block_that_the_node_cannot_read_is_data_that_was_corrupted(world, monkeypatch, kind):
    fault = Fault(file="many.disk", block=block_of(world, kind))
    monkeypatch.setattr(nbd, "_transmit", fault.transmit)
    assert_corrupted(run(world, contract(world, f"{COUNT}; exit 0", "--logs", "bob")))
    assert fault.failed


def test_a_node_that_hangs_up_ends_the_program_at_once_and_nothing_leaves(world, monkeypatch):
    fault = Fault(file="many.disk", block=block_of(world, "file"), hang_up=True)
    monkeypatch.setattr(nbd, "_transmit", fault.transmit)
    seen = run(world, contract(world, f"{COUNT}; sleep 200", "--logs", "bob"))
    assert_corrupted(seen)
    assert "program-started" in seen.phases
    assert (seen.receipt.ended - seen.receipt.started).total_seconds() < 60
