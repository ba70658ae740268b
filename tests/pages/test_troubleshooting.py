"""docs/troubleshooting.md has an entry for every code that somebody can meet, and for no other."""

from __future__ import annotations

import re

import pytest

from tests.pages import codes, reading

PAGE = reading.DOCS / "troubleshooting.md"
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for _, line in reading.outside(PAGE)
    if line.startswith("| `")
]
LISTED = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[0])}
IMAGES = (reading.DOCS / "images.md").read_text()
# The names in that page's table of checks; some are made of a compose file's keys.
TABLE = IMAGES[IMAGES.index("| check | looks at |") :].split("\n\n")[0]
ON_THE_PAGE = {
    name
    for line in TABLE.splitlines()
    for name in re.findall(r"`([a-z-]+)`", line.split("|")[1])
    if not name.endswith("-")
}
MET = {
    "errors": lambda: set(codes.of_errors()),
    "findings": lambda: codes.of_findings() | ON_THE_PAGE,
    "outcomes": codes.of_outcomes,
    "checks": codes.of_checks,
}


@pytest.mark.parametrize("kind", MET)
def test_every_code_has_an_entry(kind):
    met = MET[kind]()
    assert len(met) > 20, "they were not found"
    missing = met - LISTED
    assert missing == set(), {one: codes.of_errors().get(one, "") for one in missing}


def test_no_entry_is_of_a_code_that_is_gone():
    assert LISTED - set().union(*(one() for one in MET.values())) == set()


def test_every_entry_says_what_happened_and_what_to_do():
    assert [row for row in ROWS if len(row) != 3 or not all(row)] == []
