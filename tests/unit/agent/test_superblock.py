"""A sealed disk's superblock: what our own writer makes, and nothing that asks the kernel for more."""

from __future__ import annotations

import pytest

from strongroom.agent.disks import superblock
from strongroom.errors import Malformed
from strongroom.seal import erofs
from strongroom.seal.tree import Entry, EntryKind

PLAN = erofs.layout([Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0o755)])
OURS = next(erofs.blocks(PLAN))[superblock.OFFSET : superblock.OFFSET + superblock.BYTES]


def changed(place: int, value: bytes) -> bytes:
    return OURS[:place] + value + OURS[place + len(value) :]


def unexpected(data: bytes) -> str:
    return superblock.unexpected(superblock.parse(data), PLAN.data_bytes)


def test_what_our_writer_makes_is_mounted():
    assert unexpected(OURS) == ""


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (8, b"\x07", "compatible: expected 0x3, got 0x7"),  # attribute filter
        (8, b"\x00", "compatible: expected 0x3, got 0x0"),
        (12, b"\x09", "block bits"),
        (13, b"\x01", "extra slots"),  # a larger superblock
        (14, b"\x24\x00", "root"),
        (36, b"\xff\xff\xff\xff", "blocks"),
        (40, b"\x01", "metadata block"),
        (44, b"\x01", "attribute block"),
        (80, b"\x01", "incompatible: expected 0x0, got 0x1"),  # LZ4 with padding at the front
        (80, b"\x02", "incompatible"),  # compression by configuration
        (80, b"\x04", "incompatible"),  # files in chunks
        (80, b"\x08", "incompatible"),  # several devices
        (80, b"\x10", "incompatible"),  # compressed tails
        (80, b"\x20", "incompatible"),  # fragments
        (80, b"\x40", "incompatible"),  # prefixes of attributes
        (83, b"\x80", "incompatible"),  # of a kernel to come
        (84, b"\x01", "rest"),  # LZ4's window, or the algorithms
        (86, b"\x01", "rest"),  # further devices
        (90, b"\x01", "rest"),  # the size of folder blocks
        (91, b"\x01", "rest"),  # prefixes of attributes
        (96, b"\x01", "rest"),  # packed inode
        (127, b"\x01", "rest"),
    ],
)
def test_what_asks_for_more_is_not_mounted(place, value, field):
    assert unexpected(changed(place, value)).startswith(field)


def test_every_byte_that_decides_anything_counts():
    """Free are what the kernel only checks, counts or shows: checksum, number of inodes, times, UUID, name."""
    free = {*range(4, 8), *range(16, 36), *range(48, 80)}
    for place in set(range(4, superblock.BYTES)) - free:
        assert unexpected(changed(place, bytes([OURS[place] ^ 0x80]))), place


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (OURS[:-1], "truncated"),
        (OURS + b"\0", "truncated"),
        (b"", "truncated"),
        (changed(0, b"\0"), "bad-magic"),
    ],
)
def test_no_superblock_at_all(data, code):
    with pytest.raises(Malformed) as caught:
        superblock.parse(data)
    assert caught.value.code == code
