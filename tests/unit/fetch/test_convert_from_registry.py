"""`convert` and `preflight` of an image in a real registry, named by digest; of a compose file that names it so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from strongroom_testing import registry_server as server
from tests import verbs
from tests.unit.fetch.registries import needs_registry, put, sample

if TYPE_CHECKING:
    import subprocess

pytestmark = needs_registry


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("registry")
    with server.registry(root / "registry") as real:
        made = sample(root / "sample")
        put(made[0], real.host)
        yield real.host, made


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "correct horse")
    run("identity", "new", "bob", "--out", tmp_path)
    return tmp_path


def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = verbs.run(*words, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def convert(world, image, name, *more, code=0):
    options = (
        "-i",
        world / "bob.identity",
        "--name",
        name,
        "--out",
        world / "disks",
        "--json",
        "--insecure-plain-http-to-loopback",
    )
    return run("convert", image, *options, *more, code=code)


def test_an_image_by_digest_is_the_one_of_its_layout(world, served):
    host, (layout, index, here, _) = served
    name = f"{host}/team/it@{index['digest']}"
    told = json.loads(convert(world, name, "remote").stdout)
    assert told["source"]["digest"] == here["digest"]
    assert told["source"]["index"] == index["digest"]
    convert(world, layout.path, "local")
    assert (world / "disks/remote.disk").read_bytes() == (world / "disks/local.disk").read_bytes()
    found = run(
        "preflight", name, "--json", "--insecure-plain-http-to-loopback", code=3
    )  # its program is only "#!"
    assert json.loads(found.stdout)["image"] == here["digest"]


def test_rule_29_a_tag_is_refused(world, served):
    host, _ = served
    refused = convert(world, f"{host}/team/it:today", "tagged", code=3)
    assert "tag-refused" in refused.stderr
    assert not (world / "disks/tagged.disk").exists()


def test_a_compose_file_names_it_and_its_settings_go_where_they_belong(world, served):
    host, (_, _, here, _) = served
    text = (
        f"services: {{web: {{image: '{host}/team/it@{here['digest']}', user: '1000:100', working_dir: /srv,"
        " command: [--fast, it], environment: {MODE: batch}}}\n"
    )
    (world / "compose.yaml").write_text(text)
    told = json.loads(convert(world, world / "compose.yaml", "composed").stdout)
    assert told["contract_options"] == ["--argument=--fast", "--argument=it", "--env=MODE=batch"]
    assert told["runs"]["uid"] == 1000
    assert told["runs"]["working_directory"] == "/srv"
    assert "MODE" not in told["runs"]["environment"]  # the contract brings it


def test_nothing_of_an_image_that_is_encrypted_stays(world, served):
    host, (_, index, _, _) = served
    convert(world, f"{host}/team/it@{index['digest']}", "secret", "--encrypt")
    assert {path.name for path in (world / "disks").iterdir()} == {
        "secret.disk",
        "secret.key.age",
        "secret.manifest.json",
    }
    kept = [path for path in (world / "xdg").rglob("*") if path.is_file()] if (world / "xdg").exists() else []
    assert kept == []
