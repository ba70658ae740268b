"""Where links lead, held against the kernel: `openat2` in a folder of the same links."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.encoding.symlinks import MAX_LINKS, MAX_PATH, Symlinks

_OPENAT2 = 437
_BENEATH, _IN_ROOT, _NO_MAGIC = 0x08, 0x10, 0x02
_LIBC = ctypes.CDLL(None, use_errno=True)


def kernel_end(root: bytes, path: bytes, *, chroot: bool) -> bytes | int:
    """Where Linux ends on the way along `path` below `root`, or the number of its error."""
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, (_IN_ROOT if chroot else _BENEATH) | _NO_MAGIC)
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for _ in range(50):
            fd = _LIBC.syscall(_OPENAT2, top, path, how, ctypes.c_size_t(24))
            if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:
                break
        if fd < 0:
            return ctypes.get_errno()
        try:
            end = os.readlink(b"/proc/self/fd/%d" % fd)  # noqa: PTH115 - bytes paths
            return end[len(root) :].lstrip(b"/")
        finally:
            os.close(fd)
    finally:
        os.close(top)


def build(root: bytes, folders: set[bytes], links: dict[bytes, bytes]) -> None:
    for folder in sorted(folders):
        os.makedirs(root + b"/" + folder, exist_ok=True)  # noqa: PTH103 - bytes paths
    for path, target in links.items():
        os.symlink(target, root + b"/" + path)  # noqa: PTH211 - bytes paths


@pytest.fixture(scope="module")
def scratch():
    with tempfile.TemporaryDirectory() as folder:
        yield os.fsencode(os.path.realpath(folder))


_NAMES = st.sampled_from([b"a", b"b", b"c"])
_FOLDERS = st.sets(st.sampled_from([b"d", b"d/e", b"d/e/f", b"g"]))
_PARTS = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"g", b"..", b"..", b".", b""])
_TEXTS = st.lists(_PARTS, min_size=1, max_size=6).map(b"/".join).filter(bool)


@st.composite
def trees(draw):
    folders = draw(_FOLDERS) | {b"d", b"d/e"}
    places = sorted({b""} | folders | {folder.rpartition(b"/")[0] for folder in folders})
    links = {}
    for place in places:
        for name, text in draw(st.dictionaries(_NAMES, _TEXTS, max_size=3)).items():
            links[place + b"/" + name if place else name] = text
    return folders, links


@pytest.mark.parametrize("chroot", [False, True])
@given(tree=trees())
@example(tree=({b"c1"}, {b"a": b".", b"c1/up": b"..", b"esc": b"c1/up/../.ssh/id"}))
@example(tree=({b"d"}, {b"a": b"b", b"b": b"a", b"c": b"d/../a"}))
def test_agrees_with_the_kernel(scratch, chroot, tree):
    folders, links = tree
    with tempfile.TemporaryDirectory(dir=scratch) as root:
        build(root, folders, links)
        ours = Symlinks(links.get, chroot=chroot)
        for path in (*links, b"d/e/a/b", b"a/../b"):
            got, expected = ours.resolve(path), kernel_end(root, path, chroot=chroot)
            if isinstance(expected, bytes):
                assert got == expected, (path, links)
            elif expected in (errno.EXDEV, errno.ELOOP):
                assert got is None, (path, links)
            else:
                assert expected == errno.ENOENT


@pytest.mark.parametrize(
    ("links", "path"),
    [
        ({b"a": b"/etc"}, b"a"),
        ({b"a": b".."}, b"a"),
        ({b"d/a": b"../.."}, b"d/a"),
        # Each of these stays inside by its letters.
        ({b"a": b".", b"esc": b"a/../x"}, b"esc"),
        ({b"c1/up": b"..", b"esc": b"c1/up/../.ssh/id"}, b"esc"),
        ({b"d/e/top": b"../..", b"esc": b"d/e/top/../x"}, b"esc"),
        ({b"esc": b"other", b"other": b"../x"}, b"esc"),
        ({b"a": b"a"}, b"a"),
        ({b"a": b"b", b"b": b"a"}, b"a"),
        ({b"a": b"b/x", b"b": b"c/..", b"c": b"a"}, b"c"),
    ],
)
def test_out_and_in_circles_is_nowhere(links, path):
    assert Symlinks(links.get, chroot=False).resolve(path) is None
    assert Symlinks(links.get, chroot=False).resolve(path + b"/further") is None


def test_an_image_has_a_top_that_nothing_leaves():
    links = {b"bin": b"/usr/bin", b"usr/up": b"../../..", b"loop": b"/loop"}
    tree = Symlinks(links.get, chroot=True)
    assert tree.resolve(b"/bin/sh") == b"usr/bin/sh"
    assert tree.resolve(b"usr/up/../etc/passwd") == b"etc/passwd"
    assert tree.resolve(b"/") == b""
    assert tree.resolve(b"loop") is None


def test_forty_links_are_followed_and_no_more():
    links = {b"l%02d" % n: b"l%02d" % (n + 1) for n in range(MAX_LINKS + 1)}
    for order in (sorted(links), sorted(links, reverse=True)):
        tree = Symlinks(links.get, chroot=False)
        ends = {path: tree.resolve(path) for path in order}
        assert ends.pop(b"l00") is None
        assert set(ends.values()) == {b"l%02d" % (MAX_LINKS + 1)}


def test_a_way_that_grows_past_every_path_ends():
    links = {b"a": b"x" * 255 + b"/b", b"x" * 255 + b"/b": b"y/" * 1950}
    assert Symlinks(links.get, chroot=False).resolve(b"a") is None
    assert len(Symlinks(links.get, chroot=False).resolve(b"y/" * (MAX_PATH // 2))) <= MAX_PATH


def test_links_through_links_cost_no_more_than_their_texts():
    """Each of 3000 links leads over the next twice: followed anew each time that were 2 to the 40th steps for each."""
    asked = []
    links = {b"l%04d" % n: b"l%04d/../l%04d" % (n + 1, n + 1) for n in range(3000)}
    tree = Symlinks(lambda path: asked.append(path) or links.get(path), chroot=False)
    began = time.process_time()
    ends = [tree.resolve(path) for path in links]
    assert len(asked) <= 4 * len(links)
    assert ends[-1] == b"l3000"
    assert ends[0] is None
    assert time.process_time() - began < 20
