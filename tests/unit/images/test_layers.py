from __future__ import annotations

import pytest

from strongroom.errors import Refused, StrongroomError
from strongroom.images.limits import ImageLimits
from strongroom.seal.tree import EntryKind
from tests.unit.images.kit import apply, entry, folder, hardlink, listing, pax, symlink


def test_whiteout_hides_only_lower_layers() -> None:
    lower = folder(b"d/") + entry(b"d/a", b"1") + entry(b"d/b", b"2") + entry(b"d/c", b"3")
    upper = entry(b"d/.wh.a") + entry(b"d/.wh.b") + entry(b"d/b", b"new") + entry(b"d/.wh.absent")
    assert listing(apply(lower, upper)) == {b"d": None, b"d/b": b"new", b"d/c": b"3"}


def test_whiteout_of_a_directory_and_a_new_one_of_that_name() -> None:
    lower = entry(b"d/x/y", b"1") + entry(b"e", b"2")
    upper = entry(b"d/.wh.x") + entry(b"d/x/z", b"3")
    assert listing(apply(lower, upper)) == {b"d": None, b"d/x": None, b"d/x/z": b"3", b"e": b"2"}


@pytest.mark.parametrize("last", [False, True])
def test_opaque_hides_lower_children_wherever_it_stands_in_the_layer(*, last: bool) -> None:
    lower = entry(b"d/a", b"1") + entry(b"d/s/b", b"2")
    opaque, new = entry(b"d/.wh..wh..opq"), entry(b"d/n", b"3")
    upper = folder(b"d/") + (new + opaque if last else opaque + new)
    assert listing(apply(lower, upper)) == {b"d": None, b"d/n": b"3"}


def test_a_whiteout_in_a_missing_folder_hides_nothing() -> None:
    for lower, name in (
        (b"", b"gone/.wh.a"),
        (b"", b"gone/.wh..wh..opq"),
        (folder(b"a/"), b"a/gone/.wh.b"),
        (entry(b"a/b"), b"c/.wh.b"),
    ):
        made = apply(lower + entry(b"kept", b"x"), entry(name))
        assert made.find(b"kept") is not None
        assert b"gone" not in made.root.children
        assert b"c" not in made.root.children
    made = apply(entry(b"a/b"), entry(b"c/.wh.b"))
    assert made.find(b"a/b") is not None


def test_whiteout_through_the_whole_root() -> None:
    assert listing(apply(entry(b"a") + entry(b"b/c"), entry(b".wh..wh..opq") + entry(b"z"))) == {b"z": b""}


def test_a_directory_keeps_its_children_and_takes_new_metadata() -> None:
    made = apply(entry(b"d/a", b"1"), folder(b"d/", mode=0o700, uid=5, gid=6))
    node = made.find(b"d")
    assert node is not None
    assert (node.mode, node.uid, node.gid, list(node.children)) == (0o700, 5, 6, [b"a"])


def test_file_over_directory_and_directory_over_file() -> None:
    lower = entry(b"d/a/b", b"1") + entry(b"f", b"2") + symlink(b"l", b"d")
    upper = entry(b"d", b"file") + folder(b"f/") + entry(b"f/x", b"3") + folder(b"l/") + entry(b"l/y", b"4")
    assert listing(apply(lower, upper)) == {
        b"d": b"file",
        b"f": None,
        b"f/x": b"3",
        b"l": None,
        b"l/y": b"4",
    }


def test_implicit_parents_are_roots_and_may_be_named_later() -> None:
    made = apply(entry(b"a/b/c", uid=9) + folder(b"a/b/", mode=0o711, uid=7))
    a, b = made.find(b"a"), made.find(b"a/b")
    assert a is not None
    assert b is not None
    assert (a.mode, a.uid, a.gid, a.mtime) == (0o755, 0, 0, 0)
    assert (b.mode, b.uid) == (0o711, 7)


def test_hard_links_in_one_layer_and_across_layers() -> None:
    made = apply(
        entry(b"a", b"one", mode=0o4755) + hardlink(b"b", b"a"), hardlink(b"d/c", b"a") + entry(b"a", b"new")
    )
    found = {one.path: one for one in made.entries()}
    assert listing(made) == {b"a": b"new", b"b": b"one", b"d": None, b"d/c": b"one"}
    assert found[b"b"].link_group == found[b"d/c"].link_group is not None
    assert found[b"a"].link_group is None
    assert found[b"d/c"].mode == 0o4755


def test_hard_link_to_a_symlink_is_a_symlink() -> None:
    assert listing(apply(symlink(b"a", b"t") + hardlink(b"b", b"a")))[b"b"] == b"-> t"


def test_a_hard_link_that_is_left_alone_is_a_plain_file() -> None:
    made = apply(entry(b"a", b"1") + hardlink(b"b", b"a"), entry(b".wh.a"))
    assert [one.link_group for one in made.entries() if one.kind is EntryKind.FILE] == [None]


def test_setuid_modes_xattrs_and_the_root_survive() -> None:
    made = apply(
        folder(b"./", mode=0o700, uid=3)
        + pax({b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.security.capability": b"c"})
        + entry(b"f", mode=0o6755)
        + pax({b"SCHILY.xattr.security.selinux": b"label"})
        + folder(b"t/", mode=0o1777)
    )
    root, f, t = made.find(b""), made.find(b"f"), made.find(b"t")
    assert root is not None
    assert f is not None
    assert t is not None
    assert (root.mode, root.uid) == (0o700, 3)
    assert (f.mode, f.xattrs) == (0o6755, {b"user.a": b"1", b"security.capability": b"c"})
    assert (t.mode, t.xattrs) == (0o1777, {})
    assert len(made.notes) == 1


REFUSED = {
    "duplicate file": ("duplicate-entry", [entry(b"a") + entry(b"a", b"x")]),
    "duplicate under another spelling": ("duplicate-entry", [entry(b"a") + entry(b"./a", b"x")]),
    "duplicate file of another owner": ("duplicate-entry", [entry(b"a") + entry(b"a", uid=1)]),
    "duplicate file of other contents": ("duplicate-entry", [entry(b"a", b"x") + entry(b"a", b"y")]),
    "duplicate symlink": ("duplicate-entry", [symlink(b"a", b"x") + symlink(b"a", b"y")]),
    "duplicate of another type": ("duplicate-entry", [folder(b"a/") + symlink(b"a", b"y")]),
    "duplicate directory of other attributes": (
        "duplicate-entry",
        [folder(b"a/") + pax({b"SCHILY.xattr.user.a": b"1"}) + folder(b"a/")],
    ),
    "file over this layer's directory": ("duplicate-entry", [entry(b"a/b") + entry(b"a", b"x")]),
    "symlink over this layer's directory": ("duplicate-entry", [entry(b"a/b") + symlink(b"a", b"/etc")]),
    "file below this layer's file": ("not-directory", [entry(b"a") + entry(b"a/b")]),
    "file below a lower file": ("not-directory", [entry(b"a"), entry(b"a/b")]),
    "through this layer's symlink": ("symlink-escape", [symlink(b"a", b"/etc") + entry(b"a/passwd", b"x")]),
    "through a lower symlink": ("symlink-escape", [symlink(b"a", b"../../etc"), entry(b"a/passwd", b"x")]),
    "below a lower symlink": ("symlink-escape", [symlink(b"a", b"b") + folder(b"b/"), entry(b"a/x/y")]),
    "directory through a lower symlink": (
        "symlink-escape",
        [symlink(b"a", b"b") + folder(b"b/"), folder(b"a/x/")],
    ),
    "through this layer's symlink to a lower directory": (
        "symlink-escape",
        [folder(b"b/"), symlink(b"a", b"b") + entry(b"a/x")],
    ),
    "through this layer's symlink and a lower one": (
        "symlink-escape",
        [symlink(b"b", b"c"), folder(b"c/") + symlink(b"a", b"b") + entry(b"a/x")],
    ),
    "through this layer's symlink to what comes later": (
        "symlink-escape",
        [symlink(b"a", b"b") + entry(b"a/x") + folder(b"b/")],
    ),
    "through this layer's symlink to a file": (
        "symlink-escape",
        [entry(b"b") + symlink(b"a", b"b") + entry(b"a/x")],
    ),
    "through this layer's circle": ("symlink-escape", [symlink(b"a", b"a") + entry(b"a/x")]),
    "through this layer's symlink that climbs": (
        "symlink-escape",
        [folder(b"b/") + symlink(b"a", b"../b") + entry(b"a/x")],
    ),
    "hard link through a symlink that climbs": (
        "symlink-escape",
        [entry(b"b/x") + symlink(b"a", b"c/../../b") + hardlink(b"h", b"a/x")],
    ),
    "hard link to itself through a symlink": (
        "bad-link",
        [entry(b"b/x") + folder(b"b/"), folder(b"b/") + symlink(b"a", b"b") + hardlink(b"b/x", b"a/x")],
    ),
    "a file over what a symlink of this layer led to": (
        "duplicate-entry",
        [folder(b"b/") + symlink(b"a", b"b") + entry(b"a/x", b"1") + entry(b"b/x", b"2")],
    ),
    "what a symlink of this layer leads to over a file": (
        "duplicate-entry",
        [entry(b"b/x", b"2") + symlink(b"a", b"b") + entry(b"a/x", b"1")],
    ),
    "two symlinks of this layer that lead to one place": (
        "duplicate-entry",
        [
            folder(b"b/")
            + symlink(b"a", b"b")
            + symlink(b"c", b"b")
            + entry(b"a/x", b"1")
            + entry(b"c/x", b"2")
        ],
    ),
    "a directory through a symlink with other attributes": (
        "duplicate-entry",
        [
            folder(b"b/")
            + symlink(b"a", b"b")
            + folder(b"b/d/")
            + pax({b"SCHILY.xattr.user.a": b"1"})
            + folder(b"a/d/")
        ],
    ),
    "a file through a symlink over this layer's directory": (
        "duplicate-entry",
        [entry(b"b/d/x") + symlink(b"a", b"b") + entry(b"a/d", b"1")],
    ),
    "hidden where a symlink of this layer leads": (
        "duplicate-entry",
        [entry(b"b/x"), folder(b"b/") + symlink(b"a", b"b") + entry(b"a/x", b"1") + entry(b"b/.wh.x")],
    ),
    "hidden above where a symlink of this layer leads": (
        "duplicate-entry",
        [entry(b"b/d/x"), entry(b"b/.wh.d") + folder(b"b/d/") + symlink(b"a", b"b/d") + entry(b"a/x", b"1")],
    ),
    "opaque where a symlink of this layer leads": (
        "duplicate-entry",
        [folder(b"b/") + symlink(b"a", b"b") + entry(b"a/x", b"1") + entry(b"b/.wh..wh..opq")],
    ),
    "all opaque, and a symlink of this layer": (
        "duplicate-entry",
        [folder(b"b/") + symlink(b"a", b"b") + entry(b"a/x", b"1") + entry(b".wh..wh..opq")],
    ),
    "whiteout through a symlink": (
        "symlink-escape",
        [symlink(b"a", b"b") + entry(b"b/c"), entry(b"a/.wh.c")],
    ),
    "opaque through a symlink": ("symlink-escape", [symlink(b"a", b"b"), entry(b"a/.wh..wh..opq")]),
    "whiteout through a symlink that this layer has put there before": (
        "symlink-escape",
        [entry(b"a/a"), symlink(b"a", b"b") + entry(b"a/.wh.a") + folder(b"b/")],
    ),
    "opaque through a symlink that becomes a directory later": (
        "symlink-escape",
        [symlink(b"a", b"b"), entry(b"a/.wh..wh..opq") + folder(b"a/")],
    ),
    "hard link through a symlink": ("symlink-escape", [symlink(b"a", b"/etc"), hardlink(b"x", b"a/shadow")]),
    "hard link to nothing": ("bad-link", [hardlink(b"x", b"etc/shadow")]),
    "hard link to what comes later": ("bad-link", [hardlink(b"x", b"a") + entry(b"a")]),
    "hard link to itself": ("bad-link", [entry(b"x"), hardlink(b"x", b"x")]),
    "hard link to a directory": ("bad-link", [folder(b"d/") + hardlink(b"x", b"d")]),
    "hard link to what this layer hides": ("bad-link", [entry(b"a"), entry(b".wh.a") + hardlink(b"x", b"a")]),
    "character device": ("device-node", [entry(b"lib/udev/devices/null", flag=b"3")]),
    "block device": ("device-node", [entry(b"sda", flag=b"4")]),
    "device as /dev": ("device-node", [entry(b"dev", flag=b"3")]),
    "hard link that brings a device out of /dev": (
        "device-node",
        [entry(b"dev/null", flag=b"3") + hardlink(b"null", b"dev/null")],
    ),
    "root is a symlink": ("bad-root", [symlink(b"./", b"/etc")]),
    "whiteout of what this layer has put there": (
        "bad-whiteout",
        [entry(b"a"), entry(b"a", b"x") + entry(b".wh.a")],
    ),
    "whiteout of what this layer has put below": (
        "bad-whiteout",
        [entry(b"d/a"), entry(b"d/b/c") + entry(b".wh.d")],
    ),
    "whiteout below a lower file": ("not-directory", [entry(b"a"), entry(b"a/.wh.b")]),
    "opaque mark in a lower file": ("not-directory", [entry(b"d/a"), entry(b"d/a/b/.wh..wh..opq")]),
    "hard link over the directory of its target": (
        "bad-link",
        [entry(b"d/e/f", b"x"), hardlink(b"d", b"d/e/f")],
    ),
    "file inside a whiteout": ("bad-whiteout", [entry(b".wh.a/b")]),
    "file inside an opaque mark": ("bad-whiteout", [entry(b".wh..wh..opq/b")]),
    "whiteout of nothing": ("bad-whiteout", [entry(b".wh.")]),
    "whiteout of dot": ("bad-whiteout", [entry(b".wh..")]),
    "whiteout of dotdot": ("bad-whiteout", [entry(b"a/.wh...")]),
    "hard link to what AUFS has not": ("bad-link", [hardlink(b"x", b".wh..wh.plnk/1.2")]),
    "hard link to a directory of AUFS": (
        "bad-link",
        [folder(b".wh..wh.plnk/d/") + hardlink(b"x", b".wh..wh.plnk/d")],
    ),
    **{
        f"overlay's {name.decode()}": (
            "bad-xattr",
            [pax({b"SCHILY.xattr.trusted.overlay." + name: b"y"}) + folder(b"d/")],
        )
        for name in (b"opaque", b"redirect", b"metacopy", b"whiteout", b"whiteouts", b"xwhiteouts")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    code, given = REFUSED[name]
    with pytest.raises(Refused) as caught:
        apply(*given)
    assert caught.value.code == code


def test_refuses_too_many_entries_over_all_layers() -> None:
    limits = ImageLimits(entries=3)
    apply(entry(b"a") + entry(b"b"), entry(b"c"), limits=limits)
    with pytest.raises(Refused, match="entries"):
        apply(entry(b"a") + entry(b"b"), entry(b"c") + entry(b"d"), limits=limits)


def test_refuses_too_many_xattr_bytes_over_all_layers() -> None:
    one = pax({b"SCHILY.xattr.user.a": bytes(60)}) + entry(b"a")
    apply(one, limits=ImageLimits(xattr_total_bytes=100))
    with pytest.raises(Refused, match="extended attributes"):
        apply(one, one, limits=ImageLimits(xattr_total_bytes=100))


def test_links_are_followed_inside_the_tree_only() -> None:
    made = apply(
        symlink(b"etc", b"/../../usr/./etc")
        + entry(b"usr/etc/passwd", b"in")
        + symlink(b"usr/up", b"../../../../etc/passwd")
        + symlink(b"loop", b"loop")
        + symlink(b"dangling", b"/nowhere/../x")
    )
    assert made.resolve(b"etc/passwd") == b"usr/etc/passwd"
    assert made.find(b"usr/up") is made.find(b"usr/etc/passwd") is not None
    assert made.find(b"dangling") is None
    assert made.find(b"usr/etc/passwd/x") is None
    with pytest.raises(Refused, match="'loop': too many symbolic links"):
        made.find(b"loop")


def test_a_tower_of_links_does_not_grow_without_bound() -> None:
    body = b"".join(symlink(b"l%d" % n, b"/".join([b"l%d" % (n + 1)] * 20)) for n in range(60))
    with pytest.raises(StrongroomError, match="'l0': too many symbolic links"):
        apply(body).find(b"l0")


def test_entries_come_sorted_and_deterministic() -> None:
    forward = apply(entry(b"b/x") + entry(b"a") + entry(b"b.c") + hardlink(b"z", b"a"))
    backward = apply(entry(b"b.c") + entry(b"b/x") + entry(b"a") + hardlink(b"z", b"a"))
    assert listing(forward) == listing(backward)
    assert [one.link_group for one in forward.entries()] == [one.link_group for one in backward.entries()]


def test_each_link_of_a_tree_that_stands_still_is_followed_once():
    # A chain of links from each of its links on: without what was found before, as many steps as their square.
    count = 3000
    made = apply(b"".join(symlink(b"l%04d" % at, b"l%04d" % (at + 1)) for at in range(count)))
    asked = []
    target = made._target

    def counted(path):
        asked.append(path)
        return target(path)

    made._target = counted
    assert made.resolve(b"l%04d" % (count - 40)) == b"l%04d" % count
    for at in range(count - 40):
        with pytest.raises(Refused, match="too many symbolic links"):
            made.resolve(b"l%04d" % at)
    assert len(asked) < 4 * count
    made.make_directory(b"l%04d" % count)
    assert made.find(b"l%04d" % (count - 1)).kind is EntryKind.DIRECTORY
