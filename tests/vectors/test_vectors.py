"""Recorded evidence of real hardware: each case gives its label's verdict, or the page argues why not."""

from __future__ import annotations

import pytest

from tests.vectors import runner

CASES = {f"{path.parent.name}/{path.name}": path for path in runner.cases(runner.folder())}


def test_there_are_cases():
    if not runner.folder().is_dir():
        pytest.skip("the recorded evidence is not beside the project (STRONGROOM_VECTORS names its folder)")
    assert CASES


@pytest.mark.parametrize("name", CASES)
def test_the_case_gives_its_verdict(name):
    result = runner.run_case(CASES[name])
    assert result.state != runner.MISMATCH, f"expected {result.expected}, got {result.outcome}"


@pytest.mark.parametrize("name", runner.argued())
def test_every_argued_case_exists(name):
    if not CASES:
        pytest.skip("the recorded evidence is not beside the project (STRONGROOM_VECTORS names its folder)")
    if runner.folder().resolve() == runner.DEFAULT.resolve():
        assert name in CASES
