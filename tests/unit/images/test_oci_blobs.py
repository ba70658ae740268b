from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from strongroom.errors import Malformed, NotFound, Refused
from strongroom.images import blobs
from strongroom.images.limits import LIMITS, ImageLimits
from tests.unit.images.kit import sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def unpack(tmp_path: Path, data: bytes, plain: bytes, **more: object) -> bytes:
    file = tmp_path / "blob"
    file.write_bytes(data)
    given = {"digest": sha256(data), "size": len(data), "diff_id": sha256(plain), "limits": LIMITS, **more}
    with (
        blobs.Spool(tmp_path) as spool,
        blobs.Blob(os.open(file, os.O_RDONLY), 0, len(data), "layer") as blob,
    ):
        blobs.unpack(blob, spool, progress=lambda _: None, **given)  # type: ignore[arg-type]
        with spool.open(0, spool.size) as source:
            return source.read()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


PLAIN = os.urandom(3 << 20) + bytes(1 << 20)
PACKED = {"none": PLAIN, "gzip": gzip.compress(PLAIN, 1), "zstd": zstd(PLAIN)}


@pytest.mark.parametrize("compression", PACKED)
def test_unpacks(tmp_path: Path, compression: str) -> None:
    packed = PACKED[compression]
    assert unpack(tmp_path, packed, PLAIN) == PLAIN
    assert unpack(tmp_path, packed, PLAIN, digest=None, size=None) == PLAIN


def test_several_gzip_members_are_one_stream(tmp_path: Path) -> None:
    data = gzip.compress(b"a" * 5000) + gzip.compress(b"") + gzip.compress(b"b" * 7)
    assert unpack(tmp_path, data, b"a" * 5000 + b"b" * 7) == b"a" * 5000 + b"b" * 7


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("lie", ["digest", "size", "diff_id"])
def test_refuses_every_lie(tmp_path: Path, compression: str, lie: str) -> None:
    wrong = {"digest": sha256(b"other"), "size": 5, "diff_id": sha256(b"other")}
    with pytest.raises(Refused) as caught:
        unpack(tmp_path, PACKED[compression], PLAIN, **{lie: wrong[lie]})
    assert caught.value.code == ("wrong-size" if lie == "size" else "wrong-digest")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (PACKED["gzip"][:-9], "gzip: ends too early"),
        (PACKED["gzip"] + PACKED["gzip"][:40], "gzip: ends too early"),
        (PACKED["gzip"][:2000] + b"?" * 200 + PACKED["gzip"][2200:], "gzip: Error"),
        (PACKED["zstd"][:-9], "zstd: does not decompress"),
        (PACKED["zstd"] + b"garbage", "zstd: does not decompress"),
        (b"\x28\xb5\x2f\xfd" + bytes(range(200)), "zstd: does not decompress"),
    ],
)
def test_broken_streams_are_malformed(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        unpack(tmp_path, data, PLAIN)


def skippable(body: bytes, kind: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + kind, len(body)) + body


SMALL = os.urandom(3000)


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (gzip.compress(SMALL) + bytes(512), SMALL),
        (gzip.compress(SMALL) + b"\x1f", SMALL),
        (gzip.compress(SMALL) + b"padding", SMALL),
        (gzip.compress(b"") + gzip.compress(SMALL) + bytes(3), SMALL),
        (gzip.compress(b""), b""),
        (zstd(b""), b""),
        (b"", b""),
        (skippable(b"toc") + zstd(SMALL), SMALL),
        (skippable(b"", 15) + skippable(b"x" * 900, 7) + zstd(SMALL), SMALL),
        (zstd(SMALL[:10]) + skippable(b"between") + zstd(SMALL[10:]) + skippable(b"last", 3), SMALL),
        (skippable(b"nothing else"), b""),
    ],
)
def test_padding_empty_streams_and_skippable_frames_have_one_reading(
    tmp_path: Path, data: bytes, plain: bytes
) -> None:
    """The diff_id holds, so these are the bytes; RFC 1952 2.2, RFC 8878 3.1.2."""
    assert unpack(tmp_path, data, plain) == plain
    with pytest.raises(Refused, match=r"diff_id.*expected"):
        unpack(tmp_path, data, plain + b"more")


def test_a_gzip_member_that_begins_at_the_end_of_a_chunk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = gzip.compress(SMALL), gzip.compress(b"second")
    for size in (len(first) + 1, len(first), len(first) - 1):
        monkeypatch.setattr(blobs, "CHUNK", size)
        assert unpack(tmp_path, first + second, SMALL + b"second") == SMALL + b"second"


@pytest.mark.parametrize(("compress", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_what_is_not_decompressed_here_is_named(tmp_path: Path, compress: Callable, name: str) -> None:
    with pytest.raises(Refused, match=f"layer: compressed with {name}") as caught:
        unpack(tmp_path, compress(PLAIN), PLAIN)
    assert caught.value.code == "unknown-compression"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_growth_stops_at_the_limit_on_bytes_whatever_the_ratio(tmp_path: Path, compression: str) -> None:
    plain = bytes(64 << 20)
    data = gzip.compress(plain) if compression == "gzip" else zstd(plain)
    grown: list[int] = []
    limited(tmp_path, data, plain, ImageLimits(), grown)
    assert grown[0] == len(plain)
    with pytest.raises(Refused) as caught:
        limited(tmp_path, data, plain, ImageLimits(layer_bytes=10 << 20), grown)
    assert caught.value.code == "too-large"
    assert grown[0] <= 12 << 20


def limited(tmp_path: Path, data: bytes, plain: bytes, limits: ImageLimits, grown: list[int]) -> None:
    file = tmp_path / "blob"
    file.write_bytes(data)
    grown.clear()
    with (
        blobs.Spool(tmp_path) as spool,
        blobs.Blob(os.open(file, os.O_RDONLY), 0, len(data), "layer") as blob,
    ):
        try:
            blobs.unpack(
                blob,
                spool,
                digest=None,
                size=None,
                diff_id=sha256(plain),
                limits=limits,
                progress=lambda _: None,
            )
        finally:
            grown.append(spool.size)


def test_without_the_zstd_program_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="is compressed with zstd, which is not installed"):
        unpack(tmp_path, PACKED["zstd"], PLAIN)


def test_a_blob_that_shrinks_is_malformed(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"x" * 10)
    with (
        blobs.Blob(os.open(file, os.O_RDONLY), 0, 20, "layer") as blob,
        pytest.raises(Malformed, match="ends at byte 10 of 20"),
    ):
        blobs.document(blob, digest=None, size=None, max_bytes=100)


def test_documents_are_bounded_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"0123456789")
    with blobs.Blob(os.open(file, os.O_RDONLY), 2, 5, "document") as blob:
        good = blobs.document(blob, digest=sha256(b"23456"), size=5, max_bytes=5)
        assert good == b"23456"
        with pytest.raises(Malformed, match="5 bytes, at most 4 allowed"):
            blobs.document(blob, digest=None, size=None, max_bytes=4)
        with pytest.raises(Refused, match="digest: expected"):
            blobs.document(blob, digest=sha256(b"x"), size=5, max_bytes=5)


def test_slices_of_a_spool_are_independent_and_end(tmp_path: Path) -> None:
    with blobs.Spool(tmp_path) as spool:
        assert list(tmp_path.iterdir()) == []
        spool.append(b"abc")
        spool.append(b"def")
        with spool.open(1, 3) as one, spool.open(2, 4) as two:
            assert one.read(2) == b"bc"
            assert two.read() == b"cdef"
            assert one.read() == b"d"
            assert one.read() == b""
