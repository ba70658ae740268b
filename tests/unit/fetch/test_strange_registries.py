"""What registries really hold: old forms, layers that lie elsewhere, levels of one architecture."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Refused
from strongroom.fetch.oci import pull as registry
from strongroom.images import oci
from strongroom_testing.registry_front import front
from tests.unit.fetch.registries import access
from tests.unit.fetch.registry_documents import INDEX, MANIFEST, index_of, named, serve
from tests.unit.images import kit

TREE = kit.PROGRAM + kit.END


@pytest.fixture
def one(tmp_path):
    with front(tmp_path / "front") as made:
        yield made


def serve_image(one, layer_type=kit.OCI_LAYER, *, layer_is_there=True, **config):
    """Put an image of one layer there. Returns its manifest's descriptor."""
    about = {"os": "linux", "architecture": "amd64", **config}
    about |= {
        "rootfs": {"type": "layers", "diff_ids": [kit.sha256(TREE)]},
        "config": {"Cmd": ["/bin/program"]},
    }
    described = serve(one, about, kit.OCI_CONFIG, kept="blobs")
    layer = {"mediaType": layer_type, "digest": kit.sha256(TREE), "size": len(TREE)}
    if layer_is_there:
        serve(one, TREE, layer_type, kept="blobs")
    return serve(
        one, {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer]}, MANIFEST
    )


def pull(one, descriptor, into, platform="linux/amd64"):
    return registry.pull(
        named(one, descriptor["digest"]), platform=oci.parse_platform(platform), into=into, access=access(one)
    )


@pytest.mark.parametrize("kind", oci.SCHEMA_1)
def test_schema_1_is_named(one, tmp_path, kind):
    made = serve(one, {"schemaVersion": 1, "fsLayers": []}, kind)
    with pytest.raises(Refused, match="Docker's manifest schema 1, of before 2017") as caught:
        pull(one, made, tmp_path / "x")
    assert caught.value.code == "schema-1"


def test_a_foreign_layer_is_fetched_where_the_registry_has_it(one, tmp_path):
    made = serve_image(one, "application/vnd.docker.image.rootfs.foreign.diff.tar")
    found = pull(one, made, tmp_path / "x")
    with kit.loaded(tmp_path / "x", tmp_path, digest=found.digest) as loaded:
        assert b"bin/program" in kit.listing(loaded.tree)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", "foreign-layer"),
        (kit.OCI_LAYER, "not-found"),
    ],
)
def test_a_layer_that_is_not_there_is_told_as_what_it_is(one, tmp_path, kind, code):
    made = serve_image(one, kind, layer_is_there=False)
    with pytest.raises((Refused, registry.NotFound)) as caught:
        pull(one, made, tmp_path / "x")
    assert (caught.value.code == code) is (code == "foreign-layer")
    assert isinstance(caught.value, Refused) is (code == "foreign-layer")


def test_of_levels_the_closest_is_fetched(one, tmp_path):
    rows = {}
    for variant in ("", "v2", "v3"):
        more = {"variant": variant} if variant else {}
        made = serve_image(one, comment=variant, **more)
        rows[variant] = {**made, "platform": {"os": "linux", "architecture": "amd64", **more}}
    top = serve(one, json.dumps(index_of(list(rows.values()))).encode(), INDEX)
    for wanted, variant in (("linux/amd64", ""), ("linux/amd64/v2", "v2"), ("linux/x86_64/v4", "v3")):
        assert pull(one, top, tmp_path / f"l{variant}", wanted).digest == rows[variant]["digest"]
