"""docs/security-reviews.md: what was found names who could do it, and the test that holds since."""

from __future__ import annotations

import re

import pytest

from tests import promises

PAGE = (promises.ROOT / "docs/security-reviews.md").read_text()
ROLES = {"stranger", "host", "program", "counterparty", "broker", "registry", "vendor"}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| role |")
]
TESTS = sorted(set(re.findall(r"`(tests/[^`]+::[^`]+)`", PAGE)))


def test_each_finding_says_who_what_how_and_which_test():
    assert len(ROWS) >= 10
    for row in ROWS:
        role, tried, mended, test = row
        assert role in ROLES, row
        assert tried.endswith((".", ")")), row
        assert mended, row
        # What is not mended has no test, and a page that says what follows from it.
        assert "::" in test or (test == "not mended" and "(limits.md" in mended), row
    assert {role for role, *_ in ROWS} <= ROLES


@pytest.mark.parametrize("test", TESTS)
def test_the_tests_that_it_names_exist(test):
    path, _, name = test.partition("::")
    assert re.search(rf"^def {re.escape(name)}\(", (promises.ROOT / path).read_text(), re.MULTILINE), test
