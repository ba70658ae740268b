"""Images that nobody sane wrote: the reader answers with a tree or with Malformed, in bounded work, and nothing else."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import Malformed
from strongroom.images import results
from strongroom.seal import browse, erofs
from strongroom.seal.tree import EntryKind
from tests.effort import examples
from tests.unit.seal.trees import file, folder, link, noise

ENTRIES = [
    folder(),
    folder(b"d"),
    file(b"d/f", noise(9000), xattrs={b"user.a": b"1", b"trusted.b": b"22"}),
    file(b"g", b"x", link_group=1),
    file(b"h", b"x", link_group=1),
    link(b"l", b"d/f"),
    *(file(b"%03d" % i, b"") for i in range(300)),
]
GOOD = b"".join(erofs.blocks(erofs.layout(ENTRIES)))
META = erofs.layout(ENTRIES).meta_bytes


def sealed(data: bytearray) -> bytes:
    """`data` with the superblock's checksum made right again."""
    run = bytes(data[1024:1028]) + bytes(4) + bytes(data[1032:4096])
    data[1028:1032] = struct.pack("<I", erofs.crc32c(run))
    return bytes(data)


def read(data: bytes) -> int:
    """Walk and read everything, checking that only what lies inside is asked for. Returns the bytes of all files."""

    def block(first: int, count: int) -> bytes:
        assert first >= 0
        assert count >= 0
        assert (first + count) * 4096 <= len(data)
        return data[first * 4096 : (first + count) * 4096]

    total = 0
    for entry in browse.tree(block, len(data)):
        if entry.open is not None and entry.link_group is None:
            with entry.open() as source:
                content = source.read()
            assert len(content) == entry.size
            total += len(content)
    return total


def test_the_good_one_reads():
    assert read(GOOD) == 9000


@examples(200)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_bytes_changed_anywhere(changes):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(Malformed):
        assert read(sealed(data)) <= len(data)


@examples(200)
@given(
    st.lists(
        st.tuples(
            st.integers(1024 // 4, META // 4 - 1),
            st.sampled_from([0, 1, 2, 0x80, 0xFFF, 0xFFFF, 1 << 31, 0xFFFFFFFF]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_words_of_the_metadata_changed(changes):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at * 4 : at * 4 + 4] = struct.pack("<I", value)
    with contextlib.suppress(Malformed):
        assert read(sealed(data)) <= len(data)


@examples(100)
@given(st.binary(max_size=3 * 4096), st.integers(0, 4))
def test_anything_at_all(tail, blocks):
    data = bytearray((tail + bytes(-len(tail) % 4096)) + bytes(blocks * 4096))
    for start in (bytes(data), GOOD[:4096] + bytes(data), GOOD[:4096]):
        with pytest.raises(Malformed):
            read(start)


@examples(300)
@given(st.binary(max_size=200))
def test_folder_blocks_and_attributes_of_any_bytes(data):
    with contextlib.suppress(Malformed):
        for name, _, kind in browse._folder_block(data):
            assert name
            assert b"/" not in name
            assert isinstance(kind, EntryKind)
    with contextlib.suppress(Malformed):
        browse._xattrs(bytes(12) + data)


def rename(old: bytes, new: bytes) -> bytes:
    data = GOOD.replace(old, new)
    assert data != GOOD
    return sealed(bytearray(data))


@pytest.mark.parametrize("name", [b"..0", b"a/b", b"0\x000", b"/00", b"000"])
def test_hostile_names(name):
    with pytest.raises(Malformed):
        read(rename(b"001", name))


def inode_at(path: bytes) -> int:
    return erofs.layout(ENTRIES).by_path[path].offset


def patched(at: int, layout: str, value: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into(layout, data, at, value)
    return sealed(data)


@pytest.mark.parametrize("size", [len(GOOD) + 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1])
def test_sizes_beyond_the_image(size):
    with pytest.raises(Malformed):
        read(patched(inode_at(b"d/f") + 8, "<Q", size))


@pytest.mark.parametrize("block", [0xFFFFFFFF, len(GOOD) // 4096, len(GOOD) // 4096 - 1])
def test_blocks_beyond_the_image(block):
    with pytest.raises(Malformed):
        read(patched(inode_at(b"d/f") + 16, "<I", block))


@pytest.mark.parametrize("mode", [0o010644, 0o020644, 0o060644, 0o140644, 0o170000, 0])
def test_devices_and_fifos_and_nonsense(mode):
    with pytest.raises(Malformed):
        read(patched(inode_at(b"g") + 4, "<H", mode))


@pytest.mark.parametrize("form", [0, 2, 3, 4, 7, 9, 0x11, 0xFFFF])
def test_layouts_that_are_never_written(form):
    with pytest.raises(Malformed):
        read(patched(inode_at(b"g"), "<H", form))


def test_a_folder_inside_itself():
    data = bytearray(GOOD)
    plan = erofs.layout(ENTRIES)
    root, inner = plan.by_path[b""], plan.by_path[b"d"]
    at = GOOD.index(erofs.DIRENT.pack(inner.nid, 0, 2)[:8], META)  # in the root's content
    struct.pack_into("<Q", data, at, root.nid)
    with pytest.raises(Malformed):
        read(sealed(data))


def test_files_that_share_their_bytes_cannot_grow_without_end():
    names = [b"%05d" % i for i in range(2000)]
    entries = [folder(), file(b"big", noise(1 << 20))] + [file(name, b"x") for name in names]
    plan = erofs.layout(entries)
    data = bytearray(b"".join(erofs.blocks(plan)))
    big = plan.by_path[b"big"]
    for name in names:
        at = plan.by_path[name].offset
        struct.pack_into("<Q", data, at + 8, 1 << 20)
        struct.pack_into("<I", data, at + 16, big.block)
    with pytest.raises(Malformed, match="more than the image has"):
        read(sealed(data))


# --- results ---


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def info(name: str, **more: object) -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(one, key, value)
    return one


def result_tree(data: bytes):
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.flush()
        entries = results.tree(source.fileno(), len(data), what="result")
        return {e.path: e.open().read() if e.open else e.target for e in entries}


def test_a_result_and_its_missing_folders():
    data = tar_of((info("a/b/f"), b"hello"), (info("l", type=tarfile.SYMTYPE, linkname="a/b/f"), b""))
    assert result_tree(data) == {b"": b"", b"a": b"", b"a/b": b"", b"a/b/f": b"hello", b"l": b"a/b/f"}
    assert set(result_tree(bytes(10240))) == {b""}


@pytest.mark.parametrize(
    "bad",
    [
        [(info("../x"), b"")],
        [(info("a"), b"1"), (info("a"), b"2")],
        [(info("a"), b"1"), (info("a/b"), b"2")],
        [(info("l", type=tarfile.SYMTYPE, linkname="/etc"), b""), (info("l/passwd"), b"x")],
        [(info("d", type=tarfile.CHRTYPE), b"")],
        [(info("d", type=tarfile.FIFOTYPE), b"")],
        [(info("h", type=tarfile.LNKTYPE, linkname="x"), b"")],
    ],
)
def test_hostile_results(bad):
    with pytest.raises(Malformed):
        result_tree(tar_of(*bad))


RESULT = tar_of((info("a/b/f"), b"hello" * 300), (info("x" * 180), b"long"))


@examples(200)
@given(st.lists(st.tuples(st.integers(0, len(RESULT) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_results_changed_anywhere(changes):
    data = bytearray(RESULT)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(Malformed):
        assert all(len(content) <= len(RESULT) for content in result_tree(bytes(data)).values())
