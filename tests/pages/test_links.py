"""No dead link, and every page can be reached from docs/README.md."""

from __future__ import annotations

import pytest

from tests.pages import reading

WAY_IN = reading.DOCS / "README.md"
# Found by their place, on every forge, and named by nobody's link.
BY_THEIR_PLACE = {"README.md"}


@pytest.mark.parametrize("page", reading.pages(), ids=lambda page: str(page.relative_to(reading.ROOT)))
def test_links_lead_somewhere(page):
    dead = []
    for where, target in reading.links(page):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (heading and heading not in reading.headings(there)):
            dead.append(f"{where}: {target}")
    assert dead == []


def test_every_page_is_reached_from_the_way_in():
    reached, left = set(), [WAY_IN]
    while left:
        page = left.pop()
        if page in reached:
            continue
        reached.add(page)
        for _, target in reading.links(page):
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.is_dir():
                left += list(there.glob("*.md"))  # a folder that a forge lists
            elif there.suffix == ".md" and there.exists():
                left.append(there)
    alone = {str(page.relative_to(reading.ROOT)) for page in set(reading.pages()) - reached} - BY_THEIR_PLACE
    assert alone == set()


def test_pictures_have_words_for_who_cannot_see_them():
    shown = [
        line
        for page in reading.pages()
        for _, line in reading.outside(page)
        if ".svg)" in line and "![" in line
    ]
    assert shown
    assert [line for line in shown if "![]" in line] == []
