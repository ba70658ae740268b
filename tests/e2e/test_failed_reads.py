"""Real rooms on disks that fail to read: QEMU's own disk behind its error injector, as a host would have it.

A host may answer any read with an error, and so choose which rows of the data count, if the program shrugs at that. The
programs here do: they glob, and tolerate files that cannot be read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from strongroom.errors import Refused, StrongroomError
from strongroom.model import agreement as agreement_model
from strongroom.model import manifest as manifest_model
from strongroom.model.receipt import Outcome, Receipt
from strongroom.node import disks, qemu, room, tpm_state
from strongroom.seal import erofs, folder
from tests.e2e import real_rooms
from tests.e2e.real_rooms import strongroom

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]

FILES = 300
COUNT = "cat /data/flights/*.csv 2>/dev/null | wc -l > /out/rows"
SECTORS = erofs.BLOCK // 512


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-failed-reads-"))
    made = real_rooms.prepare(root)
    (root / "many").mkdir()
    for number in range(FILES):
        (root / f"many/{number:04}.csv").write_text(f"{number}\n")
    strongroom("seal", root / "many", "-i", root / "alice.identity", "--name", "many", "--out", root)
    strongroom(
        "broker", "add-key", root / "broker", root / "many.manifest.json", root / "many.key.age",
        "-i", root / "alice.identity",
    )  # fmt: skip
    yield made
    made.close()
    shutil.rmtree(root)


@dataclass(kw_only=True)
class Seen:
    """What came of a run: a receipt or an error, and how far it went."""

    folder: Path
    seconds: float
    phases: list[str] = field(default_factory=list)
    receipt: Receipt | None = None
    error: StrongroomError | None = None

    @property
    def left(self) -> set[str]:
        """What the node holds that is sealed to somebody."""
        return {path.name for path in self.folder.rglob("*.age")}


def run(world, monkeypatch, contract, disk, block, *, image="query", once=False) -> Seen:
    """A room whose `disk` (a file's name) answers reads of that block with an error: always, or the first alone."""
    real = qemu.arguments

    def arguments(machine):
        line = real(machine)
        for index, word in enumerate(line):
            if line[index - 1] == "-blockdev" and Path(json.loads(word)["file"]["filename"]).name == disk:
                layers = json.loads(word)
                rule = {
                    "event": "none",
                    "iotype": "read",
                    "errno": 5,
                    "sector": block * SECTORS,
                    "once": once,
                }
                layers["file"] = {"driver": "blkdebug", "image": layers["file"], "inject-error": [rule]}
                line[index] = json.dumps(layers)
        assert "blkdebug" in "".join(line)
        return line

    monkeypatch.setattr(qemu, "arguments", arguments)
    agreement = agreement_model.read(contract.read_bytes())
    drives, manifests = disks.match(
        agreement.contract, [disks.load(world.path(f"{name}.disk")) for name in (image, "many")]
    )
    seen = Seen(folder=world.path(f"run-{contract.stem}"), seconds=time.monotonic())
    seen.folder.mkdir()
    order = room.Order(
        node=tpm_state.load(world.path("node")), base=world.path("base"), agreement=agreement,
        drives=drives, manifests=manifests, out=seen.folder, guarded=False,
    )  # fmt: skip
    try:
        seen.receipt = (
            room.Room(order=order, on_phase=lambda name, _moment: seen.phases.append(name)).run().receipt
        )
    except StrongroomError as cause:
        seen.error = cause
    seen.seconds = time.monotonic() - seen.seconds
    return seen


def block_of(world, kind):
    """The block of the dataset's disk that is of that kind. Encryption moves none."""
    plan = erofs.layout(folder.from_paths([world.path("many")]))
    manifest = manifest_model.parse_envelope(world.path("many.manifest.json").read_bytes())[1]
    inode = plan.by_path[b"0150.csv"]
    tree = manifest.hash_offset // erofs.BLOCK + 1  # behind its superblock: the root's block, then the leaves
    return {
        "superblock": 0,
        "directory": plan.by_path[b""].block,
        "inode": inode.offset // erofs.BLOCK,
        "file": inode.block,
        "leaf of the tree": tree + 1 + inode.block // 128,
        "root of the tree": tree,
        "last block": manifest.data_bytes // erofs.BLOCK - 1,
    }[kind]


def assert_corrupted(seen):
    assert seen.error is None
    assert seen.receipt.outcome is Outcome.DATA_CORRUPTED
    assert seen.receipt.outputs == ()
    assert len(seen.receipt.details) == 1
    assert seen.left == set()


def test_one_file_that_cannot_be_read_ends_the_program_at_once_and_nothing_leaves(world, monkeypatch):
    """The finding: the program tolerates it, goes on for minutes, and would have ended well with too few rows."""
    contract = world.contract(f"{COUNT}; sleep 200", "--logs", "bob", dataset="many")
    seen = run(world, monkeypatch, contract, "many.disk", block_of(world, "file"))
    assert_corrupted(seen)
    assert "program-started" in seen.phases
    assert (seen.receipt.ended - seen.receipt.started).total_seconds() < 60


def test_one_read_of_the_base_that_fails_once_gets_no_key(world, monkeypatch):
    """The kernel reads ahead, fails, tries again and succeeds; the agent runs on code that is whole. It says so all the same."""
    data = (world.path("base") / "base.disk").read_bytes()
    block = data.index(b"Py_BytesMain") // erofs.BLOCK  # Python's own symbols: needed to start it
    seen = run(world, monkeypatch, world.contract("exit 0", dataset="many"), "base.disk", block, once=True)
    assert isinstance(seen.error, Refused)
    assert seen.error.code == "data-corrupted"
    assert not any(name.startswith("attested") for name in seen.phases)
    assert not (seen.folder / "receipt.json").exists()


@pytest.mark.soak
@pytest.mark.parametrize(
    "kind", ["superblock", "root of the tree", "directory", "inode", "leaf of the tree", "last block"]
)
def test_any_kind_of_block_that_cannot_be_read_is_data_that_was_corrupted(world, monkeypatch, kind):
    contract = world.contract(f"{COUNT}; exit 0", "--logs", "bob", dataset="many")
    seen = run(world, monkeypatch, contract, "many.disk", block_of(world, kind))
    assert_corrupted(seen)
    # The kernel reads ahead, to the disk's end when it opens it: how far the room came says nothing.


@pytest.mark.soak
def test_a_read_that_fails_once_and_is_tried_again_counts(world, monkeypatch):
    contract = world.contract(f"{COUNT}; exit 0", dataset="many")
    assert_corrupted(run(world, monkeypatch, contract, "many.disk", block_of(world, "last block"), once=True))


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["superblock", "program"])
def test_a_block_of_the_image_that_cannot_be_read(world, monkeypatch, kind):
    data = world.path("query.disk").read_bytes()
    block = {"superblock": 0, "program": data.index(b"BusyBox v") // erofs.BLOCK}[kind]
    contract = world.contract(f"{COUNT}; busybox; cat /bin/busybox > /dev/null", dataset="many")
    assert_corrupted(run(world, monkeypatch, contract, "query.disk", block))


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["superblock", "library", "tree"])
def test_a_block_of_the_base_that_cannot_be_read_ends_the_machine(world, monkeypatch, kind):
    data = (world.path("base") / "base.disk").read_bytes()
    block = {
        "superblock": 0,
        "library": data.index(b"Py_BytesMain") // erofs.BLOCK,
        "tree": int((world.path("base") / "cmdline").read_text().partition("strongroom.blocks=")[2]) + 1,
    }[kind]
    seen = run(world, monkeypatch, world.contract("exit 0", dataset="many"), "base.disk", block)
    assert seen.error is not None
    assert not any(name.startswith("attested") for name in seen.phases)
    assert not (seen.folder / "receipt.json").exists()
