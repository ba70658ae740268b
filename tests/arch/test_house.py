"""docs/architecture.md is as the sources are: its picture, and the four ways through them; CONTRIBUTING.md names what is there."""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby

import pytest
from tools import house

from tests.arch import sources
from tests.pages import reading

PAGE = reading.DOCS / "architecture.md"
CONTRIBUTING = reading.ROOT / "CONTRIBUTING.md"
_ROW = re.compile(r"\| `(strongroom(?:\.\w+)+)` \| (.+) \|")


def ways():
    """Each table of modules, in their order, by the line that it begins in."""
    lines = [(number, _ROW.fullmatch(line)) for number, line in reading.outside(PAGE)]
    found = []
    for is_row, group in groupby(lines, lambda one: one[1] is not None):
        rows = list(group)
        if is_row:
            found.append((rows[0][0], [row[1] for _, row in rows]))
    return found


WAYS = ways()


@cache
def imports():
    return {source.module: sources.imports(source.tree) for source in sources.product()}


def test_the_picture_is_current():
    assert house.PICTURE.read_text() == house.draw(), "draw it again: python tools/house.py"


def test_the_picture_shows_every_package_and_leads_down():
    rows = house.layers()
    place = {name: index for index, row in enumerate(rows) for name in row}
    assert set(place) == {one.package.removesuffix(".py") for one in sources.product()} - {"__init__"}
    _, imports = house.graph(set(place))
    arrows = house.reduced(imports)
    assert len(arrows) > len(place)
    assert [(one, other) for one, other in arrows if place[one] >= place[other]] == []


def test_there_are_four_ways():
    headings = [line for _, line in reading.outside(PAGE) if line.startswith("### ")]
    assert len(headings) == 4
    assert len(WAYS) >= 4


@pytest.mark.parametrize("way", [modules for _, modules in WAYS], ids=[str(line) for line, _ in WAYS])
def test_a_way_is_of_modules_that_there_are_each_imported_by_one_above_it(way):
    assert [one for one in way if one not in imports()] == []
    for index, module in enumerate(way[1:], 1):
        assert [one for one in way[:index] if module in imports()[one]], f"nothing above {module} imports it"


def test_a_way_that_does_not_hold_is_found():
    """What the tests above stand on."""
    assert "strongroom.appraisal.judge" in imports()["strongroom.broker.release"]
    assert "strongroom.broker.release" not in imports()["strongroom.appraisal.judge"]


@pytest.mark.parametrize("page", [PAGE, CONTRIBUTING], ids=lambda page: page.name)
def test_files_that_these_pages_name_are_there(page):
    named = re.findall(r"`((?:src|tests|tools|docs|locks|\.ci)/[\w./-]*\w)`", page.read_text())
    blocks = [word for block in reading.blocks(page) for word in block.text.split()]
    named += [word for word in blocks if word.startswith("tests/")]
    assert len(named) > 3
    assert [name for name in named if not (reading.ROOT / name).exists()] == []
