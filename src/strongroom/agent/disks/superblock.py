"""The superblock of a sealed disk, judged before the kernel's file system sees it.

A sealed disk is made by another party, and its signature says who made it, not that it is harmless. The kernel's erofs
driver has many features (compression, several devices, shared attributes, chunks, fragments); our own writer uses none.
A disk is mounted only when its superblock asks for what `seal/erofs` writes and nothing else.

Layout: Linux 6.12, fs/erofs/erofs_fs.h, struct erofs_super_block, 128 bytes at byte 1024 of the disk.
Not checked here: inodes. Each says for itself how its content is laid out; the kernel decides.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from strongroom.errors import Malformed

_SEALED = (
    "the disk holds no file system that this version writes: seal the data again, and sign the new manifest"
)

OFFSET = 1024
BYTES = 128
MAGIC = 0xE0F5E1E2
_FIELDS = struct.Struct("<IIIBBHQQIIII16s16sI44s")
# Compression, further devices, the size of folder blocks, prefixes of attributes, the packed inode, the filter of attributes.
_REST = bytes(44)


@dataclass(frozen=True, kw_only=True)
class Superblock:
    """What a superblock asks of the kernel. `rest` is everything behind the incompatible features."""

    compatible: int
    block_bits: int
    extra_slots: int
    root: int
    blocks: int
    metadata_block: int
    attribute_block: int
    incompatible: int
    rest: bytes


def parse(data: bytes) -> Superblock:
    """Parse the 128 bytes. Raises `Malformed`, with code `bad-magic` when it is no erofs superblock at all."""
    if len(data) != BYTES:
        raise Malformed(f"superblock: {len(data)} bytes, expected {BYTES}", code="truncated", hint=_SEALED)
    fields = _FIELDS.unpack(data)
    if fields[0] != MAGIC:
        raise Malformed("superblock: no erofs file system", code="bad-magic", hint=_SEALED)
    # Left out: checksum (1), number of inodes (6), time (7, 8), UUID (12), name (13).
    return Superblock(
        compatible=fields[2],
        block_bits=fields[3],
        extra_slots=fields[4],
        root=fields[5],
        blocks=fields[9],
        metadata_block=fields[10],
        attribute_block=fields[11],
        incompatible=fields[14],
        rest=fields[15],
    )


def unexpected(superblock: Superblock, data_bytes: int) -> str:
    """The first field in which a disk of `data_bytes` is not as our own writer makes it, in words; empty for none."""
    expected = Superblock(
        compatible=0x3,  # checksum, and modification times
        block_bits=12,
        extra_slots=0,
        root=128,  # the first inode of block 1, in slots of 32 bytes
        blocks=data_bytes // 4096,
        metadata_block=0,
        attribute_block=0,
        incompatible=0,
        rest=_REST,
    )
    for name, want in vars(expected).items():
        got = getattr(superblock, name)
        if want != got:
            return f"{name.replace('_', ' ')}: expected {_show(want)}, got {_show(got)}"
    return ""


def _show(value: int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:#x}"
