"""dm-verity, version 1: SHA-256 over 4096-byte blocks, with the tree behind the data in the same file.

Format: Linux Documentation/admin-guide/device-mapper/verity.rst, and the superblock of `veritysetup`, whose
output this equals byte for byte::

    veritysetup format --salt=- --uuid=UUID --hash-offset=DATA_BYTES --data-blocks=DATA_BYTES/4096 DISK DISK

The area at `hash_offset`: one block that begins with the superblock, then the tree level by level, its top first.
There is no salt: a salt would make equal disks differ and cost a tenth of the speed, and SHA-256 needs none to be
collision resistant.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 4096
DIGEST = 32
FAN = BLOCK // DIGEST
SALT = b""
UUID = bytes.fromhex("5354524f4e47524f4f4d564552495459")  # fixed: same input, same bytes
MAX_DATA_BLOCKS = 1 << 38

_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")
_CACHED_BLOCKS = 256


@dataclass(frozen=True, kw_only=True)
class VerityShape:
    """Where data, superblock and tree lie. Numbers are blocks; `levels` begins with the one just above the data.

    Each level is (first block, number of blocks), counted from the start of the file. A disk of one
    data block has no level: its root hash is that block's.
    """

    data_blocks: int
    levels: tuple[tuple[int, int], ...]

    @property
    def disk_bytes(self) -> int:
        """The size of data, superblock and tree together."""
        return (self.data_blocks + 1 + sum(count for _, count in self.levels)) * BLOCK


def shape(data_bytes: int) -> VerityShape:
    """The shape for `data_bytes` of data, a positive multiple of 4096."""
    count, rest = divmod(data_bytes, BLOCK)
    if rest or not 0 < count <= MAX_DATA_BLOCKS:
        raise Malformed(f"verity: {data_bytes} bytes is no size for a disk")
    counts: list[int] = []
    width = count
    while width > 1:
        width = -(-width // FAN)
        counts.append(width)
    levels: list[tuple[int, int]] = []
    position = count + 1
    for width in reversed(counts):
        levels.append((position, width))
        position += width
    return VerityShape(data_blocks=count, levels=tuple(reversed(levels)))


def superblock(data_blocks: int) -> bytes:
    """The block at `hash_offset`."""
    fixed = _SUPERBLOCK.pack(b"verity", 1, 1, UUID, b"sha256", BLOCK, BLOCK, data_blocks, len(SALT), SALT)
    return fixed + bytes(BLOCK - len(fixed))


def digests(view: memoryview, count: int) -> bytes:
    """The digests of the blocks in the first `count` bytes of `view`, one after the other."""
    sha256 = hashlib.sha256
    return b"".join([sha256(view[at : at + BLOCK]).digest() for at in range(0, count, BLOCK)])


class TreeWriter:
    """Builds the tree from the data blocks' digests as they come, one open block per level in memory.

    `write(offset, block)` receives the superblock and every finished tree block, with its place in the file (bytes).
    """

    def __init__(self, plan: VerityShape, write: Callable[[int, bytes], None]) -> None:
        self._plan = plan
        self._write = write
        self._open = [bytearray() for _ in plan.levels]
        self._done = [0 for _ in plan.levels]
        self._root = b""
        self._seen = 0

    def update(self, run: bytes) -> None:
        """Take the digests of the next data blocks."""
        self._seen += len(run) // DIGEST
        if self._seen > self._plan.data_blocks:
            raise Malformed("verity: more data than announced")
        self._add(0, run)

    def finish(self) -> bytes:
        """Write what is still open, and the superblock; returns the root hash."""
        if self._seen != self._plan.data_blocks:
            raise Malformed("verity: less data than announced")
        for level in range(len(self._open)):
            if self._open[level]:
                self._close(level)
        self._write(self._plan.data_blocks * BLOCK, superblock(self._plan.data_blocks))
        return self._root

    def _add(self, level: int, run: bytes) -> None:
        if level == len(self._open):
            self._root = run
            return
        block = self._open[level]
        at = 0
        while at < len(run):
            part = run[at : at + BLOCK - len(block)]
            block += part
            at += len(part)
            if len(block) == BLOCK:
                self._close(level)

    def _close(self, level: int) -> None:
        block = bytes(self._open[level]).ljust(BLOCK, b"\x00")
        self._open[level].clear()
        first, _ = self._plan.levels[level]
        self._write((first + self._done[level]) * BLOCK, block)
        self._done[level] += 1
        self._add(level + 1, hashlib.sha256(block).digest())


class CheckedReader:
    """Reads data blocks of a disk and returns none that the root hash does not vouch for.

    What dm-verity does in the room, done here: each block is hashed when it is read, and so is each tree
    block above it, up to the root, so that a file that changes under the reader changes nothing but the refusal.
    """

    def __init__(self, fd: int, plan: VerityShape, root: bytes) -> None:
        self._fd = fd
        self._plan = plan
        self._root = root
        self._cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def read(self, first: int, count: int) -> bytearray:
        """`count` data blocks from block `first`, and `BLOCK` spare bytes. Raises `Refused`, or `Malformed` past the end."""
        if first < 0 or count < 0 or first + count > self._plan.data_blocks:
            raise Malformed(f"disk: blocks {first} to {first + count} lie outside", code="out-of-bounds")
        buffer = bytearray((count + 1) * BLOCK)
        view = memoryview(buffer)
        read_fully(self._fd, view[: count * BLOCK], first * BLOCK)
        for index in range(count):
            digest = hashlib.sha256(view[index * BLOCK : (index + 1) * BLOCK]).digest()
            if digest != self._expected(0, first + index):
                raise corrupt(f"data block {first + index} (byte {(first + index) * BLOCK})")
        return buffer

    def check_tree_block(self, level: int, index: int) -> None:
        """Raise `Refused` unless this block of the stored tree is the one that the root hash covers."""
        self._tree_block(level, index)

    def _expected(self, level: int, index: int) -> bytes:
        """The digest that block `index` below `level` must have."""
        if level == len(self._plan.levels):
            return self._root
        block = self._tree_block(level, index // FAN)
        return block[index % FAN * DIGEST : (index % FAN + 1) * DIGEST]

    def _tree_block(self, level: int, index: int) -> bytes:
        cached = self._cache.get((level, index))
        if cached is not None:
            self._cache.move_to_end((level, index))
            return cached
        first, _ = self._plan.levels[level]
        buffer = bytearray(BLOCK)
        read_fully(self._fd, memoryview(buffer), (first + index) * BLOCK)
        block = bytes(buffer)
        if hashlib.sha256(block).digest() != self._expected(level + 1, index):
            raise corrupt(f"hash block {index} of level {level} (byte {(first + index) * BLOCK})")
        self._cache[level, index] = block
        if len(self._cache) > _CACHED_BLOCKS:
            self._cache.popitem(last=False)
        return block


def read_fully(fd: int, view: memoryview, offset: int) -> None:
    """Fill `view` from byte `offset` of `fd`. Raises `Refused` when the file ends before."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if not count:
            raise corrupt(f"the file ends at byte {offset + done}; something")
        done += count


def corrupt(what: str) -> Refused:
    """The refusal of a disk that is not what its manifest says."""
    return Refused(
        f"{what} is not what the manifest says",
        code="disk-corrupt",
        hint="do not use this disk; get it again from its owner",
    )
