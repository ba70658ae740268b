"""`base.disk`: the base's tree as EROFS, with its dm-verity superblock and hash tree right behind.

Both are written by `seal` from their published formats, so that the bytes depend on no tool of the machine that
builds. Not compressed: under emulation the kernel's decompression costs what the shorter reads save.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from strongroom.seal import erofs, verity
from strongroom.seal.tree import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from strongroom.bases.files import File

FOLDER_MODE = 0o755


@dataclass(frozen=True, kw_only=True)
class BaseDisk:
    """The disk's bytes, its root hash (32 bytes) and its number of 4096-byte data blocks."""

    content: bytes
    root_hash: bytes
    data_blocks: int


def write(files: Mapping[str, File], *, folders: Iterable[str]) -> BaseDisk:
    """The disk of a tree: `files` by path, and `folders` that must be there though empty. All is root's, of time 0."""
    plan = erofs.layout(entries(files, folders=folders))
    shape = verity.shape(plan.data_bytes)
    disk = bytearray(shape.disk_bytes)
    data = memoryview(disk)[: plan.data_bytes]
    erofs.ImageStream(plan).fill(data)

    def place(offset: int, block: bytes) -> None:
        disk[offset : offset + len(block)] = block

    tree = verity.TreeWriter(shape, place)
    tree.update(verity.digests(data, plan.data_bytes))
    data.release()
    root = tree.finish()
    return BaseDisk(content=bytes(disk), root_hash=root, data_blocks=shape.data_blocks)


def root_hash(disk: bytes) -> tuple[bytes, int] | None:
    """Root hash and number of data blocks of a disk that `write` made, computed from the data; None when it is no such
    disk: when its size, superblock or stored tree are not what its data demand.
    """
    low = data_blocks(len(disk))
    if low is None:
        return None
    shape = verity.shape(low * verity.BLOCK)
    sound = True

    def compare(offset: int, block: bytes) -> None:
        nonlocal sound
        sound = sound and disk[offset : offset + len(block)] == block

    tree = verity.TreeWriter(shape, compare)
    tree.update(verity.digests(memoryview(disk), low * verity.BLOCK))
    root = tree.finish()
    return (root, low) if sound else None


def data_blocks(disk_bytes: int) -> int | None:
    """The number of data blocks of a disk of this size; None when no disk has it."""
    low, high = 1, max(disk_bytes // verity.BLOCK, 1)
    while low < high:  # the size grows with the number of data blocks
        middle = (low + high) // 2
        if verity.shape(middle * verity.BLOCK).disk_bytes < disk_bytes:
            low = middle + 1
        else:
            high = middle
    return low if verity.shape(low * verity.BLOCK).disk_bytes == disk_bytes else None


def entries(files: Mapping[str, File], *, folders: Iterable[str]) -> list[Entry]:
    """The tree as `seal` takes it."""
    names = {"", *folders}
    for path in (*files, *folders):
        parts = path.split("/")[:-1]
        names |= {"/".join(parts[: count + 1]) for count in range(len(parts))}
    out = [Entry(path=name.encode(), kind=EntryKind.DIRECTORY, mode=FOLDER_MODE) for name in names]
    for path, file in files.items():
        opened = partial(io.BytesIO, file.content)
        out.append(
            Entry(
                path=path.encode(), kind=EntryKind.FILE, mode=file.mode, size=len(file.content), open=opened
            )
        )
    return out
