"""The writer against its peers: erofs-utils, and this machine's own kernel where it may mount."""

# Names here are bytes, which pathlib does not know.
# ruff: noqa: PTH208, PTH118, PTH123, PTH115

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from strongroom.errors import Conflict, Malformed
from strongroom.seal import browse, erofs
from strongroom.seal.tree import Entry, EntryKind, validate
from tests.unit.seal.erofs_check import complaints
from tests.unit.seal.trees import ACL, CAPABILITY, file, folder, link, noise, rich

if TYPE_CHECKING:
    from pathlib import Path


def image(entries, path: Path) -> Path:
    with path.open("wb") as out:
        for run in erofs.blocks(erofs.layout(entries)):
            out.write(run)
    return path


def test_size_is_known_before_content(tmp_path):
    plan = erofs.layout(rich())
    assert image(rich(), tmp_path / "i").stat().st_size == plan.data_bytes


def test_same_tree_same_bytes_whatever_the_order_and_piece():
    one = b"".join(erofs.blocks(erofs.layout(rich())))
    two = b"".join(erofs.blocks(erofs.layout(reversed(rich())), piece=4096))
    assert one == two


def test_fsck_accepts_and_extracts_the_same(tmp_path):
    made = image(rich(), tmp_path / "i")
    assert complaints(made, f"--extract={tmp_path / 'x'}") == []
    # Its extraction sets modes before owners, which clears setuid and the like.
    _assert_same_on_disk(rich(), tmp_path / "x", modes=0o777)


def test_fsck_refuses_a_damaged_superblock(tmp_path):
    made = image([folder()], tmp_path / "i")
    data = bytearray(made.read_bytes())
    data[1040] ^= 1
    made.write_bytes(data)
    assert complaints(made)


@contextlib.contextmanager
def mounted(made: Path, where: Path):
    where.mkdir()
    answer = subprocess.run(
        ["mount", "-t", "erofs", "-o", "loop,ro", made, where], check=False, capture_output=True, text=True
    )
    if answer.returncode:
        pytest.skip(f"this kernel does not mount erofs here: {answer.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.mark.root
def test_the_kernel_reads_the_same(tmp_path):
    with mounted(image(rich(), tmp_path / "i"), tmp_path / "m") as root:
        _assert_same_on_disk(rich(), root)
        status = (root / "a/x").stat()
        assert (status.st_uid, status.st_gid, int(status.st_mtime)) == (70000, 80000, 1 << 33)
        assert stat.S_IMODE(status.st_mode) == 0o4755
        assert status.st_nlink == 2
        assert status.st_ino == (root / "a/y").stat().st_ino
        assert (root / "many").stat().st_nlink == 62
        assert os.getxattr(root / "a/x", "user.k") == b"v"
        assert os.getxattr(root / "a/x", "security.capability") == CAPABILITY
        assert os.getxattr(root / "a/x", "system.posix_acl_access") == ACL
        assert os.getxattr(root / "big-xattrs", "user.7") == bytes([7]) * 3000
        # Lookups go through the folder's order: each name is found, its neighbours are not.
        for entry in rich():
            assert os.path.lexists(os.fsencode(root) + b"/" + entry.path)
            assert not os.path.lexists(os.fsencode(root) + b"/" + entry.path + b"~")


@pytest.mark.root
def test_the_kernel_lists_large_folders(tmp_path):
    names = [b"%08d-%b" % (i, b"x" * (i % 240)) for i in range(5000)]
    entries = [folder(), folder(b"d")] + [file(b"d/" + name) for name in names]
    with mounted(image(entries, tmp_path / "i"), tmp_path / "m") as root:
        assert sorted(os.listdir(os.fsencode(root / "d"))) == names


def _assert_same_on_disk(entries, root: Path, modes: int = 0o7777) -> None:
    expected = {entry.path: entry for entry in validate(entries)}
    base = os.fsencode(root)
    seen = {b""}
    for at, folders, files in os.walk(base):
        seen |= {os.path.relpath(os.path.join(at, name), base) for name in folders + files}
    assert seen == set(expected)
    for path, entry in expected.items():
        where = base + b"/" + path
        mode = os.lstat(where).st_mode
        if entry.kind is EntryKind.FILE:
            assert stat.S_ISREG(mode)
            with open(where, "rb") as made, entry.open() as wanted:
                assert made.read() == wanted.read()
        elif entry.kind is EntryKind.SYMLINK:
            assert os.readlink(where) == entry.target
        else:
            assert stat.S_ISDIR(mode)
        if entry.kind is not EntryKind.SYMLINK and path:
            assert stat.S_IMODE(mode) & modes == entry.mode & modes


@pytest.mark.parametrize("claimed", [0, 1, 4096, 9_999, 10_001, 1 << 20])
def test_content_of_another_size_is_refused(claimed):
    lying = Entry(
        path=b"f", kind=EntryKind.FILE, mode=0, size=claimed, open=lambda: io.BytesIO(bytes(10_000))
    )
    if claimed == 0:  # an empty file has no block and is never opened
        assert erofs.layout([folder(), lying]).data_bytes == 2 * 4096
        return
    with pytest.raises(Conflict) as caught:
        list(erofs.blocks(erofs.layout([folder(), lying])))
    assert caught.value.code == "source-changed"


def test_the_largest_sizes_are_placed_and_one_more_is_refused():
    huge = [
        Entry(path=b"%d" % i, kind=EntryKind.FILE, mode=0, size=1 << 43, open=io.BytesIO) for i in range(2)
    ]
    assert erofs.layout([folder(), huge[0]]).data_bytes == (1 << 43) + 8192
    with pytest.raises(Malformed, match="16 TiB"):
        erofs.layout([folder(), *huge])


def test_crc32c_known_answer():
    # RFC 3720, B.4: 32 bytes of zeros; the register's final inversion is left out here.
    assert erofs.crc32c(bytes(32)) == 0x8A9136AA ^ 0xFFFFFFFF


def test_reader_gives_back_what_was_written(tmp_path):
    data = image(rich(), tmp_path / "i").read_bytes()
    found = browse.tree(lambda first, count: data[first * 4096 : (first + count) * 4096], len(data))
    wanted = validate(rich())
    assert [e.path for e in found] == [e.path for e in wanted]
    for one, other in zip(found, wanted, strict=True):
        for name in ("kind", "mode", "uid", "gid", "mtime", "size", "target", "xattrs"):
            assert getattr(one, name) == getattr(other, name), (one.path, name)
        if one.open is not None:
            with one.open() as a, other.open() as b:
                assert a.read() == b.read()
    groups = {e.path: e.link_group for e in found}
    assert groups[b"a/x"] == groups[b"a/y"] is not None


def test_a_link_beside_a_block_border_is_kept_whole(tmp_path):
    entries = [folder()] + [
        link(b"%04d" % i, noise(10 + i * 37 % 3900).replace(b"\x00", b"x")) for i in range(200)
    ]
    assert complaints(image(entries, tmp_path / "i")) == []
