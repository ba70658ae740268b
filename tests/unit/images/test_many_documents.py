"""Archives of strangers whose documents name a thousand others each: refused before they cost minutes."""

from __future__ import annotations

import json
import tarfile
import time
from io import BytesIO

import pytest

from strongroom.errors import Refused
from strongroom.images import oci, sources
from strongroom.images.limits import LIMITS
from tests.unit.images import kit

PLATFORM = oci.parse_platform("linux/amd64")


def choose(path):
    with sources.OpenedImage(path, LIMITS) as source:
        return source.choose(digest=None, platform=PLATFORM)


def index_of(entries):
    return {"schemaVersion": 2, "mediaType": kit.OCI_INDEX, "manifests": entries}


def test_rule_59_an_index_of_indexes_of_indexes_is_left_early(tmp_path):
    """Three documents of 200 kB in the archive: read as often as they are named, a thousand times a thousand."""
    made = kit.Layout(tmp_path / "it")
    inner = made.json(index_of([]), kit.OCI_INDEX)
    middle = made.json(index_of([inner] * 1024), kit.OCI_INDEX)
    made.index(made.json(index_of([middle] * 1024), kit.OCI_INDEX))
    begin = time.process_time()
    with pytest.raises(Refused) as caught:
        choose(tmp_path / "it")
    assert caught.value.code == "too-large"
    assert time.process_time() - begin < 20


def test_rule_59_images_of_all_indexes_count_together(tmp_path):
    made = kit.Layout(tmp_path / "it")
    image = made.image(kit.PROGRAM + kit.END)
    inner = made.json(index_of([image] * 1000), kit.OCI_INDEX)
    made.index(made.json(index_of([inner] * 40), kit.OCI_INDEX))
    with pytest.raises(Refused, match="more than 1024 images"):
        choose(tmp_path / "it")


def test_rule_59_one_configuration_named_a_thousand_times_is_not_held_a_thousand_times(tmp_path):
    """`docker save`: each row's configuration was parsed and kept, 1024 of 4 MiB."""
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    config["config"] = {"Cmd": ["x"], "Env": [f"V{n}={'x' * 60_000}" for n in range(60)]}
    rows = [{"Config": "c.json", "RepoTags": [], "Layers": []}] * 1024
    with tarfile.open(tmp_path / "it.tar", "w") as archive:
        for name, value in (("c.json", config), ("manifest.json", rows)):
            data = json.dumps(value).encode()
            head = tarfile.TarInfo(name)
            head.size = len(data)
            archive.addfile(head, BytesIO(data))
    begin = time.process_time()
    with pytest.raises(Refused) as caught:
        choose(tmp_path / "it.tar")
    assert caught.value.code == "too-large"
    assert time.process_time() - begin < 20
