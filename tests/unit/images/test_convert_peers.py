"""The tree that we make is the tree that other people's tools make."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from strongroom.seal.tree import EntryKind
from tests.unit.images.kit import (
    ACCOUNTS,
    END,
    PROGRAM,
    Layout,
    entry,
    folder,
    hardlink,
    pax,
    symlink,
)
from tests.unit.images.sealed_tar import seal

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.seal.tree import Entry

# The capability net_bind_service, as the kernel stores it (revision 2).
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

LOWER = (
    folder(b"./")
    + PROGRAM
    + ACCOUNTS
    + entry(b"bin/su", b"su" * 5000, mode=0o4755)
    + pax({b"SCHILY.xattr.security.capability": CAPABILITY, b"SCHILY.xattr.user.note": b"a=b\0c"})
    + entry(b"bin/ping", b"ping", mode=0o755)
    + folder(b"opaque/", mode=0o700, uid=5, gid=6)
    + entry(b"opaque/old", b"1")
    + folder(b"kept/", mode=0o2775, gid=50)
    + entry(b"kept/a", b"a", uid=1000, gid=100)
    + entry(b"kept/gone", b"x")
    + entry(b"becomes-dir", b"x")
    + folder(b"becomes-file/")
    + entry(b"becomes-file/x/y", b"x")
    + hardlink(b"kept/b", b"kept/a")
    + symlink(b"abs", b"/etc/passwd", uid=7)
    + symlink(b"kept/rel", b"../../../../etc/shadow")
    + folder(b"var/tmp/", mode=0o1777)
    + entry(b"n\xc3\xa4me \xff\xfe", b"bytes")
    + pax({b"path": b"deep/" + b"/".join([b"d" * 60] * 5)})
    + entry(b"x", b"long")
    + entry(b"empty")
    + END
)
UPPER = (
    entry(b"kept/.wh.gone")
    + entry(b"opaque/.wh..wh..opq")
    + entry(b"opaque/new", b"2")
    + folder(b"becomes-dir/", mode=0o711)
    + entry(b"becomes-dir/child", b"c")
    + entry(b"becomes-file", b"file")
    + hardlink(b"kept/c", b"kept/a")
    + entry(b"etc/motd", b"hello")
    + END
)


def described(entries: tuple[Entry, ...]) -> dict[bytes, Any]:
    out: dict[bytes, Any] = {}
    for one in entries:
        data = b""
        if one.open is not None:
            with one.open() as source:
                data = source.read()
        times = 0 if one.kind is EntryKind.DIRECTORY else one.mtime
        mode = 0o777 if one.kind is EntryKind.SYMLINK else one.mode
        row = (one.kind, mode, one.uid, one.gid, times, data, one.target, dict(one.xattrs))
        out[one.path] = row
    return out


def on_disk(root: Path) -> dict[bytes, Any]:
    out: dict[bytes, Any] = {}
    for place in [root, *root.rglob("*")]:
        status = place.lstat()
        data, target, xattrs = b"", b"", {}
        if place.is_symlink():
            kind, target = EntryKind.SYMLINK, os.fsencode(place.readlink())
        else:
            kind = EntryKind.DIRECTORY if place.is_dir() else EntryKind.FILE
            data = place.read_bytes() if kind is EntryKind.FILE else b""
            xattrs = {os.fsencode(one): os.getxattr(place, one) for one in os.listxattr(place)}
        times = 0 if kind is EntryKind.DIRECTORY else int(status.st_mtime)
        mode = 0o777 if kind is EntryKind.SYMLINK else status.st_mode & 0o7777
        path = b"" if place == root else os.fsencode(place.relative_to(root))
        out[path] = (kind, mode, status.st_uid, status.st_gid, times, data, target, xattrs)
    return out


ADDED = {b"data", b"out", b"tmp", b"proc", b"sys", b"dev", b"run"}


@pytest.mark.root
@pytest.mark.parametrize("compression", ["", "+gzip"])
def test_the_same_tree_as_umoci_unpacks(tmp_path: Path, compression: str) -> None:
    layout = Layout(tmp_path / "image")
    row = layout.image(LOWER, UPPER, compression=compression)
    layout.index(row | {"annotations": {"org.opencontainers.image.ref.name": "it"}})
    entries, target = seal(layout.path, tmp_path, "ours")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout.path}:it", str(tmp_path / "bundle")],
        check=True,
        capture_output=True,
    )
    ours, theirs = described(entries), on_disk(tmp_path / "bundle/rootfs")
    assert set(ours) - set(theirs) == ADDED
    different = {path: (ours[path], theirs[path]) for path in theirs if ours.get(path) != theirs[path]}
    assert different == {}
    groups = {one.path: one.link_group for one in entries}
    assert groups[b"kept/a"] == groups[b"kept/b"] == groups[b"kept/c"] is not None
    inode = {(tmp_path / "bundle/rootfs/kept" / name).stat().st_ino for name in "abc"}
    assert len(inode) == 1
    # erofs-utils reads the same disk; it shows no xattrs, and its chown after chmod loses the setuid bit.
    subprocess.run(
        ["fsck.erofs", f"--extract={tmp_path / 'extracted'}", "--preserve", str(target)],
        check=True,
        capture_output=True,
    )
    third = on_disk(tmp_path / "extracted")

    def seen(rows: dict[bytes, Any]) -> dict[bytes, Any]:
        return {path: (row[0], row[1] & 0o1777, *row[2:4], *row[5:7]) for path, row in rows.items()}

    assert seen(third) == seen(ours)


@pytest.mark.parametrize("to", ["oci:{}", "oci-archive:{}:it", "docker-archive:{}:it:latest"])
def test_what_skopeo_copies_is_the_same_disk(tmp_path: Path, to: str) -> None:
    layout = Layout(tmp_path / "image")
    # skopeo's docker archives name each layer by its digest, so a small real name is enough.
    layout.index(layout.image(LOWER, UPPER))
    copied = tmp_path / "copied"
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "--tmpdir",
            str(tmp_path),
            "copy",
            f"oci:{layout.path}",
            to.format(copied),
        ],
        check=True,
        capture_output=True,
    )
    ours, one = seal(layout.path, tmp_path, "ours")
    theirs, two = seal(copied, tmp_path, "theirs")
    assert described(ours) == described(theirs)
    assert one.read_bytes() == two.read_bytes()


def test_the_same_image_is_the_same_disk_bytes(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layout.index(layout.image(LOWER, UPPER))
    _, one = seal(layout.path, tmp_path, "one")
    _, two = seal(layout.archive(tmp_path / "image.tar"), tmp_path, "two")
    assert one.read_bytes() == two.read_bytes()
    names = (path.with_name(path.stem + ".manifest.json") for path in (one, two))
    assert len({path.read_bytes() for path in names}) == 1
