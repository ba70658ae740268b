"""The four ways of docs/architecture.md are as the code is: every row is there, each leads down, and none climbs back.

Read from imports for all four; an image's way is walked too, by a conversion whose calls are written down.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from tools import house

import strongroom
from tests import samples
from tests.arch import sources
from tests.pages import reading
from tests.unit.images import kit

if TYPE_CHECKING:
    from types import FrameType

PAGE = reading.DOCS / "architecture.md"
_ROW = re.compile(r"\| `(strongroom(?:\.\w+)+)` \| (.+) \|")
ROOMS = 10  # packages that an image passes at most, from its source to the disk
# Where a conversion calls up: functions that were handed down. Who calls → what is called.
HANDED_DOWN = {
    ("encoding", "images"): "links are followed in whatever tree the caller has",
    ("encoding", "model"): "and where a room mounts something, they end",
    ("model", "images"): "mount points are looked for in that tree",
    ("images", "fetch"): "the caller is told what the image is",
    ("seal", "images"): "a file's bytes are read when the disk has come to them",
}


def ways():
    """Each table of modules, in their order, by the line that it begins in."""
    lines = [(number, _ROW.fullmatch(line)) for number, line in reading.outside(PAGE)]
    tables = []
    for is_row, group in groupby(lines, lambda row: row[1] is not None):
        rows = list(group)
        if is_row:
            tables.append((rows[0][0], [row[1] for _, row in rows]))
    return tables


WAYS = ways()
each_way = pytest.mark.parametrize(
    "way", [modules for _, modules in WAYS], ids=[str(line) for line, _ in WAYS]
)


@cache
def imports():
    return {source.module: sources.imports(source.tree) for source in sources.product()}


def importers(module):
    """Modules of the product that import `module`, or something of it."""
    return {name for name, imported in imports().items() if module in imported}


def climbs(way):
    """Rows of a way that import one above them."""
    return [
        (module, above)
        for index, module in enumerate(way)
        for above in way[:index]
        if above in imports()[module]
    ]


def test_there_are_four_ways():
    headings = [line for _, line in reading.outside(PAGE) if line.startswith("### ")]
    assert len(headings) == 4
    assert len(WAYS) >= 4


@each_way
def test_a_way_is_of_modules_that_there_are_each_imported_by_one_above_it(way):
    assert [module for module in way if module not in imports()] == []
    for index, module in enumerate(way[1:], 1):
        assert [above for above in way[:index] if module in imports()[above]], (
            f"nothing above {module} imports it"
        )


@each_way
def test_no_way_climbs_back(way):
    assert climbs(way) == []


def test_a_way_that_does_not_hold_is_seen():
    """What the tests above stand on."""
    assert "strongroom.appraisal.judge" in imports()["strongroom.broker.release"]
    assert "strongroom.broker.release" not in imports()["strongroom.appraisal.judge"]
    assert climbs(["strongroom.appraisal.judge", "strongroom.broker.release"]) == [
        ("strongroom.broker.release", "strongroom.appraisal.judge")
    ]


def test_evidence_passes_one_door_before_its_first_check():
    """`judge` asks `attached`, which asks the table for each TEE; clouds that hold another TEE's evidence ask `load`."""
    assert importers("strongroom.evidence.attached") == {"strongroom.appraisal.judge"}
    assert importers("strongroom.evidence.verify") == {"strongroom.evidence.attached"}
    assert importers("strongroom.evidence.load") == {
        f"strongroom.evidence.{name}" for name in ("verify", "azure", "gcp")
    }


def package(module):
    return module.split(".")[1]


class Walk:
    """Calls from one module of the product to another, by package, while it is watched; and each package in the order of the first call."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.packages: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, _arg: object) -> None:
        if event != "call" or (called := self._module(frame)) is None:
            return
        self.packages[package(called)] = None
        caller = frame.f_back
        while caller is not None and self._module(caller) is None:
            caller = caller.f_back
        if caller is not None:
            self.calls[package(self._module(caller)), package(called)] += 1

    def _module(self, frame: FrameType) -> str | None:
        name = frame.f_globals.get("__name__", "")
        return name if name.startswith("strongroom.") else None


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A conversion: an OCI image of one layer becomes a sealed disk."""
    here = tmp_path_factory.mktemp("walk")
    files = (
        kit.entry(b"bin/program", b"\x7fELF", mode=0o755) + kit.symlink(b"bin/other", b"program") + kit.END
    )
    kit.simple(here / "image", files, config={"Entrypoint": ["/bin/other"], "User": "1000"})
    convert = strongroom.convert_image
    watched, before = Walk(), sys.getprofile()
    sys.setprofile(watched)
    try:
        done = convert(str(here / "image"), name="app", owner=samples.BOB, out=here)
    finally:
        sys.setprofile(before)
    assert json.loads(done.manifest_file.read_bytes())
    return watched


def test_an_image_passes_ten_rooms_at_most(walk):
    assert {"fetch", "images", "seal", "model"} <= set(walk.packages)
    assert len(walk.packages) <= ROOMS, list(walk.packages)


def test_an_image_climbs_by_functions_that_were_handed_down_alone(walk):
    place = {name: index for index, row in enumerate(house.layers()) for name in row}
    up = {(caller, called) for caller, called in walk.calls if place[caller] > place[called]}
    assert up == set(HANDED_DOWN)
