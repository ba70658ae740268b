"""Where a room mounts, whatever links an image has: inside it, apart from each other, and found by their own names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Refused
from strongroom.model.room import mounts

NAMES = ("dev", "tmp", "out", "data", "proc", "run", "srv", "shm", "x")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda parts: "/".join(parts).encode())
TARGETS = st.tuples(st.sampled_from([b"", b"/", b"../"]), PATHS).map(b"".join)


def place(
    links: dict[bytes, bytes], files: tuple[bytes, ...] = (), *, certificates: bool = True
) -> dict[str, bytes]:
    placed = mounts.place(target=links.get, is_file=files.__contains__, certificates=certificates)
    return {one.mount.shown: one.place for one in placed}


def test_without_links_each_is_in_its_own_place_and_proc_comes_last():
    assert list(place({}).items()) == [
        *(("/dev", b"dev"), ("/tmp", b"tmp"), ("/out", b"out"), ("/data", b"data")),
        ("/run/strongroom/tls", b"run/strongroom/tls"),
        ("/proc", b"proc"),
    ]  # fmt: skip
    assert "/run/strongroom/tls" not in place({}, certificates=False)


def test_what_lies_in_another_is_mounted_after_it():
    placed = place({b"run": b"/tmp", b"tmp": b"var/tmp", b"out": b"tmp/o", b"dev": b"/a/b/c/dev"})
    assert list(placed.values()) == [
        b"data",
        b"var/tmp",
        b"var/tmp/o",
        b"a/b/c/dev",
        b"var/tmp/strongroom/tls",
        b"proc",
    ]


def test_tmp_that_is_dev_shm_is_not_mounted_again():
    assert "/tmp" not in place({b"tmp": b"/dev/shm"})
    assert place({b"tmp": b"/dev/shm", b"out": b"/tmp/out"})["/out"] == b"dev/shm/out"


@pytest.mark.parametrize(
    ("links", "files", "why"),
    [
        ({b"tmp": b"tmp"}, (), "in a circle"),
        ({b"tmp": b"x/.."}, (), "to the top of the image"),
        (
            {},
            (b"proc",),
            "/proc is where a room shows what programs ask the kernel; your image has a file there",
        ),
        ({b"run": b"x"}, (b"x",), "your image has a file at /x, where that leads"),
        ({b"data": b"tmp/x", b"tmp/x": b"/srv"}, (), "through a folder that the room covers"),
        ({b"out": b"data"}, (), "one covers the other"),
        ({b"out": b"dev/x"}, (), "one covers the other"),
        ({b"out": b"tmp/a", b"data": b"tmp/a/b"}, (), "one covers the other"),
    ],
)
def test_what_has_no_good_place_is_refused(links, files, why):
    with pytest.raises(Refused, match=why) as caught:
        place(links, files)
    assert caught.value.code == "mount-point"
    assert caught.value.hint


@given(st.dictionaries(PATHS, TARGETS, max_size=6))
def test_whatever_the_links_each_mount_is_found_by_its_name_and_covers_no_other(links):
    try:
        placed = mounts.place(target=links.get, is_file=lambda _path: False, certificates=True)
    except Refused as cause:
        assert cause.code == "mount-point"  # noqa: PT017 - either is an answer
        return
    places = [one.place for one in placed]
    covered = lambda path: any(mounts.is_within(path, one) for one in places)  # noqa: E731 - used twice, here
    seen = Symlinks(lambda path: None if covered(path) else links.get(path), chroot=True)
    for number, one in enumerate(placed):
        assert seen.resolve(one.mount.path) == one.place != b""
        assert not {b"", b".", b".."} & set(one.place.split(b"/"))
        assert not any(one.place == other or mounts.is_within(other, one.place) for other in places[:number])
