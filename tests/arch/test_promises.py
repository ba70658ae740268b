"""Documents promise only what a test holds (docs/claims.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = [
    line.split("|")[1:3]
    for line in (ROOT / "docs/claims.md").read_text().splitlines()
    if line.startswith("| ") and "::" in line
]


@pytest.mark.parametrize(("promise", "test"), LINES, ids=[promise.strip()[:60] for promise, _ in LINES])
def test_every_promise_names_a_test_that_exists(promise, test):
    path, _, name = test.strip().strip("`").partition("::")
    assert promise.strip()
    assert re.search(rf"^def {re.escape(name)}\(", (ROOT / path).read_text(), re.MULTILINE), test


def test_there_are_promises():
    assert len(LINES) >= 25


def test_decisions_are_numbered_without_a_gap_and_say_what_they_cost():
    found = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [path.name[:4] for path in found] == [f"{at:04}" for at in range(1, len(found) + 1)]
    for path in found:
        text = path.read_text()
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        assert "**Negative consequences.**" in text, path.name


def test_links_between_documents_lead_somewhere():
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
