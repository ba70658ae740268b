"""Real rooms on disks that fail to read: QEMU's own disk behind its error injector, as a host would have it.

A host may answer any read with an error, and so choose which rows of the data count, if the program shrugs at that. The
programs here do: they glob, and tolerate files that cannot be read.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from strongroom.errors import Refused
from strongroom.node import room
from strongroom.node.nitro import nbd
from strongroom.node.qemu import machine as qemu
from strongroom.seal import erofs
from tests.e2e import failing_disks, real_rooms
from tests.e2e.failing_disks import COUNT, Fault, Seen, assert_corrupted, block_of

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]

SECTORS = erofs.BLOCK // 512


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-failed-reads-"))
    made = real_rooms.prepare(root)
    failing_disks.seal_many(made)
    yield made
    made.close()
    shutil.rmtree(root)


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
    return failing_disks.run(
        world,
        contract,
        (image, "many"),
        lambda order, phases: room.Room(
            order=order, on_phase=lambda name, _moment: phases.append(name)
        ).run(),
    )


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


@contextlib.contextmanager
def base_from(server: nbd.NbdServer, folder: Path):
    """QEMU's own NBD client reads the base's disk from `server`: a host that can begin to fail at any time."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "base.socket"))
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    server.take(listener.accept()[0])

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        try:
            yield {
                "driver": "nbd",
                "export": "base",
                "server": {"type": "unix", "path": str(folder / "base.socket")},
            }
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join(60)
            server.close()


def run_on_failing_base(world, monkeypatch, tmp_path, contract, fault) -> Seen:
    """A room whose base is whole until the program has started, and whose host fails as `fault` says from then on."""
    monkeypatch.setattr(nbd, "_transmit", fault.transmit)
    with base_from(nbd.NbdServer({"base": world.path("base") / "base.disk"}), tmp_path) as driver:
        real = qemu.arguments

        def arguments(machine):
            line = real(machine)
            for index, word in enumerate(line):
                if line[index - 1] == "-blockdev" and word.find("base.disk") >= 0:
                    line[index] = json.dumps(json.loads(word) | {"file": driver})
            assert "base.socket" in "".join(line)
            return line

        monkeypatch.setattr(qemu, "arguments", arguments)

        def start(order, phases):
            def on_phase(name, _moment):
                phases.append(name)
                fault.armed |= name == "program-started"

            return room.Room(order=order, on_phase=on_phase).run()

        return failing_disks.run(world, contract, ("query", "many"), start)


@pytest.mark.soak
def test_a_read_of_the_base_that_fails_while_the_room_works_lets_nothing_leave(world, monkeypatch, tmp_path):
    fault = Fault(file="base.disk", block=None, once=True, armed=False)
    contract = world.contract(f"{COUNT}; exit 0", "--logs", "bob", dataset="many")
    seen = run_on_failing_base(world, monkeypatch, tmp_path, contract, fault)
    assert fault.failed
    assert "program-started" in seen.phases
    assert_corrupted(seen)


@pytest.mark.soak
def test_a_base_that_is_gone_while_the_room_works_lets_nothing_leave(world, monkeypatch, tmp_path):
    """The agent may miss code that it has not read yet: then there is no receipt either, and still nothing leaves."""
    fault = Fault(file="base.disk", block=None, armed=False)
    contract = world.contract(f"{COUNT}; exit 0", "--logs", "bob", dataset="many")
    seen = run_on_failing_base(world, monkeypatch, tmp_path, contract, fault)
    print(f"{fault.failed} reads failed; receipt {seen.receipt is not None}, error {seen.error}")
    assert fault.failed
    assert seen.left == set()
    if seen.receipt is not None:
        assert_corrupted(seen)
