"""docs/architecture.md is as the sources are: its picture; CONTRIBUTING.md names what is there (the four ways: test_ways.py)."""

from __future__ import annotations

import re

import pytest
from tools import house

from tests.arch import sources
from tests.pages import reading

PAGE = reading.DOCS / "architecture.md"
CONTRIBUTING = reading.ROOT / "CONTRIBUTING.md"


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


@pytest.mark.parametrize("page", [PAGE, CONTRIBUTING], ids=lambda page: page.name)
def test_files_that_these_pages_name_are_there(page):
    named = re.findall(r"`((?:src|tests|tools|docs|locks|\.ci)/[\w./-]*\w)`", page.read_text())
    blocks = [word for block in reading.blocks(page) for word in block.text.split()]
    named += [word for word in blocks if word.startswith("tests/")]
    assert len(named) > 3
    assert [name for name in named if not (reading.ROOT / name).exists()] == []
