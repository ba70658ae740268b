"""What a sealed disk claims to be: read without any key, and believed by nobody."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Malformed, NotFound
from strongroom.model import manifest as manifest_model
from strongroom.seal import dataset
from tests import samples


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    here = tmp_path_factory.mktemp("sealed")
    (here / "data").mkdir()
    (here / "data/a").write_text("a")
    return dataset.seal_files([here / "data"], name="data", owner=samples.ALICE, out=here)


def test_the_disk_and_its_manifest_say_the_same(sealed):
    inspected = dataset.inspect_disk(sealed.disk)
    assert inspected == dataset.inspect_disk(sealed.manifest_file)
    assert inspected.manifest == sealed.manifest
    assert inspected.signers == (samples.ALICE.party().keyid,)
    said = inspected.to_json()
    assert said.pop("digest") == sealed.manifest.digest
    assert said == json.loads(sealed.manifest.raw)


def test_what_is_not_there_or_no_manifest_is_refused_by_name(sealed, tmp_path):
    with pytest.raises(NotFound, match=r"gone\.disk: no such file"):
        dataset.inspect_disk(tmp_path / "gone.disk")
    (tmp_path / "lone.disk").write_bytes(b"")
    with pytest.raises(NotFound, match=r"lone\.manifest\.json: there is no manifest") as caught:
        dataset.inspect_disk(tmp_path / "lone.disk")
    assert "--manifest" not in caught.value.hint
    for data in (b"", b"{}", sealed.manifest.raw, bytes(manifest_model.MAX_ENVELOPE + 1)):
        (tmp_path / "other.json").write_bytes(data)
        with pytest.raises(Malformed, match=r"other\.json"):
            dataset.inspect_disk(tmp_path / "other.json")
