"""Rooms on disks that fail to read: the data they read, what came of them, and a node whose storage fails as it is told."""

from __future__ import annotations

import errno
import struct
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import StrongroomError
from strongroom.model import manifest as manifest_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.receipt import Outcome
from strongroom.model.room import nbd as wire
from strongroom.node import disks, room
from strongroom.node.nitro import nbd
from strongroom.node.vtpm import state
from strongroom.seal import erofs, folder
from tests.e2e.real_rooms import strongroom

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.model.receipt import Receipt
    from tests.e2e.real_rooms import World

FILES = 300
COUNT = "cat /data/flights/*.csv 2>/dev/null | wc -l > /out/rows"


def seal_many(world: World) -> None:
    """A dataset `many` of alice's: one row to a file."""
    root = world.root
    (root / "many").mkdir()
    for number in range(FILES):
        (root / f"many/{number:04}.csv").write_text(f"{number}\n")
    strongroom("seal", root / "many", "-i", root / "alice.identity", "--name", "many", "--out", root)
    strongroom(
        "broker", "add-key", root / "broker", root / "many.manifest.json", root / "many.key.age",
        "-i", root / "alice.identity",
    )  # fmt: skip


def block_of(world: World, kind: str) -> int:
    """The block of that dataset's disk that is of that kind. Encryption moves none."""
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


def run(
    world: World,
    contract: Path,
    names: tuple[str, ...],
    start: Callable[[room.Order, list[str]], room.RoomResult],
    **changes: Path,
) -> Seen:
    """Run that contract over the disks `names`. start: runs the order, and notes its phases. changes: of the order."""
    agreement = agreement_model.read(contract.read_bytes())
    drives, manifests = disks.match(
        agreement.contract,
        agreement.contract.rooms[0],
        [disks.load(world.path(f"{name}.disk")) for name in names],
    )
    seen = Seen(folder=world.path(f"run-{contract.stem}"), seconds=time.monotonic())
    seen.folder.mkdir()
    order = room.Order(
        room="main", node=state.load(world.path("node")), base=world.path("base"), agreement=agreement,
        drives=drives, manifests=manifests, out=seen.folder, guarded=False,
    )  # fmt: skip
    try:
        seen.receipt = start(replace(order, **changes), seen.phases).receipt
    except StrongroomError as cause:
        seen.error = cause
    seen.seconds = time.monotonic() - seen.seconds
    return seen


def assert_corrupted(seen: Seen) -> None:
    assert seen.error is None
    assert seen.receipt is not None
    assert seen.receipt.outcome is Outcome.DATA_CORRUPTED
    assert seen.receipt.outputs == ()
    assert len(seen.receipt.details) == 1
    assert seen.left == set()


@dataclass(kw_only=True)
class Fault:
    """What is wrong with the node's storage, as the node's NBD server meets it: reads of that block of that file fail.

    block: None is every block. hang_up: the server goes instead of answering. once: only the first read. armed: from
    when on.
    """

    file: str
    block: int | None
    hang_up: bool = False
    once: bool = False
    armed: bool = True
    failed: int = 0

    def transmit(self, connection: socket.socket, fd: int, _size: int) -> None:
        """In the place of the server's own."""
        while True:
            _, _, kind, cookie, offset, length = struct.unpack(wire.REQUEST, wire.receive(connection, 28))
            if kind != wire.READ:
                return
            fails = self._meets(fd, offset, length)
            if fails and self.hang_up:
                return
            connection.sendall(struct.pack(">IIQ", wire.REPLY_MAGIC, errno.EIO if fails else 0, cookie))
            if not fails:
                nbd._send(connection, fd, offset, length)

    def _meets(self, fd: int, offset: int, length: int) -> bool:
        if not self.armed or Path(f"/proc/self/fd/{fd}").readlink().name != self.file:
            return False
        if self.block is not None and not offset <= self.block * wire.BLOCK < offset + length:
            return False
        self.failed += 1
        return not self.once or self.failed == 1
