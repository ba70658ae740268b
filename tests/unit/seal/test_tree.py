from __future__ import annotations

import pytest

from strongroom.errors import Malformed
from strongroom.seal import tree
from strongroom.seal.tree import Entry, EntryKind
from tests.unit.seal.trees import file, folder, link, rich


def test_sorted_by_path_root_first():
    checked = tree.validate(reversed(rich()))
    paths = [entry.path for entry in checked]
    assert paths[0] == b""
    assert paths == sorted(paths)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        *(
            (path, "expected a name of 1 to 255 bytes")
            for path in (b"/a", b"a/", b"a//b", b".", b"..", b"a/..", b"../a", b"a/./b")
        ),
        (b"a\x00b", "a path of 3 bytes: expected at most 4095, without NUL"),
        (b"x" * 256, "expected a name of 1 to 255 bytes"),
        (b"/".join([b"y" * 200] * 30), "a path of 6029 bytes: expected at most 4095"),
    ],
)
def test_paths_that_are_not_plain_are_refused(path, why):
    with pytest.raises(Malformed, match=why):
        tree.validate([folder(), file(path)])


def test_root_must_exist_and_be_a_folder():
    with pytest.raises(Malformed, match="root"):
        tree.validate([file(b"a")])
    with pytest.raises(Malformed, match="root"):
        tree.validate([file(b"")])


def test_duplicates_are_refused():
    with pytest.raises(Malformed, match="twice"):
        tree.validate([folder(), file(b"a"), folder(b"a")])


@pytest.mark.parametrize("parent", [None, file(b"d"), link(b"d", b"elsewhere")])
def test_parent_must_be_a_listed_folder(parent):
    entries = [folder(), file(b"d/x")] + ([parent] if parent else [])
    with pytest.raises(Malformed, match="in no listed folder"):
        tree.validate(entries)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (file(b"a", mode=0o10000), "mode holds more than permission bits"),
        (file(b"a", uid=(1 << 32) - 1), "owner, group or time out of range"),
        (file(b"a", gid=-1), "owner, group or time out of range"),
        (file(b"a", mtime=-1), "owner, group or time out of range"),
        (Entry(path=b"a", kind=EntryKind.FILE, mode=0), "files, and only files, have content"),
        (Entry(path=b"a", kind=EntryKind.DIRECTORY, mode=0, size=1), "only files have a size and hard links"),
        (
            Entry(path=b"a", kind=EntryKind.DIRECTORY, mode=0, link_group=1),
            "only files have a size and hard links",
        ),
        (link(b"a", b""), "symlinks, and only symlinks, have a target"),
        (link(b"a", b"x\x00y"), "symlink target too long, or holds NUL"),
        (link(b"a", b"x" * 4096), "symlink target too long, or holds NUL"),
        (
            Entry(path=b"a", kind=EntryKind.DIRECTORY, mode=0, target=b"x"),
            "symlinks, and only symlinks, have a target",
        ),
        (file(b"a", xattrs={b"system.other": b""}), "'system.other' has no place on a disk"),
        (file(b"a", xattrs={b"user.": b""}), "'user.': name or value out of range"),
        (file(b"a", xattrs={b"user.x": bytes(70000)}), "'user.x': name or value out of range"),
        (
            file(b"a", xattrs={b"user.%d" % i: bytes(30000) for i in range(3)}),
            "extended attributes too large together",
        ),
    ],
)
def test_fields_out_of_place_are_refused(bad, why):
    with pytest.raises(Malformed, match=why):
        tree.validate([folder(), bad])


def test_hard_links_must_agree():
    with pytest.raises(Malformed, match="differ"):
        tree.validate([folder(), file(b"a", b"1", link_group=1), file(b"b", b"12", link_group=1)])


def test_messages_stay_short_and_printable():
    with pytest.raises(Malformed) as caught:
        tree.validate([folder(), file(b"x\x1b[31m" + b"y" * 5000)])
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500
