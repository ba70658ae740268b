"""Initrds read back: our own writer's and the cpio tool's, and what neither would write."""

from __future__ import annotations

import subprocess

import pytest

from strongroom.bases import cpio, initramfs
from strongroom.bases.files import File
from strongroom.errors import Malformed
from strongroom.seal.tree import EntryKind


def shown(entries):
    out = {}
    for one in entries:
        content = one.open().read() if one.open else one.target
        out[one.path] = (one.kind, one.mode, content)
    return out


def test_what_the_initrds_writer_writes_reads_back():
    archive = initramfs.archive(
        {"init": File(content=b"#!", executable=True), "lib/a": File(content=b"abc")}, folders=("dev",)
    )
    assert shown(cpio.tree(archive)) == {
        b"": (EntryKind.DIRECTORY, 0o755, b""),
        b"dev": (EntryKind.DIRECTORY, 0o755, b""),
        b"init": (EntryKind.FILE, 0o755, b"#!"),
        b"lib": (EntryKind.DIRECTORY, 0o755, b""),
        b"lib/a": (EntryKind.FILE, 0o644, b"abc"),
    }


def test_what_cpio_writes_reads_back(tmp_path):
    (tmp_path / "sub").mkdir(mode=0o750)
    (tmp_path / "sub" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("sub/file")
    made = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        cwd=tmp_path,
        input=b".\nsub\nsub/file\nlink\n",
        capture_output=True,
        check=True,
    )
    found = shown(cpio.tree(made.stdout))
    assert found[b"sub/file"][2] == b"12345"
    assert found[b"link"] == (EntryKind.SYMLINK, 0o777, b"sub/file")
    assert found[b"sub"][:2] == (EntryKind.DIRECTORY, 0o750)


ARCHIVE = initramfs.archive({"init": File(content=b"#!")})
RECORD = ARCHIVE[: ARCHIVE.index(b"070701", 6)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no header of format newc"),
        (b"\x1f\x8b" + bytes(200), "no header of format newc"),  # compressed
        (ARCHIVE[:100], "no header of format newc"),
        (ARCHIVE[: len(ARCHIVE) - 130], "a record is cut short"),  # no trailer
        (
            ARCHIVE + ARCHIVE,
            "bytes behind the trailer",
        ),  # a second archive would be unpacked over the first
        (ARCHIVE + b"!", "bytes behind the trailer"),
        (RECORD + ARCHIVE, "'init' is there twice"),  # one path twice
        (ARCHIVE.replace(b"init\0", b"in/t\0"), "'in/t' is in no listed folder"),  # in no listed folder
        (ARCHIVE.replace(b"init\0", b"../i\0"), "expected a name of 1 to 255 bytes"),
        (ARCHIVE.replace(b"000081A4", b"000021A4"), "'init': of a type that has no place here"),  # a device
        (
            ARCHIVE.replace(b"00000002", b"FFFFFFFF", 1).replace(b"000081A4", b"000081A4"),
            "a record is cut short",
        ),
    ],
)
def test_what_no_initrd_of_ours_is_is_malformed(data, why):
    with pytest.raises(Malformed, match=why):
        cpio.tree(data)
