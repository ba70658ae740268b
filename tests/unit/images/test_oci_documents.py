from __future__ import annotations

import json
from typing import Any

import pytest

from strongroom.errors import Malformed, Refused, StrongroomError
from strongroom.images import oci
from strongroom.images.limits import LIMITS, ImageLimits
from tests.unit.images.kit import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

DIGEST = "sha256:" + "ab" * 32
CONFIG = {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 10}
LAYER = {"mediaType": OCI_LAYER, "digest": DIGEST, "size": 10}
MANIFEST = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}


def manifest(**change: Any) -> oci.ImageManifest:
    data = json.dumps(MANIFEST | change).encode()
    return oci.parse_manifest(data, OCI_MANIFEST, what="manifest", limits=LIMITS)


def test_a_manifest() -> None:
    got = manifest(annotations={"any": "thing"}, unknown=[1])
    assert got.config.digest == DIGEST
    assert [layer.size for layer in got.layers] == [10]
    without = {key: value for key, value in MANIFEST.items() if key != "mediaType"}
    oci.parse_manifest(json.dumps(without).encode(), OCI_MANIFEST, what="manifest", limits=LIMITS)


BAD = {
    "schema 1": {"schemaVersion": 1},
    "schema true": {"schemaVersion": True},
    "calls itself an index": {"mediaType": OCI_INDEX},
    "calls itself docker's": {"mediaType": oci.MANIFESTS[1]},
    "could be an index too": {"manifests": []},
    "could be schema 1 too": {"fsLayers": []},
    "no layers": {"layers": []},
    "layers no list": {"layers": {}},
    "config missing": {"config": None},
    "config is a manifest": {"config": CONFIG | {"mediaType": OCI_MANIFEST}},
    "config is another artifact": {"config": CONFIG | {"mediaType": "application/vnd.oci.empty.v1+json"}},
    "digest of another kind": {"layers": [LAYER | {"digest": "sha512:" + "ab" * 64}]},
    "digest that is a number": {"layers": [LAYER | {"digest": 5}]},
    "digest in capitals": {"layers": [LAYER | {"digest": "sha256:" + "AB" * 32}]},
    "digest with a path": {"layers": [LAYER | {"digest": "sha256:../../../../etc/passwd"}]},
    "size negative": {"layers": [LAYER | {"size": -1}]},
    "size true": {"layers": [LAYER | {"size": True}]},
    "size text": {"layers": [LAYER | {"size": "10"}]},
    "config of no type, in OCI's manifest": {"config": CONFIG | {"mediaType": "application/octet-stream"}},
    "encrypted layer": {"layers": [LAYER | {"mediaType": OCI_LAYER + "+gzip+encrypted"}]},
    "schema 1 itself": {"schemaVersion": 1, "fsLayers": []},
    "layer of unknown type": {"layers": [LAYER | {"mediaType": "text/plain"}]},
    "layer is a config": {"layers": [CONFIG]},
    "media type missing": {"layers": [{"digest": DIGEST, "size": 1}]},
    "too many layers": {"layers": [LAYER] * 129},
}


# What refuses each of them.
WHY = {
    "schema 1": "schemaVersion: expected 2",
    "schema true": "schemaVersion: expected 2",
    "calls itself an index": "its descriptor says",
    "calls itself docker's": "its descriptor says",
    "could be an index too": "with 'manifests'",
    "could be schema 1 too": "with 'fsLayers'",
    "no layers": "manifest: no layers",
    "layers no list": "layers: expected a list of at most 128",
    "config missing": "config: expected an object",
    "config is a manifest": "its configuration is .*image.manifest.* which is not an image's",
    "config is another artifact": "its configuration is .*oci.empty.* which is not an image's",
    "digest of another kind": "digest: expected 'sha256:' and 64 hexadecimal digits",
    "digest that is a number": "digest: expected 'sha256:' and 64 hexadecimal digits",
    "digest in capitals": "digest: expected 'sha256:' and 64 hexadecimal digits",
    "digest with a path": "digest: expected 'sha256:' and 64 hexadecimal digits",
    "size negative": "size: expected a size in bytes",
    "size true": "size: expected a size in bytes",
    "size text": "size: expected a size in bytes",
    "config of no type, in OCI's manifest": "which is not an image's",
    "encrypted layer": "an encrypted layer",
    "schema 1 itself": "Docker's manifest schema 1, of before 2017",
    "layer of unknown type": "unknown media type 'text/plain'",
    "layer is a config": "unknown media type 'application/vnd.oci.image.config",
    "media type missing": "mediaType: expected a media type",
    "too many layers": "layers: expected a list of at most 128",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_manifests(name: str) -> None:
    with pytest.raises((Malformed, Refused), match=WHY[name]):
        manifest(**BAD[name])


def test_an_index_may_not_look_like_a_manifest() -> None:
    good = {"schemaVersion": 2, "manifests": [CONFIG | {"mediaType": OCI_MANIFEST}]}

    def parse(value: dict[str, Any]) -> Any:
        return oci.parse_index(json.dumps(value).encode(), OCI_INDEX, what="index", limits=LIMITS)

    assert len(parse(good)) == 1
    for extra, why in (
        ({"layers": []}, "a application/vnd.oci.image.index with 'layers'"),
        ({"config": CONFIG}, "a application/vnd.oci.image.index with 'config'"),
        ({"mediaType": OCI_MANIFEST}, "its descriptor says"),
        ({"schemaVersion": "2"}, "schemaVersion: expected 2"),
    ):
        with pytest.raises(Malformed, match=why):
            parse(good | extra)


def test_duplicate_keys_are_refused() -> None:
    data = json.dumps(MANIFEST).replace('"layers"', '"config": null, "layers"').encode()
    with pytest.raises(Malformed, match="duplicate key 'config'"):
        oci.parse_manifest(data, OCI_MANIFEST, what="manifest", limits=LIMITS)


def config(inner: Any = None, **change: Any) -> oci.ImageConfig:
    value = {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "config": inner,
    }
    return oci.parse_config(json.dumps(value | change).encode(), what="config", limits=LIMITS)


def test_a_config() -> None:
    got = config(
        {
            "Entrypoint": ["/p", ""],
            "Cmd": None,
            "Env": ["A=1", "B=x=y", "A=2", "LD_PRELOAD=/lib/x.so"],
            "User": "ann",
            "Volumes": {"/v": {}},
            "ExposedPorts": {},
        }
    )
    assert str(got.platform) == "linux/arm64/v8"
    assert (got.entrypoint, got.command, got.user, got.working_directory) == (("/p", ""), (), "ann", "")
    assert got.environment == {"A": "2", "B": "x=y", "LD_PRELOAD": "/lib/x.so"}
    assert got.ignored == ("Volumes",)
    assert config().entrypoint == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rootfs": None}, "rootfs: expected an object"),
        ({"rootfs": {"type": "tree", "diff_ids": []}}, "type: expected 'layers'"),
        (
            {"rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}},
            "diff_ids: expected 'sha256:' and 64 hexadecimal digits",
        ),
        ({"layers": []}, "it could be read as a manifest"),
        ({"schemaVersion": 2}, "it could be read as a manifest"),
        ({"os": 1}, "os: expected text of at most 4096 characters"),
        ({"config": []}, "config: expected an object"),
        ({"config": {"Env": ["=x"]}}, "Env: expected NAME=VALUE, got '=x'"),
        ({"config": {"Env": ["N" * 257 + "=x"]}}, "Env: expected NAME=VALUE, got 'N"),
        ({"config": {"Env": "A=1"}}, "Env: expected a list of at most 1024"),
        ({"config": {"Entrypoint": "/p"}}, "Entrypoint: expected a list of at most 1024"),
        ({"config": {"Entrypoint": [1]}}, "Entrypoint: expected texts without NUL"),
        ({"config": {"Cmd": ["a\x00b"]}}, "Cmd: expected texts without NUL"),
        ({"config": {"Cmd": ["a" * 65_537]}}, "Cmd: expected texts without NUL"),
        ({"config": {"User": "a\x00"}}, "User: expected text of at most 4096 characters"),
        ({"config": {"User": 0}}, "User: expected text of at most 4096 characters"),
        ({"config": {"WorkingDir": "x" * 5000}}, "WorkingDir: expected text of at most 4096 characters"),
    ],
)
def test_bad_configs(change: dict[str, Any], why: str) -> None:
    with pytest.raises(Malformed, match=why):
        config(**change) if "config" not in change else config(change["config"])


def test_documents_are_bounded() -> None:
    with pytest.raises(Malformed, match="411 bytes, at most 50 allowed"):
        oci.parse_manifest(
            json.dumps(MANIFEST).encode(), OCI_MANIFEST, what="m", limits=ImageLimits(document_bytes=50)
        )


def test_platforms() -> None:
    wanted = oci.parse_platform("linux/arm64")
    assert wanted.suits(oci.parse_platform("linux/arm64/v8"))
    assert not oci.parse_platform("linux/arm64/v7").suits(oci.parse_platform("linux/arm64/v8"))
    assert not wanted.suits(oci.parse_platform("linux/amd64"))
    for text in ("linux", "linux/", "Linux/amd64", "linux/amd64/v1/x", "linux/amd64\n"):
        with pytest.raises(StrongroomError, match="expected OS/ARCHITECTURE, like linux/amd64"):
            oci.parse_platform(text)


@pytest.mark.parametrize("name", ["Volumes", "ExposedPorts", "StopSignal", "Healthcheck", "OnBuild", "Shell"])
def test_what_a_room_does_not_do_is_told_by_its_name(name):
    document = {"architecture": "amd64", "os": "linux", "config": {name: {"8080/tcp": {}}}}
    read = oci.parse_settings(json.dumps(document).encode(), what="settings", limits=LIMITS)
    assert read.ignored == (name,)


def test_settings_beside_a_root_file_system_have_their_config() -> None:
    """What it runs without one stands one level too high: nobody is told to rebuild an image for that."""
    with pytest.raises(Malformed, match="config: key 'config' is missing") as caught:
        oci.parse_settings(b'{"Entrypoint": ["/bin/program"]}', what="config", limits=LIMITS)
    assert '{"config": {"Entrypoint"' in caught.value.hint
    given = oci.parse_settings(b'{"config": {"Entrypoint": ["/p"]}}', what="config", limits=LIMITS)
    assert given.entrypoint == ("/p",)
