"""Layers as builders really write them, each with the one tree that runtimes make of it; umoci is asked too."""

from __future__ import annotations

import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from strongroom.errors import Malformed, Refused
from strongroom.images import tar
from strongroom.images.limits import LIMITS
from strongroom.seal.tree import EntryKind
from tests.unit.images.kit import (
    END,
    PROGRAM,
    Layout,
    apply,
    entry,
    folder,
    hardlink,
    listing,
    loaded,
    pax,
    read,
    symlink,
)

if TYPE_CHECKING:
    from pathlib import Path

LISTS = folder(b"opt/") + entry(b"opt/a", b"1") + entry(b"opt/b", b"2") + entry(b"opt/list", b"3")
LINK = symlink(b"link", b"target") + entry(b"target/keep", b"kept")
USR = folder(b"usr/") + folder(b"usr/lib/")
GNU = b"ustar  \0"

# Name → (layers, their ends included; the tree).
CASES: dict[str, tuple[list[bytes], dict[bytes, Any]]] = {
    "whiteout as a hard link": (
        [LISTS + END, entry(b"opt/.wh.a") + hardlink(b"opt/.wh.b", b"opt/.wh.a") + END],
        {b"opt": None, b"opt/list": b"3"},
    ),
    "whiteout as a hard link to nothing": (
        [LISTS + END, hardlink(b"opt/.wh.b", b".wh..wh.plnk/7.8") + END],
        {b"opt": None, b"opt/a": b"1", b"opt/list": b"3"},
    ),
    "whiteouts of other types": (
        [LISTS + END, symlink(b"opt/.wh.a", b"b") + entry(b"opt/.wh.b", b"with contents") + END],
        {b"opt": None, b"opt/list": b"3"},
    ),
    "whiteout twice": (
        [LISTS + END, entry(b"opt/.wh.a") + entry(b"opt/.wh.a", mtime=5) + END],
        {b"opt": None, b"opt/b": b"2", b"opt/list": b"3"},
    ),
    "opaque mark where a directory replaces a link": (
        [LINK + END, folder(b"link/") + entry(b"link/.wh..wh..opq") + entry(b"link/new", b"n") + END],
        {b"link": None, b"link/new": b"n", b"target": None, b"target/keep": b"kept"},
    ),
    "whiteout where a directory replaces a link": (
        [LINK + END, folder(b"link/") + entry(b"link/.wh.keep") + END],
        {b"link": None, b"target": None, b"target/keep": b"kept"},
    ),
    "opaque mark below a directory that replaces a link": (
        [
            LINK + entry(b"target/d/x", b"x") + END,
            folder(b"link/") + folder(b"link/d/") + entry(b"link/d/.wh..wh..opq") + END,
        ],
        {
            b"link": None,
            b"link/d": None,
            b"target": None,
            b"target/d": None,
            b"target/d/x": b"x",
            b"target/keep": b"kept",
        },
    ),
    "opaque mark where a directory replaces a file": (
        [entry(b"f", b"x") + END, folder(b"f/") + entry(b"f/.wh..wh..opq") + entry(b"f/n", b"n") + END],
        {b"f": None, b"f/n": b"n"},
    ),
    "no end": ([LISTS, entry(b"x", b"1")], {b"opt": None, b"opt/a": b"1", b"opt/b": b"2", b"opt/list": b"3", b"x": b"1"}),
    "half an end": ([entry(b"x", b"1") + bytes(512)], {b"x": b"1"}),
    "no end and no padding": ([(entry(b"x", b"1"))[:513]], {b"x": b"1"}),
    # A whiteout without its directory's entry, and a link in the directory's place (kaniko 1.8).
    "whiteout below what becomes a link": (
        [folder(b"a/") + entry(b"a/a", b"x") + END, entry(b"a/.wh.a") + folder(b"/") + symlink(b"a", b"b") + folder(b"b/") + END],
        {b"a": b"-> b", b"b": None},
    ),
    "a link in the place of a directory": (
        [entry(b"sbin/x", b"1") + entry(b"usr/bin/y", b"2") + END, symlink(b"sbin", b"usr/bin") + END],
        {b"sbin": b"-> usr/bin", b"usr": None, b"usr/bin": None, b"usr/bin/y": b"2"},
    ),
    "the same layer twice": (
        [entry(b"x", b"1") + END, entry(b".wh.x") + END, entry(b"x", b"1") + END],
        {b"x": b"1"},
    ),
    "hard links to what a later layer replaces": (
        [entry(b"etc/c", b"1") + END, hardlink(b"o/f", b"etc/c") + END, entry(b"etc/c", b"2") + END, hardlink(b"o/g", b"etc/c") + END],
        {b"etc": None, b"etc/c": b"2", b"o": None, b"o/f": b"1", b"o/g": b"2"},
    ),
    "a whiteout of nothing, and of what was there once": (
        [entry(b".wh.never") + entry(b"d/.wh.x") + END, entry(b"y", b"1") + END],
        {b"y": b"1"},
    ),
    "no entry at all": ([entry(b"x", b"1") + END, b""], {b"x": b"1"}),
    "nothing but an end": ([entry(b"x", b"1") + END, END], {b"x": b"1"}),
    "bytes after the end": ([entry(b"x", b"1") + END + b"junk" * 200], {b"x": b"1"}),
    "another archive after the end": ([entry(b"x", b"1") + END + entry(b"y", b"2") + END], {b"x": b"1"}),
    "directory again": (
        [folder(b"opt/") + folder(b"opt/d/") + entry(b"opt/d/f", b"f") + folder(b"opt/") + folder(b"./opt/d") + END],
        {b"opt": None, b"opt/d": None, b"opt/d/f": b"f"},
    ),
    "file again, and equal": ([entry(b"f", b"same") * 2 + END], {b"f": b"same"}),
    "links again, and equal": (
        [entry(b"f", b"x") + symlink(b"s", b"f") * 2 + hardlink(b"h", b"f") * 2 + END],
        {b"f": b"x", b"s": b"-> f", b"h": b"x"},
    ),
    "parents after children, and none": (
        [entry(b"a/b/c", b"1") + folder(b"a/b/", mode=0o711) + folder(b"a/", mode=0o700) + entry(b"d/e/f", b"2") + END],
        {b"a": None, b"a/b": None, b"a/b/c": b"1", b"d": None, b"d/e": None, b"d/e/f": b"2"},
    ),
    "names with / and ./": (
        [folder(b"./") + entry(b"/abs/x", b"1") + entry(b"./rel//y", b"2") + hardlink(b"/z", b"./abs/x") + END],
        {b"abs": None, b"abs/x": b"1", b"rel": None, b"rel/y": b"2", b"z": b"1"},
    ),
    "names that go up, and stay inside": (
        [folder(b"a/") + entry(b"a/../b", b"1") + entry(b"/../c", b"2") + entry(b"none/../d/./e", b"3") + END],
        {b"a": None, b"b": b"1", b"c": b"2", b"d": None, b"d/e": b"3"},
    ),
    "names that go up from a link mean the name, not where it leads": (
        [folder(b"c/") + folder(b"c/d/") + symlink(b"a", b"c/d") + entry(b"a/../b", b"1") + END],
        {b"a": b"-> c/d", b"b": b"1", b"c": None, b"c/d": None},
    ),
    "through a link to a directory of the same layer": (
        [USR + symlink(b"lib", b"usr/lib") + entry(b"lib/x", b"1") + folder(b"lib/d/") + entry(b"lib/e/f/y", b"2") + END],
        {b"lib": b"-> usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/x": b"1", b"usr/lib/d": None, b"usr/lib/e": None, b"usr/lib/e/f": None, b"usr/lib/e/f/y": b"2"},
    ),
    "through a link to a directory that the same layer only implies": (
        [entry(b"usr/lib/y", b"2") + symlink(b"lib", b"/usr/lib") + entry(b"lib/x", b"1") + END],
        {b"lib": b"-> /usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/x": b"1", b"usr/lib/y": b"2"},
    ),
    "through links that go up and on to others": (
        [USR + folder(b"var/") + symlink(b"var/a", b"../usr/lib") + symlink(b"b", b"var/a/../l") + symlink(b"usr/l", b"lib") + entry(b"b/x", b"1") + END],
        {b"b": b"-> var/a/../l", b"usr": None, b"usr/l": b"-> lib", b"usr/lib": None, b"usr/lib/x": b"1", b"var": None, b"var/a": b"-> ../usr/lib"},
    ),
    "through a link that lies behind a link": (
        [USR + symlink(b"lib", b"usr/lib") + folder(b"lib/d/") + symlink(b"lib/l", b"d") + entry(b"lib/l/x", b"1") + END],
        {b"lib": b"-> usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/d": None, b"usr/lib/l": b"-> d", b"usr/lib/d/x": b"1"},
    ),
    "through a link in the place of a lower directory": (
        [entry(b"lib/old", b"0") + END, USR + symlink(b"lib", b"usr/lib") + entry(b"lib/x", b"1") + END],
        {b"lib": b"-> usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/x": b"1"},
    ),
    "through a link that a lower layer has too": (
        [USR + symlink(b"lib", b"usr/lib") + END, USR + symlink(b"lib", b"usr/lib") + entry(b"lib/x", b"1") + END],
        {b"lib": b"-> usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/x": b"1"},
    ),
    "through a link over a lower file": (
        [USR + entry(b"usr/lib/x", b"0") + END, USR + symlink(b"lib", b"usr/lib") + entry(b"lib/x", b"1") + END],
        {b"lib": b"-> usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/x": b"1"},
    ),
    "the same by two ways": (
        [USR + symlink(b"lib", b"usr/lib") + folder(b"usr/lib/d/") + folder(b"lib/d/") + entry(b"lib/d/x", b"1") * 2 + entry(b"usr/lib/d/x", b"1") + END],
        {b"lib": b"-> usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/d": None, b"usr/lib/d/x": b"1"},
    ),
    "a hard link to what is behind a link": (
        [USR + entry(b"usr/lib/x", b"1") + symlink(b"lib", b"usr/lib") + hardlink(b"h", b"lib/x") + hardlink(b"lib/i", b"usr/lib/x") + END],
        {b"h": b"1", b"lib": b"-> usr/lib", b"usr": None, b"usr/lib": None, b"usr/lib/x": b"1", b"usr/lib/i": b"1"},
    ),
    "headers of before POSIX": (
        [entry(b"d/", flag=b"\0", magic=bytes(8), mode=0o755) + entry(b"d/f", b"v7", flag=b"\0", magic=bytes(8)) + END],
        {b"d": None, b"d/f": b"v7"},
    ),
    "GNU names padded with NUL": (
        [entry(b"L", b"n" * 120 + bytes(30), flag=b"L", magic=GNU) + entry(b"n", b"1", magic=GNU) + END],
        {b"n" * 120: b"1"},
    ),
    "a POSIX prefix in GNU's header, as Go wrote it": (
        [entry(b"f", b"1", magic=GNU, prefix=b"long/name") + END],
        {b"long": None, b"long/name": None, b"long/name/f": b"1"},
    ),
    "GNU's own times in its header": (
        [entry(b"f", b"1", magic=GNU, prefix=b"14524770000\0" + b"14524770001\0") + END],
        {b"f": b"1"},
    ),
    "base-256 numbers": (
        [entry(b"f", b"hi", size=b"\x80" + (2).to_bytes(11, "big"), magic=GNU) + END],
        {b"f": b"hi"},
    ),
    "pax keys of anybody": (
        [
            pax({b"comment": b"c", b"LIBARCHIVE.creationtime": b"1", b"charset": b"x", b"mine": b"y"})
            + entry(b"f", b"1")
            + END
        ],
        {b"f": b"1"},
    ),
    "empty pax values": (
        [pax({b"path": b"", b"uid": b"", b"mtime": b""}) + entry(b"f", b"1") + END],
        {b"f": b"1"},
    ),
    "pax times with a bare point": ([pax({b"mtime": b"1700000000."}) + entry(b"f", b"1") + END], {b"f": b"1"}),
    "a pax key twice": (
        [
            entry(b"PaxHeaders/x", b"9 path=a\n" + b"9 path=b\n", flag=b"x") + entry(b"f", b"1") + END
        ],
        {b"b": b"1"},
    ),
    "one name by GNU and by pax": (
        [entry(b"L", b"long\0", flag=b"L", magic=GNU) + pax({b"path": b"long"}) + entry(b"x", b"1") + END],
        {b"long": b"1"},
    ),
}  # fmt: skip
# What only Docker and containerd read, by the code of their readers (umoci stops, or makes an entry of it).
NOT_UMOCI: dict[str, tuple[list[bytes], dict[bytes, Any]]] = {
    "AUFS's own": (
        [
            entry(b".wh..wh.aufs") + folder(b".wh..wh.orph/") + folder(b".wh..wh.plnk/") + entry(b"f", b"1") + END,
            entry(b"d/.wh..wh.x") + folder(b"d/") + END,
        ],
        {b"f": b"1", b"d": None},
    ),
    "hard links to AUFS's own": (
        [
            entry(b".wh..wh.plnk/12.34", b"kept", mode=0o755)
            + hardlink(b"a", b".wh..wh.plnk/12.34")
            + hardlink(b"b", b".wh..wh.plnk/12.34")
            + END
        ],
        {b"a": b"kept", b"b": b"kept"},
    ),
    "whiteout as a directory": (
        [LISTS + END, folder(b"opt/.wh.a/") + END],
        {b"opt": None, b"opt/b": b"2", b"opt/list": b"3"},
    ),
    "a comment for all that follow": (
        [pax({b"comment": b"0" * 40}, b"g") + entry(b"f", b"1") + END],
        {b"f": b"1"},
    ),
    "checksum of signed bytes": ([b""], {}),
}  # fmt: skip


def signed_checksum() -> bytes:
    block = bytearray(entry(b"\xe9t\xe9", b"1"))
    block[148:156] = b" " * 8
    total = sum(byte - 256 if byte > 127 else byte for byte in block[:512])
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


NOT_UMOCI["checksum of signed bytes"] = ([signed_checksum() + END], {b"\xe9t\xe9": b"1"})


def ours(tmp_path: Path, bodies: list[bytes]) -> dict[bytes, Any]:
    """What the whole way from a layout makes of these layers above the program's."""
    layout = Layout(tmp_path / "image")
    row = layout.image(PROGRAM + END, *bodies, compression="+gzip")
    layout.index(row | {"annotations": {"org.opencontainers.image.ref.name": "it"}})
    with loaded(layout.path, tmp_path) as found:
        made = listing(found.tree)
    for name in (b"bin/program", b"bin", *(b"data", b"out", b"tmp", b"proc", b"sys", b"dev", b"run")):
        made.pop(name, None)
    return made


@pytest.mark.parametrize("name", [*CASES, *NOT_UMOCI])
def test_there_is_one_reading_and_it_is_this(tmp_path: Path, name: str) -> None:
    bodies, wanted = {**CASES, **NOT_UMOCI}[name]
    assert ours(tmp_path, bodies) == wanted


@pytest.mark.root
@pytest.mark.parametrize("name", CASES)
def test_umoci_reads_the_same(tmp_path: Path, name: str) -> None:
    bodies, wanted = CASES[name]
    ours(tmp_path, bodies)
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path}/image:it", f"{tmp_path}/bundle"],
        check=True,
        capture_output=True,
    )
    root = tmp_path / "bundle/rootfs"
    theirs: dict[bytes, Any] = {}
    for place in root.rglob("*"):
        path = str(place.relative_to(root)).encode("utf-8", "surrogateescape")
        if place.is_symlink():
            theirs[path] = b"-> " + str(place.readlink()).encode()
        else:
            theirs[path] = None if place.is_dir() else place.read_bytes()
    assert {path: theirs[path] for path in theirs if not path.startswith(b"bin")} == wanted


def test_a_directory_that_comes_again_has_the_last_entrys_metadata() -> None:
    made = apply(folder(b"d/", mode=0o700, uid=1) + entry(b"d/f") + folder(b"d/", mode=0o711, uid=2, mtime=9))
    node = made.find(b"d")
    assert node is not None
    assert (node.mode, node.uid, node.mtime, list(node.children)) == (0o711, 2, 9, [b"f"])


def test_a_file_that_comes_again_is_a_file_of_its_own() -> None:
    """As in runtimes, which make it anew: what linked to the first goes on being that one."""
    made = apply(entry(b"a", b"x") + hardlink(b"b", b"a") + entry(b"a", b"x"))
    assert made.find(b"a") is not made.find(b"b")


def test_large_files_that_come_again_are_compared_to_their_end() -> None:
    one, other = (bytes(3 << 20) + last for last in (b"1", b"2"))
    apply(entry(b"f", one) * 2)
    with pytest.raises(Refused, match="'f': twice in one layer, and not the same"):
        apply(entry(b"f", one) + entry(b"f", other))


def test_the_end_matters_where_no_digest_fixes_the_bytes() -> None:
    """The same reader reads what a room's program left, and there half an archive is half of a result."""
    for body, why in ((entry(b"x", b"1"), "ends too early"), (END + b"x" * 512, "bytes after the end")):
        with pytest.raises(Malformed, match=why):
            read(body)
        told: list[str] = []
        list(
            tar.members(
                lambda at, count, body=body: body[at : at + count],  # type: ignore[misc]
                len(body),
                what="it",
                limits=LIMITS,
                note=told.append,
            )
        )
        assert len(told) == (why == "bytes after the end")


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"./../x", b"a/b/../../../x"])
def test_names_that_go_beyond_the_top_are_refused(tmp_path: Path, name: bytes) -> None:
    """As Docker does; umoci and containerd take them for the top's."""
    with pytest.raises(Malformed, match="climbs with"):
        ours(tmp_path, [entry(name, b"1") + END])


def test_hard_links_to_names_that_go_up_are_refused(tmp_path: Path) -> None:
    """containerd goes up from where a link leads, Docker and umoci from its name."""
    with pytest.raises(Malformed, match="climbs with"):
        ours(tmp_path, [entry(b"x", b"1") + folder(b"a/") + hardlink(b"h", b"a/../x") + END])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (entry(b"x", b"1" * 600)[:-600], "ends inside an entry"),
        (entry(b"x", b"1") + entry(b"y")[:300], "ends too early"),
        (entry(b"x", b"1") + bytes(300), "ends too early"),
        (entry(b"x", b"1") + bytes(512) + entry(b"y") + END, "a lone zero block in the middle"),
        (pax({b"path": b"y"}), "ends too early"),
    ],
)
def test_a_layer_that_ends_inside_something_is_refused(tmp_path: Path, body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        ours(tmp_path, [body])


# Things without meaning in a room.


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"security.selinux", "SELinux labels"),
        (b"security.ima", "extended attributes 'security.ima'"),
        (b"security.evm", "extended attributes 'security.evm'"),
        (b"security.SMACK64", "extended attributes 'security.SMACK64'"),
        (b"system.posix_acl_access", "access control lists"),
        (b"system.posix_acl_default", "access control lists"),
        (b"system.nfs4_acl", "access control lists"),
        (b"com.apple.provenance", "extended attributes 'com.apple.provenance'"),
        (b"com.apple.ResourceFork", "extended attributes 'com.apple.ResourceFork'"),
        (b"trusted.overlay.origin", "extended attributes 'trusted.overlay.origin'"),
        (b"trusted.overlay.impure", "extended attributes 'trusted.overlay.impure'"),
        (b"trusted.mine", "extended attributes 'trusted.mine'"),
        (b"redirect", "extended attributes 'redirect'"),
        (b"user.", "extended attributes 'user.'"),
    ],
)
def test_attributes_without_meaning_are_left_out_with_a_note(name: bytes, told: str) -> None:
    made = apply(
        pax({b"SCHILY.xattr." + name: b"v", b"SCHILY.xattr.user.kept": b"k"}) + entry(b"f", b"x") * 1
    )
    node = made.find(b"f")
    assert node is not None
    assert node.xattrs == {b"user.kept": b"k"}
    [note] = made.notes
    assert note.startswith(told)
    assert "left out" in note


@pytest.mark.parametrize("key", [b"SCHILY.acl.access", b"SCHILY.acl.default", b"SCHILY.acl.ace"])
def test_access_lists_as_star_writes_them_are_left_out_with_the_same_note(key: bytes) -> None:
    made = apply(pax({key: b"user::rwx,group::r-x,other::---"}) + folder(b"d/"))
    assert made.notes == ["access control lists of the image are left out: a room has one user"]
    node = made.find(b"d")
    assert node is not None
    assert node.xattrs == {}


def test_notes_are_few_whatever_a_layer_says() -> None:
    one = {b"SCHILY.xattr.junk%d" % number: b"" for number in range(60)}
    assert len(apply(pax(one) + entry(b"f")).notes) == 32


def test_fifos_are_kept_and_devices_in_dev_are_left_out(tmp_path: Path) -> None:
    body = (
        entry(b"run/fifo", flag=b"6", mode=0o620, uid=5)
        + hardlink(b"run/same", b"run/fifo")
        + folder(b"dev/")
        + entry(b"dev/console", flag=b"3")
        + entry(b"dev/disk/sda", flag=b"4")
        + hardlink(b"dev/tty", b"dev/console")
        + entry(b"dev/file", b"f")
    )
    made = apply(PROGRAM, body)
    assert made.notes == ["device nodes in /dev of the image are left out: a room has its own /dev"]
    found = {one.path: one for one in made.entries()}
    assert {path for path in found if path.startswith(b"dev")} == {b"dev", b"dev/disk", b"dev/file"}
    for name in (b"run/fifo", b"run/same"):
        assert (found[name].kind, found[name].mode, found[name].uid) == (EntryKind.FIFO, 0o620, 5)
    assert made.find(b"dev/console") is None


def test_a_device_takes_the_place_of_what_was_there_and_can_be_taken_away() -> None:
    lower = entry(b"dev/x", b"file") + entry(b"dev/y", flag=b"3")
    made = apply(lower, entry(b"dev/x", flag=b"3") + entry(b"dev/.wh.y"), entry(b"dev/y", b"file"))
    assert listing(made) == {b"dev": None, b"dev/y": b"file"}


@pytest.mark.root
def test_a_fifo_is_one_on_the_disk_and_to_another_reader(tmp_path: Path) -> None:
    from tests.unit.images.sealed_tar import seal

    layout = Layout(tmp_path / "image")
    layout.index(layout.image(PROGRAM + entry(b"pickup", flag=b"6", mode=0o622, uid=7) + END))
    entries, target = seal(layout.path, tmp_path, "it")
    [pipe] = [one for one in entries if one.path == b"pickup"]
    assert (pipe.kind, pipe.mode, pipe.uid) == (EntryKind.FIFO, 0o622, 7)
    subprocess.run(
        ["fsck.erofs", f"--extract={tmp_path / 'extracted'}", "--preserve", str(target)],
        check=True,
        capture_output=True,
    )
    status = (tmp_path / "extracted/pickup").lstat()
    assert stat.S_ISFIFO(status.st_mode)
    assert (status.st_mode & 0o7777, status.st_uid) == (0o622, 7)
