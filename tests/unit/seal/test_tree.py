from __future__ import annotations

import pytest

from strongroom.errors import Malformed
from strongroom.seal import tree
from strongroom.seal.tree import Entry, Kind
from tests.unit.seal.trees import file, folder, link, rich


def test_sorted_by_path_root_first():
    checked = tree.validate(reversed(rich()))
    paths = [entry.path for entry in checked]
    assert paths[0] == b""
    assert paths == sorted(paths)


@pytest.mark.parametrize(
    "path",
    [
        b"/a",
        b"a/",
        b"a//b",
        b".",
        b"..",
        b"a/..",
        b"../a",
        b"a/./b",
        b"a\x00b",
        b"x" * 256,
        b"/".join([b"y" * 200] * 30),
    ],
)
def test_paths_that_are_not_plain_are_refused(path):
    with pytest.raises(Malformed):
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
    "bad",
    [
        file(b"a", mode=0o10000),
        file(b"a", uid=(1 << 32) - 1),
        file(b"a", gid=-1),
        file(b"a", mtime=-1),
        Entry(path=b"a", kind=Kind.FILE, mode=0),
        Entry(path=b"a", kind=Kind.DIRECTORY, mode=0, size=1),
        Entry(path=b"a", kind=Kind.DIRECTORY, mode=0, link_group=1),
        link(b"a", b""),
        link(b"a", b"x\x00y"),
        link(b"a", b"x" * 4096),
        Entry(path=b"a", kind=Kind.DIRECTORY, mode=0, target=b"x"),
        file(b"a", xattrs={b"system.other": b""}),
        file(b"a", xattrs={b"user.": b""}),
        file(b"a", xattrs={b"user.x": bytes(70000)}),
        file(b"a", xattrs={b"user.%d" % i: bytes(30000) for i in range(3)}),
    ],
)
def test_fields_out_of_place_are_refused(bad):
    with pytest.raises(Malformed):
        tree.validate([folder(), bad])


def test_hard_links_must_agree():
    with pytest.raises(Malformed, match="differ"):
        tree.validate([folder(), file(b"a", b"1", link_group=1), file(b"b", b"12", link_group=1)])


def test_messages_stay_short_and_printable():
    with pytest.raises(Malformed) as caught:
        tree.validate([folder(), file(b"x\x1b[31m" + b"y" * 5000)])
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500
