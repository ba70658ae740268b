"""Recorded evidence of real hardware: each case gives its label's verdict, or the page argues why not."""

from __future__ import annotations

import pytest

from strongroom.errors import Malformed
from strongroom.evidence.formats import dcap_quote
from strongroom.evidence.wrappings import recognise
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


PADDED = "original_with_trailing_bytes.bin"


@pytest.mark.parametrize("name", [name for name, path in CASES.items() if (path / PADDED).is_file()])
def test_rule_16_recorded_quotes_are_refused_with_what_followed_them(name):
    """As they were met in the field, in drivers' buffers: not evidence, until a file's reader took them out."""
    quote, padded = ((CASES[name] / file).read_bytes() for file in ("quote.bin", PADDED))
    dcap_quote.parse(quote)
    with pytest.raises(Malformed):
        dcap_quote.parse(padded)
    wanted = quote if not any(padded[len(quote) :]) else padded
    assert recognise.recognise(padded).evidence.parts["quote"] == wanted


@pytest.mark.parametrize("name", runner.argued())
def test_every_argued_case_exists(name):
    if not CASES:
        pytest.skip("the recorded evidence is not beside the project (STRONGROOM_VECTORS names its folder)")
    if runner.folder().resolve() == runner.DEFAULT.resolve():
        assert name in CASES
