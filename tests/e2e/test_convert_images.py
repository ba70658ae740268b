"""The two real images: their disks hold what umoci unpacks, and they do what they are for in the clear."""

from __future__ import annotations

import csv
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from tools import images

from strongroom.images import load
from strongroom.seal.tree import EntryKind

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


@pytest.mark.parametrize("build", [images.duckdb, images.sklearn])
def test_the_tree_is_the_one_that_umoci_unpacks(tmp_path: Path, build: Any) -> None:
    layout = build()
    images.command_in_clear(layout, data={}, out=tmp_path / "out")  # unpacks it
    root = layout.with_name(layout.name + ".clear")
    with load.load(layout, scratch=tmp_path) as found:
        assert found.digest == images.digest(layout)
        assert not found.summary.notes
        ours = {one.path for one in found.entries}
        theirs = {os.fsencode(place.relative_to(root)) for place in root.rglob("*")} | {b""}
        assert ours ^ theirs <= {b"run", b"sys"}
        for one in found.entries:
            place = root / os.fsdecode(one.path)
            if one.kind is EntryKind.SYMLINK:
                assert os.fsencode(place.readlink()) == one.target
            elif one.kind is EntryKind.FILE:
                status = place.lstat()
                assert stat.S_ISREG(status.st_mode)
                seen = (status.st_size, status.st_mode & 0o7777, status.st_uid, int(status.st_mtime))
                assert seen == (one.size, one.mode, one.uid, one.mtime)
                assert one.open is not None
                with one.open() as source:
                    assert source.read() == place.read_bytes()


def test_duckdb_in_the_clear(tmp_path: Path) -> None:
    data = tmp_path / "flights"
    data.mkdir()
    (data / "flights.csv").write_text(
        "carrier,origin,distance,dep_delay,arr_delay\nAA,JFK,10,2,4\nAA,JFK,30,NA,NA\nAA,JFK,5,4,5\nUA,EWR,7,-1,-3\n"
    )
    layout = images.duckdb()
    assert layout == images.duckdb()
    images.run_in_clear(layout, data={"flights": data}, out=tmp_path / "out")
    with (tmp_path / "out/delays.csv").open() as source:
        rows = list(csv.DictReader(source))
    assert [(row["carrier"], row["flights"], row["mean_arrival_delay"]) for row in rows] == [
        ("AA", "2", "4.5"),
        ("UA", "1", "-3.0"),
    ]


def test_sklearn_in_the_clear(tmp_path: Path) -> None:
    images.run_in_clear(images.sklearn(), data={}, out=tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["rows"] == 569
    assert metrics["accuracy"] > 0.95


def test_the_images_are_made_the_same_way_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = images.duckdb()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    second = images.duckdb()
    assert first != second
    assert images.digest(first) == images.digest(second)
