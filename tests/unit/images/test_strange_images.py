"""Images and archives as builders really write them: which one is meant, and what is said where none can be read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from strongroom.errors import Malformed, Misuse, NotFound, Refused, StrongroomError
from strongroom.images import load, oci, sources
from strongroom.images.limits import LIMITS, ImageLimits
from tests.unit.images.kit import (
    ACCOUNTS,
    END,
    OCI_LAYER,
    OCI_MANIFEST,
    PROGRAM,
    Layout,
    entry,
    folder,
    listing,
    loaded,
    sha256,
    simple,
    symlink,
)

if TYPE_CHECKING:
    from pathlib import Path

BASE = PROGRAM + ACCOUNTS + END
DOCKER_MANIFEST = oci.MANIFESTS[1]


def platform(text: str) -> oci.ImagePlatform:
    return oci.parse_platform(text)


# Platforms and their variants.


@pytest.mark.parametrize(
    ("wanted", "image_s", "suits"),
    [
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64/8", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64/v9", False),
        ("linux/arm64/v9", "linux/arm64", True),
        ("linux/aarch64", "linux/arm64/v8", True),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v6", "linux/arm", False),
        ("linux/armhf", "linux/arm/v7", True),
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/amd64/v2", "linux/amd64/v3", False),
        ("linux/amd64/v3", "linux/amd64/v2", True),
        ("linux/amd64", "linux/x86_64", True),
        ("linux/amd64", "linux/386", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/amd64", "unknown/unknown", False),
        ("linux/mips64le/softfloat", "linux/mips64le/softfloat", True),
        ("linux/mips64le/softfloat", "linux/mips64le", False),
        ("linux/mips64le", "linux/mips64le/softfloat", True),
    ],
)
def test_which_platforms_suit(wanted: str, image_s: str, *, suits: bool) -> None:
    assert platform(wanted).suits(platform(image_s)) is suits


def test_what_an_image_does_not_say_is_no_difference() -> None:
    for silent in (oci.ImagePlatform(os="", architecture=""), oci.ImagePlatform(os="linux", architecture="")):
        assert platform("linux/amd64").suits(silent)
        assert platform("linux/arm/v6").agrees(silent)


@pytest.mark.parametrize(
    ("index", "config", "agrees"),
    [
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v6", "linux/arm", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/amd64/v3", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
    ],
)
def test_an_index_and_a_configuration_may_say_more_or_less_but_not_otherwise(
    tmp_path: Path, index: str, config: str, *, agrees: bool
) -> None:
    stated, own = platform(index), platform(config)
    layout = Layout(tmp_path / "layout")
    more = {"variant": own.variant} if own.variant else {}
    row = layout.image(BASE, architecture=own.architecture, **more)
    told = {"os": stated.os, "architecture": stated.architecture}
    layout.index({**row, "platform": {**told, **({"variant": stated.variant} if stated.variant else {})}})
    if agrees:
        chosen = load.identify(layout.path, digest=None, platform=stated)
        assert chosen is not None
        assert (chosen.digest, chosen.platform) == (row["digest"], stated)
        return
    with pytest.raises(Refused, match="the index says"):
        load.identify(layout.path, digest=None, platform=stated)


def test_of_levels_the_closest_is_chosen(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    rows = {}
    for variant in ("", "v2", "v3"):
        more = {"variant": variant} if variant else {}
        row = layout.image(BASE, **more)
        rows[variant] = {**row, "platform": {"os": "linux", "architecture": "amd64", **more}}
    layout.index(*rows.values())
    for wanted, variant in (("", ""), ("/v1", ""), ("/v2", "v2"), ("/v3", "v3"), ("/v4", "v3")):
        chosen = load.identify(layout.path, digest=None, platform=platform("linux/amd64" + wanted))
        assert chosen is not None
        assert chosen.digest == rows[variant]["digest"]
    layout.index(rows["v3"], rows["v2"])
    chosen = load.identify(layout.path, digest=None, platform=platform("linux/amd64"))
    assert chosen is not None
    assert chosen.digest == rows["v2"]["digest"]


def test_an_image_without_os_and_architecture_is_taken(tmp_path: Path) -> None:
    layout = simple(tmp_path / "layout", BASE, os="", architecture="")
    with loaded(layout.path, tmp_path) as found:
        assert b"bin/program" in listing(found.tree)


# Compression: what the bytes say counts, whatever the media type says.


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


LAYER_TYPES = [  # by the OCI image specification, and Docker's image manifest version 2, schema 2
    f"application/vnd.{name}"
    for name in (
        *(f"oci.image.layer.v1.tar{suffix}" for suffix in ("", "+gzip", "+zstd")),
        *(f"oci.image.layer.nondistributable.v1.tar{suffix}" for suffix in ("", "+gzip", "+zstd")),
        *(f"docker.image.rootfs.diff.tar{suffix}" for suffix in ("", ".gzip", ".zstd")),
        *(f"docker.image.rootfs.foreign.diff.tar{suffix}" for suffix in ("", ".gzip")),
    )
]


def test_the_types_of_layers_are_those_that_the_world_writes() -> None:
    assert set(LAYER_TYPES) == oci.LAYERS | oci.FOREIGN_LAYERS
    assert {
        name for name in LAYER_TYPES if "nondistributable" in name or "foreign" in name
    } == oci.FOREIGN_LAYERS


@pytest.mark.parametrize("media_type", LAYER_TYPES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_a_layer_is_compressed_as_its_bytes_say(tmp_path: Path, media_type: str, pack: Any) -> None:
    layout = Layout(tmp_path / "layout")
    row = {"mediaType": media_type, **layout.blob(pack(BASE))}
    layout.index(layout.manifest(layout.config([sha256(BASE)]), [row]))
    with loaded(layout.path, tmp_path) as found:
        assert listing(found.tree)[b"bin/program"] == b"#!"


def test_a_skippable_frame_first_is_zstd(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    packed = struct.pack("<II", 0x184D2A5F, 4) + b"toc!" + zstd(BASE)
    row = {"mediaType": OCI_LAYER + "+zstd", **layout.blob(packed)}
    layout.index(layout.manifest(layout.config([sha256(BASE)]), [row]))
    with loaded(layout.path, tmp_path) as found:
        assert listing(found.tree)[b"bin/program"] == b"#!"


def test_a_layer_of_nothing_is_no_change(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    rows = [layout.layer(BASE), layout.layer(b""), layout.layer(b"", "+gzip")]
    rows.append({"mediaType": OCI_LAYER + "+gzip", **layout.blob(b"")})
    layout.index(layout.manifest(layout.config([sha256(BASE), *[sha256(b"")] * 3]), rows))
    with loaded(layout.path, tmp_path) as found:
        assert found.summary.layers == 4
        assert listing(found.tree)[b"bin/program"] == b"#!"


# Which manifests are images.


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "text/html"])
def test_old_registries_configurations_are_images_in_dockers_manifests(tmp_path: Path, kind: str) -> None:
    layout = Layout(tmp_path / "layout")
    config = layout.config([sha256(BASE)]) | {"mediaType": kind}
    value = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": config,
        "layers": [layout.layer(BASE)],
    }
    layout.index(layout.json(value, DOCKER_MANIFEST))
    with loaded(layout.path, tmp_path) as found:
        assert b"bin/program" in listing(found.tree)
    layout.index(layout.manifest(config, [layout.layer(BASE)]))
    with pytest.raises(Refused) as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "not-an-image"


def test_signatures_and_bills_beside_an_image_are_not_taken_for_images(tmp_path: Path) -> None:
    """As `cosign save` and `oras copy` leave them: manifests without a platform, one of them the image's."""
    layout = Layout(tmp_path / "layout")
    row = layout.image(BASE)
    signed = {"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", **layout.blob(b"{}")}
    signature = layout.manifest(layout.config([sha256(b"{}")]), [signed])
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", **layout.blob(b"{}")}
    bill = layout.manifest(empty, [empty], artifactType="application/vnd.cyclonedx+json")
    layout.index(signature, bill, row)
    with loaded(layout.path, tmp_path) as found:
        assert found.digest == row["digest"]
    other = layout.image(BASE, entry(b"other") + END)
    layout.index(signature, row, other)
    with pytest.raises(Refused) as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "choose-digest"
    assert signature["digest"] not in (caught.value.hint or "")


@pytest.mark.parametrize("kind", oci.SCHEMA_1)
def test_schema_1_is_named(tmp_path: Path, kind: str) -> None:
    layout = Layout(tmp_path / "layout")
    old = layout.json({"schemaVersion": 1, "fsLayers": []}, kind)
    layout.index(old)
    with (
        pytest.raises(Refused, match="manifest schema 1, of before 2017") as caught,
        loaded(layout.path, tmp_path),
    ):
        pass
    assert caught.value.code == "schema-1"
    row = layout.image(BASE)
    layout.index(old, row)
    with loaded(layout.path, tmp_path) as found:
        assert found.digest == row["digest"]
    with pytest.raises(Refused, match="schema 1"), loaded(layout.path, tmp_path, digest=old["digest"]):
        pass


# Archives of `docker save` and their like.


def archive(path: Path, *members: bytes, layers: list[str], more: bytes = b"", end: bytes = END) -> Path:
    """A docker archive of one layer, BASE, that lies under the names in `layers`."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha256(BASE)] * len(layers)},
            "config": {"Cmd": ["/bin/program"]},
        }
    ).encode()
    rows = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": layers}]).encode()
    path.write_bytes(
        entry(b"config.json", config) + b"".join(members) + entry(b"manifest.json", rows) + end + more
    )
    return path


def refusal(path: Path, tmp_path: Path) -> StrongroomError:
    with pytest.raises((Malformed, NotFound, Refused)) as caught, loaded(path, tmp_path):
        pass
    return caught.value


def test_a_link_to_nothing_is_told_with_what_it_may_have_meant(tmp_path: Path) -> None:
    layer = entry(b".real.tar", BASE)
    links = symlink(b"a/layer.tar", b".real.tar")
    told = refusal(archive(tmp_path / "it.tar", layer, links, layers=["a/layer.tar"]), tmp_path)
    assert told.code == "missing-blob"
    assert told.message == (
        "'a/layer.tar' is a symbolic link to '.real.tar', which is not in the archive"
        " (there is one of that name at its root, '.real.tar')"
    )
    told = refusal(archive(tmp_path / "it.tar", links, layers=["a/layer.tar"]), tmp_path)
    assert told.message.endswith("which is not in the archive")
    good = archive(
        tmp_path / "it.tar", layer, symlink(b"a/layer.tar", b"../.real.tar"), layers=["a/layer.tar"]
    )
    with loaded(good, tmp_path) as found:
        assert b"bin/program" in listing(found.tree)


def test_an_archive_may_repeat_what_is_equal(tmp_path: Path) -> None:
    layer = folder(b"a/") + entry(b"a/layer.tar", BASE)
    for path in (
        archive(tmp_path / "twice.tar", layer, folder(b"a/", mtime=1), layer, layers=["a/layer.tar"]),
        archive(tmp_path / "no-end.tar", layer, layers=["a/layer.tar"], end=b""),
        archive(tmp_path / "after.tar", layer, layers=["a/layer.tar"], more=b"more"),
    ):
        with loaded(path, tmp_path) as found:
            assert b"bin/program" in listing(found.tree)
    other = entry(b"a/layer.tar", BASE[:-1] + b"x")
    told = refusal(archive(tmp_path / "it.tar", layer, other, layers=["a/layer.tar"]), tmp_path)
    assert told.code == "duplicate-entry"
    told = refusal(archive(tmp_path / "it.tar", layer, symlink(b"a", b"b"), layers=["a/layer.tar"]), tmp_path)
    assert told.code == "duplicate-entry"


def test_an_archive_of_before_docker_1_10_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.tar"
    path.write_bytes(
        entry(b"repositories", b"{}") + entry(b"aa/json", b"{}") + entry(b"aa/layer.tar", BASE) + END
    )
    told = refusal(path, tmp_path)
    assert told.code == "not-an-image"
    assert "before 1.10" in told.message
    assert "docker save" in (told.hint or "")


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_an_archive_may_be_compressed_as_a_whole(tmp_path: Path, pack: Any) -> None:
    """As `docker save … | gzip` leaves it, and builders with results of their own."""
    plain = archive(tmp_path / "it.tar", entry(b"l", BASE), layers=["l"])
    packed = tmp_path / "it.tar.packed"
    packed.write_bytes(pack(plain.read_bytes()))
    with loaded(packed, tmp_path) as found, loaded(plain, tmp_path) as other:
        assert (found.digest, listing(found.tree)) == (other.digest, listing(other.tree))
    assert load.identify(packed, digest=None, platform=load.PLATFORM) is None
    with pytest.raises(Misuse, match="there is no folder to unpack it in"):
        sources.OpenedImage(packed, LIMITS)
    packed.write_bytes(pack(plain.read_bytes())[:-6])
    assert refusal(packed, tmp_path).code == "not-an-image"


def test_a_compressed_archive_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "it.tar.gz"
    path.write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(Refused) as caught, loaded(path, tmp_path, limits=ImageLimits(layer_bytes=1 << 20)):
        pass
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(("pack", "program"), [(bz2.compress, "bunzip2"), (lzma.compress, "unxz")])
def test_an_archive_that_is_compressed_otherwise_is_told_with_the_program_that_unpacks_it(
    tmp_path: Path, pack: Any, program: str
) -> None:
    plain = archive(tmp_path / "it.tar", entry(b"l", BASE), layers=["l"])
    (tmp_path / "it.tar.packed").write_bytes(pack(plain.read_bytes()))
    assert load.identify(tmp_path / "it.tar.packed", digest=None, platform=load.PLATFORM) is None
    told = refusal(tmp_path / "it.tar.packed", tmp_path)
    assert told.message.endswith(f"is compressed: unpack it first, with `{program}`")


def test_dockers_manifests_in_a_layout_and_oci_s_layers_in_them(tmp_path: Path) -> None:
    """As `skopeo copy --preserve-digests` and mixed registries leave them."""
    layout = Layout(tmp_path / "layout")
    value = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": layout.config([sha256(BASE), sha256(BASE)]),
        "layers": [layout.layer(BASE, "+gzip"), layout.layer(BASE)],
    }
    row = layout.json(value, DOCKER_MANIFEST)
    kind = oci.INDEXES[1]
    listed = {**row, "platform": {"os": "linux", "architecture": "amd64"}}
    layout.index(layout.json({"schemaVersion": 2, "mediaType": kind, "manifests": [listed]}, kind))
    with loaded(layout.path, tmp_path) as found:
        assert (found.digest, found.summary.layers) == (row["digest"], 2)


def test_a_variable_without_a_value_is_not_set_and_told(tmp_path: Path) -> None:
    """As builders write for variables that somebody else is to set; Docker leaves them unset."""
    layout = simple(tmp_path / "layout", BASE, config={"Env": ["A=1", "PASSWORD", "B=", "", "A"]})
    with loaded(layout.path, tmp_path) as found:
        assert {name: found.settings.environment.get(name) for name in ("A", "B", "PASSWORD", "")} == {
            "A": "1",
            "B": "",
            "PASSWORD": None,
            "": None,
        }
        assert "Env PASSWORD without a value has no effect in a room" in found.summary.notes


def test_what_python_s_tarfile_adds_of_a_layout_is_read(tmp_path: Path) -> None:
    """GNU headers, folders with and without a slash, a link for a blob that two images share."""
    layout = simple(tmp_path / "layout", BASE)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as out:
        for _ in range(2):
            out.add(layout.path / "blobs", "blobs", recursive=False)
        for child in sorted(layout.path.rglob("*")):
            if child.is_file():
                out.add(child, f"./{child.relative_to(layout.path)}")
    (tmp_path / "layout.tar").write_bytes(buffer.getvalue())
    with loaded(tmp_path / "layout.tar", tmp_path) as found, loaded(layout.path, tmp_path) as plain:
        assert found.digest == plain.digest


def test_an_index_that_says_oci_manifest_of_dockers_is_still_refused(tmp_path: Path) -> None:
    """CVE-2021-41190: what a descriptor says and what a document says must be one."""
    layout = Layout(tmp_path / "layout")
    value = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": layout.config([sha256(BASE)]),
        "layers": [layout.layer(BASE)],
    }
    layout.index(layout.json(value, OCI_MANIFEST))
    told = refusal(layout.path, tmp_path)
    assert told.code == "bad-media-type"


@pytest.mark.parametrize(
    ("beside", "told"),
    [("version", "an image in skopeo's own form"), ("repositories", "an unpacked `docker save` archive")],
)
def test_a_folder_that_holds_an_image_in_pieces_is_taken_for_no_root(tmp_path, beside, told):
    for name in ("manifest.json", beside):
        (tmp_path / name).write_text("{}")
    for config in (None, b'{"config": {"Entrypoint": ["/x"]}}'):
        with pytest.raises(Refused, match=told) as caught, loaded(tmp_path, tmp_path, config=config):
            pass
        assert caught.value.code == "not-an-image"
