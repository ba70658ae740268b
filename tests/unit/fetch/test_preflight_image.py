"""Preflight by whatever name an image has: a path, a compose file with its image or alone; and what is refused."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Misuse, NotFound, Refused
from strongroom.fetch import images
from strongroom.images.preflight import examine
from tests import samples

COMPOSE = "services:\n  app:\n    image: {image}\n    network_mode: none\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "root/bin").mkdir(parents=True)
    (tmp_path / "root/bin/app").write_bytes(b"#!/bin/nowhere\n")
    (tmp_path / "root/bin/app").chmod(0o755)
    (tmp_path / "config.json").write_text(
        json.dumps({"config": {"Entrypoint": ["/bin/app"], "User": "1000"}})
    )
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(image=f"reg.example/app@{samples.DIGEST}"))
    return tmp_path


def never(_name):
    raise AssertionError("no registry is asked")


def test_an_image_that_would_not_run_is_reported_for_every_room_and_refused_where_it_must_run(folder):
    report = images.preflight_image(str(folder / "root"), config=folder / "config.json", reach=never)
    assert report.platforms == examine.PLATFORMS
    assert not report.will_run
    with pytest.raises(Refused, match="will not run") as caught:
        report.require()
    assert caught.value.code == "would-not-run"
    only = images.preflight_image(str(folder / "root"), config=folder / "config.json", rooms=["local"])
    assert only.platforms == ("local",)


def test_a_compose_file_alone_is_examined_and_says_that_its_image_was_not(folder):
    report = images.preflight_image(str(folder / "compose.yaml"), reach=never, rooms=["local", "snp"])
    assert report.will_run
    assert any("only the compose file" in finding.what for finding, _ in report.findings)
    (folder / "compose.yaml").write_text(COMPOSE.format(image="app"))
    with_image = images.preflight_image(
        str(folder / "compose.yaml"),
        from_=folder / "root",
        config=folder / "config.json",
        rooms=["local"],
        reach=never,
    )
    assert not with_image.will_run


@pytest.mark.parametrize(
    ("asked", "kind", "why"),
    [
        ({"image": "root", "from_": "root"}, Misuse, "--from: goes with a compose file"),
        ({"image": "root", "config": "config.json", "rooms": ["sgx"]}, Misuse, "sgx"),
        ({"image": "nowhere"}, NotFound, "nowhere"),
    ],
)
def test_what_is_no_image_or_no_room_is_refused(folder, asked, kind, why):
    paths = {name: folder / path for name, path in asked.items() if name in ("from_", "config")}
    with pytest.raises(kind, match=why):
        images.preflight_image(
            str(folder / asked["image"]), rooms=asked.get("rooms", ["local"]), reach=never, **paths
        )
