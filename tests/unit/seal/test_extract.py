"""What is unpacked lands in its folder: whatever the tree says, and whoever changes the folder meanwhile."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile

import pytest

from strongroom.errors import Malformed
from strongroom.images import results
from strongroom.seal import extract
from strongroom.seal.tree import Entry, EntryKind
from tests.unit.seal.trees import file, folder, link

PLANTED = b"planted"


def unpack(entries, target, *, foreign_links=False):
    with extract.staged(target) as stage:
        extract.write(entries, stage, foreign_links=foreign_links, progress=lambda _done, _total: None)


def unpack_result(target, *members: tuple[str, bytes, bytes | str]) -> None:
    """Unpack a tar of (name, type, content or link) in this very order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, what in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            content = what if isinstance(what, bytes) else b""
            info.linkname = what if isinstance(what, str) else ""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tempfile.TemporaryFile() as source:
        source.write(out.getvalue())
        source.flush()
        unpack(results.tree(source.fileno(), len(out.getvalue()), what="result"), target)


@pytest.mark.parametrize(
    ("code", "members"),
    [
        # Through other links, each of which stays inside by its letters.
        ("escaping-symlink", [("c1", tarfile.DIRTYPE, b""), ("c1/up", tarfile.SYMTYPE, ".."), ("esc", tarfile.SYMTYPE, "c1/up/../.ssh/id")]),
        ("escaping-symlink", [("a", tarfile.SYMTYPE, "."), ("esc", tarfile.SYMTYPE, "a/../outside")]),
        ("escaping-symlink", [("esc", tarfile.SYMTYPE, "b"), ("b", tarfile.SYMTYPE, "../outside")]),
        ("escaping-symlink", [("a", tarfile.SYMTYPE, "b"), ("b", tarfile.SYMTYPE, "a")]),
        ("escaping-symlink", [("esc", tarfile.SYMTYPE, "/etc/passwd")]),
        # A link first, and then a file through it.
        ("no-parent", [("l", tarfile.SYMTYPE, "../outside"), ("l/f", tarfile.REGTYPE, PLANTED)]),
        ("no-parent", [("l", tarfile.SYMTYPE, "."), ("l/f", tarfile.REGTYPE, PLANTED)]),
        ("duplicate-path", [("l", tarfile.SYMTYPE, "f"), ("l", tarfile.REGTYPE, PLANTED)]),
        # Hard links, and names that climb.
        ("special-file", [("h", tarfile.LNKTYPE, "/etc/passwd")]),
        ("path-escape", [("f", tarfile.REGTYPE, b""), ("h", tarfile.LNKTYPE, "../f")]),
        ("path-escape", [("../outside", tarfile.REGTYPE, PLANTED)]),
        ("path-escape", [("d/../../outside", tarfile.REGTYPE, PLANTED)]),
    ],
)  # fmt: skip
def test_a_hostile_result_leaves_nothing(tmp_path, code, members):
    with pytest.raises(Malformed) as caught:
        unpack_result(tmp_path / "result", *members)
    assert caught.value.code == code
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - names


def test_an_absolute_name_is_one_of_the_folder(tmp_path):
    unpack_result(tmp_path / "result", ("/etc/passwd", tarfile.REGTYPE, PLANTED))
    assert (tmp_path / "result/etc/passwd").read_bytes() == PLANTED


def test_a_disks_links_are_followed_too(tmp_path):
    entries = [folder(), folder(b"c1"), link(b"c1/up", b".."), link(b"esc", b"c1/up/../.ssh/id")]
    with pytest.raises(Malformed, match="leads outside"):
        unpack(entries, tmp_path / "data")
    unpack(entries, tmp_path / "image", foreign_links=True)  # an image's links mean the image's own top
    assert (tmp_path / "image/esc").is_symlink()


def test_links_that_stay_inside_are_written_and_lead_where_they_led(tmp_path):
    entries = [
        *(folder(), folder(b"d"), file(b"d/f", b"content")),
        *(
            link(b"up", b"d/.."),
            link(b"d/self", b"../up/d"),
            link(b"l", b"d/self/../d/f"),
            link(b"gone", b"no/x"),
        ),
    ]
    unpack(entries, tmp_path / "data")
    assert (tmp_path / "data/l").read_bytes() == b"content"
    root = os.path.realpath(tmp_path / "data")
    for entry in entries:
        assert os.path.realpath(os.path.join(root, os.fsdecode(entry.path))).startswith(root)  # noqa: PTH118


@pytest.mark.parametrize("kind", [EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.SYMLINK, "hard link"])
def test_a_folder_that_becomes_a_link_meanwhile_is_not_written_through(tmp_path, kind):
    """As somebody with the owner's rights could do, or a flaw of ours: the file system itself says no."""
    outside = tmp_path / "outside"
    outside.mkdir()

    def swap() -> io.BytesIO:
        (stage,) = tmp_path.glob(".data.*")
        (stage / "d").rename(stage / "was")
        (stage / "d").symlink_to(outside)
        return io.BytesIO(b"x")

    first = {"kind": EntryKind.FILE, "mode": 0o644, "size": 1, "open": swap, "link_group": 1}
    entries = [folder(), folder(b"d"), Entry(path=b"d-", **first)]  # sorts between "d" and what is in it
    if kind is EntryKind.FILE:
        entries.append(file(b"d/planted", PLANTED))
    elif kind is EntryKind.DIRECTORY:
        entries.append(folder(b"d/planted"))
    elif kind is EntryKind.SYMLINK:
        entries.append(link(b"d/planted", b"f"))
    else:
        entries.append(Entry(path=b"d/planted", **first))
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        unpack(entries, tmp_path / "data")
    assert list(outside.iterdir()) == []


def test_modes_times_and_hard_links_are_kept(tmp_path):
    shared = {"mode": 0o4755, "mtime": 1000, "link_group": 1}
    unpack(
        [
            folder(mtime=7),
            folder(b"d", 0o1500, mtime=5),
            file(b"d/f", b"x", **shared),
            file(b"g", b"x", **shared),
        ],
        tmp_path / "data",
    )
    first, second = (tmp_path / "data/d/f").stat(), (tmp_path / "data/g").stat()
    assert first.st_ino == second.st_ino
    assert (first.st_mode & 0o7777, first.st_mtime) == (0o755, 1000)
    assert ((tmp_path / "data/d").stat().st_mode & 0o7777, (tmp_path / "data/d").stat().st_mtime) == (
        0o700,
        5,
    )
    assert (tmp_path / "data").stat().st_mtime == 7


def test_fifos_of_an_image_are_made_and_those_of_data_refused(tmp_path):
    entries = [folder(b""), Entry(path=b"pipe", kind=EntryKind.FIFO, mode=0o622, mtime=1_600_000_000)]
    unpack(entries, tmp_path / "image", foreign_links=True)
    status = (tmp_path / "image/pipe").lstat()
    assert stat.S_ISFIFO(status.st_mode)
    assert status.st_mtime == 1_600_000_000
    with pytest.raises(Malformed, match="'pipe' is a fifo, and data has none"):
        unpack(entries, tmp_path / "data")
    assert not (tmp_path / "data").exists()
