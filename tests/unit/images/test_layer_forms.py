"""Layers in the forms that registries hold: eStargz and zstd:chunked are gzip and zstd to everybody else, and to us."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest

from strongroom.errors import Malformed, NotFound, Refused
from strongroom.images import load, oci
from tests.unit.images.kit import (
    ACCOUNTS,
    END,
    OCI_INDEX,
    OCI_LAYER,
    PROGRAM,
    Layout,
    entry,
    listing,
    loaded,
    sha256,
)

if TYPE_CHECKING:
    from pathlib import Path

TOC = json.dumps({"version": 1, "entries": []}).encode()
LANDMARK = entry(b".no.prefetch.landmark", b"\x0f")
TREE = PROGRAM + ACCOUNTS
STARGZ = TREE + LANDMARK + entry(b"stargz.index.json", TOC) + END


def stargz() -> bytes:
    """A gzip member for each entry, one for the table of contents, and an empty one with its place (stargz footer)."""
    members = [TREE, LANDMARK, entry(b"stargz.index.json", TOC) + END]
    data = b"".join(gzip.compress(one, mtime=0) for one in members)
    place = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % len(gzip.compress(TREE, mtime=0))
    footer = b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\xff" + struct.pack("<H", len(place)) + place
    return data + footer + b"\x01\0\0\xff\xff" + struct.pack("<II", zlib.crc32(b""), 0)


def chunked() -> bytes:
    """A zstd frame for each chunk, and skippable frames with a manifest and a footer (zstd:chunked)."""
    frames = []
    for one in (TREE, LANDMARK + END):
        frames.append(subprocess.run(["zstd", "-q", "-c"], input=one, capture_output=True, check=True).stdout)
    skipped = [
        struct.pack("<II", 0x184D2A50, len(body)) + body
        for body in (b"manifest" * 40, b"GNUlInUx" + bytes(56))
    ]
    return b"".join([*frames, *skipped])


def made(path: Path, packed: bytes, plain: bytes, compression: str) -> Layout:
    layout = Layout(path)
    row = {"mediaType": OCI_LAYER + compression, **layout.blob(packed)}
    return layout.index(layout.manifest(layout.config([sha256(plain)]), [row]))


@pytest.mark.parametrize(
    ("form", "plain", "compression"), [(stargz, STARGZ, "+gzip"), (chunked, TREE + LANDMARK + END, "+zstd")]
)
def test_special_forms_are_read_as_what_they_are_to_everybody(tmp_path, form, plain, compression):
    layout = made(tmp_path / "layout", form(), plain, compression)
    with loaded(layout.path, tmp_path) as found:
        tree = listing(found.tree)
    assert tree[b"bin/program"] == b"#!"
    # What container runtimes without a plug-in unpack is there, and nothing else.
    assert tree[b".no.prefetch.landmark"] == b"\x0f"
    assert tree.get(b"stargz.index.json") == (TOC if form is stargz else None)


@pytest.mark.root
def test_another_unpacker_makes_the_same_tree(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    layout = made(tmp_path / "layout", stargz(), STARGZ, "+gzip")
    index = json.loads((layout.path / "index.json").read_text())
    index["manifests"][0]["annotations"] = {oci.REF_NAME: "it"}
    (layout.path / "index.json").write_text(json.dumps(index))
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout.path}:it", str(tmp_path / "b")],
        capture_output=True,
        check=True,
    )
    root = tmp_path / "b/rootfs"
    with loaded(layout.path, tmp_path) as found:
        ours = {one.path.decode() for one in found.entries}
    theirs = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert ours - theirs <= {"", "data", "out", "tmp", "proc", "sys", "dev", "run"}
    assert theirs <= ours


@pytest.mark.parametrize(
    ("kind", "why"), [(stargz, "gzip: ends too early"), (chunked, "zstd: does not decompress")]
)
def test_what_is_cut_off_is_refused(tmp_path, kind, why):
    packed = kind()
    compression, plain = ("+gzip", STARGZ) if kind is stargz else ("+zstd", TREE + LANDMARK + END)
    for place in (len(packed) - 1, len(packed) // 2):
        layout = made(tmp_path / str(place), packed[:place], plain, compression)
        with pytest.raises(Malformed, match=why), loaded(layout.path, tmp_path):
            pass


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_a_foreign_layer_counts_where_it_is_and_is_refused_with_the_reason_where_it_is_not(tmp_path, kind):
    layout = Layout(tmp_path / "layout")
    row = {
        "mediaType": kind,
        **layout.blob(gzip.compress(TREE + END)),
        "urls": ["https://elsewhere.example/layer"],
    }
    layout.index(layout.manifest(layout.config([sha256(TREE + END)]), [row]))
    with loaded(layout.path, tmp_path) as found:
        assert listing(found.tree)[b"bin/program"] == b"#!"
    (layout.path / "blobs/sha256" / row["digest"][7:]).unlink()
    with pytest.raises(Refused) as refused, loaded(layout.path, tmp_path):
        pass
    assert refused.value.code == "foreign-layer"
    assert refused.value.hint


def test_an_index_in_an_index_by_platform_and_variant(tmp_path):
    layout = Layout(tmp_path / "layout")

    def one(architecture: str, variant: str = "") -> dict:
        more = {"variant": variant} if variant else {}
        row = layout.image(PROGRAM + END, architecture=architecture, **more)
        return {**row, "platform": {"os": "linux", "architecture": architecture, **more}}

    rows = [one("amd64"), one("arm64", "v8"), one("arm", "v6"), one("arm", "v7")]
    inner = layout.json({"schemaVersion": 2, "manifests": rows}, OCI_INDEX)
    outer = layout.json({"schemaVersion": 2, "manifests": [inner]}, OCI_INDEX)
    layout.index(outer)
    for name, row in (
        ("linux/amd64", rows[0]),
        ("linux/arm64/v8", rows[1]),
        ("linux/arm64", rows[1]),
        ("linux/arm64/8", rows[1]),
        ("linux/aarch64", rows[1]),
        ("linux/arm/v7", rows[3]),
        ("linux/arm/v6", rows[2]),
        ("linux/arm", rows[3]),
        ("linux/arm/v8", rows[3]),
        ("linux/x86_64", rows[0]),
        ("linux/amd64/v3", rows[0]),
    ):
        chosen = load.identify(layout.path, digest=None, platform=oci.parse_platform(name))
        assert chosen.digest == row["digest"]
        assert chosen.index == inner["digest"]
        by_index = load.identify(layout.path, digest=outer["digest"], platform=oci.parse_platform(name))
        assert by_index.digest == row["digest"]
    with pytest.raises(NotFound, match="no image for linux/arm/v5 here"):
        load.identify(layout.path, digest=None, platform=oci.parse_platform("linux/arm/v5"))
