"""The tree against the real veritysetup, byte for byte."""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid

import pytest

from strongroom.errors import Malformed, Refused
from strongroom.seal import verity
from tests.unit.seal.trees import noise

BLOCK = 4096


def build(data: bytes) -> tuple[bytes, bytes]:
    """(the file, the root hash)"""
    plan = verity.shape(len(data))
    out = bytearray(data + bytes(plan.disk_bytes - len(data)))
    written = set()

    def write(offset, block):
        assert offset not in written
        written.add(offset)
        out[offset : offset + BLOCK] = block

    tree = verity.TreeWriter(plan, write)
    view = memoryview(data)
    for at in range(0, len(data), 7 * BLOCK):  # runs that fit no tree block
        count = min(7 * BLOCK, len(data) - at)
        tree.update(verity.digests(view[at : at + count], count))
    root = tree.finish()
    assert len(written) * BLOCK == plan.disk_bytes - len(data)
    return bytes(out), root


def content(blocks: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % i).digest() * 128 for i in range(blocks))


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 300, 128 * 128, 128 * 128 + 1])
def test_equals_veritysetup(tmp_path, blocks):
    data = content(blocks)
    made, root = build(data)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(data)
    answer = subprocess.run(
        [
            *("veritysetup", "format", "--salt=-", f"--uuid={uuid.UUID(bytes=verity.UUID)}"),
            *(f"--hash-offset={len(data)}", f"--data-blocks={blocks}", theirs, theirs),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    said = next(line.split()[-1] for line in answer.stdout.splitlines() if line.startswith("Root hash"))
    assert said == root.hex()
    # veritysetup leaves the file after a superblock alone when there is no tree.
    assert theirs.read_bytes().ljust(len(made), b"\x00") == made


def test_veritysetup_verifies_ours_and_notices_a_flip(tmp_path):
    made, root = build(content(300))
    disk = tmp_path / "d"
    command = ["veritysetup", "verify", disk, disk, root.hex(), f"--hash-offset={300 * BLOCK}"]
    disk.write_bytes(made)
    subprocess.run(command, check=True, capture_output=True)
    flipped = bytearray(made)
    flipped[123456] ^= 4
    disk.write_bytes(flipped)
    assert subprocess.run(command, check=False, capture_output=True).returncode


@pytest.mark.parametrize("size", [0, 1, 4095, 4097, -4096, (1 << 38) * 4096 + 4096])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(Malformed, match="bytes is no size for a disk"):
        verity.shape(size)


def test_too_much_and_too_little_are_refused():
    tree = verity.TreeWriter(verity.shape(2 * BLOCK), lambda _at, _block: None)
    with pytest.raises(Malformed, match="less"):
        tree.finish()
    with pytest.raises(Malformed, match="more"):
        tree.update(bytes(32 * 3))


@pytest.fixture
def disk(tmp_path):
    made, root = build(content(300))
    path = tmp_path / "d"
    path.write_bytes(made)
    fd = os.open(path, os.O_RDWR)
    yield fd, root, made
    os.close(fd)


def test_checked_reader_gives_the_data(disk):
    fd, root, made = disk
    reader = verity.CheckedReader(fd, verity.shape(300 * BLOCK), root)
    assert reader.read(0, 300)[: 300 * BLOCK] == made[: 300 * BLOCK]
    assert reader.read(299, 1)[:BLOCK] == made[299 * BLOCK : 300 * BLOCK]


@pytest.mark.parametrize("block", [0, 150, 299, 301, 302, 304])
def test_checked_reader_refuses_whatever_was_changed_even_later(disk, block):
    fd, root, made = disk
    os.pwrite(fd, bytes([made[block * BLOCK + 5] ^ 1]), block * BLOCK + 5)
    reader = verity.CheckedReader(fd, verity.shape(300 * BLOCK), root)
    with pytest.raises(Refused) as caught:
        reader.read(0, 300)
    assert caught.value.code == "disk-corrupt"
    assert f"byte {block * BLOCK})" in str(caught.value)


def test_checked_reader_refuses_blocks_outside(disk):
    fd, root, _ = disk
    reader = verity.CheckedReader(fd, verity.shape(300 * BLOCK), root)
    for first, count in ((-1, 1), (300, 1), (0, 301), (5, -1)):
        with pytest.raises(Malformed, match="lie outside"):
            reader.read(first, count)


def test_one_block_is_its_own_root():
    made, root = build(noise(BLOCK))
    assert root == hashlib.sha256(made[:BLOCK]).digest()
    assert len(made) == 2 * BLOCK
