"""No byte of evidence or endorsements can be changed, but those that are listed as signed by nobody, with the reason.

The default run changes every byte of every part once. `make soak` gives each byte of the parts with such bytes its 255
other values, and holds that no claim is forged by one; the other parts' are test_every_value.py.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from tests.unit.evidence import every_byte

PAGE = Path(__file__).parents[3] / "docs/unsigned-bytes.md"


@functools.cache
def case(name: str) -> every_byte.Case:
    return every_byte.CASES[name]()


PARTS = [(name, part) for name in every_byte.CASES for part in case(name).names()]


def check(name: str, part: str, *, every: bool) -> None:
    one = case(name)
    listed = every_byte.irrelevant(name, part, one)
    good = one.verify().to_json()
    for place, changed in every_byte.flips(one.part(part), every=every):
        try:
            got = one.verify(part, changed).to_json()
        except (EvidenceRefused, Malformed):
            continue
        reason = next((found for found in listed if place in found.places), None)
        assert reason is not None, f"{name}: {part}: accepted with byte {place} as {changed[place]:#04x}"
        facts, said = good.pop("facts"), got.pop("facts")
        assert got == good, f"{name}: {part}: byte {place} as {changed[place]:#04x} changes a claim"
        other = {fact for fact in said if facts.get(fact) != said[fact]}
        assert other <= reason.told, f"{name}: {part}: byte {place} as {changed[place]:#04x} forges {other}"
        assert facts.keys() - said.keys() <= reason.lost | reason.told
        good["facts"] = facts


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_rule_16_every_byte_of_every_part_is_refused_once_it_is_changed(name, part):
    check(name, part, every=False)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "part"), [one for one in PARTS if every_byte.irrelevant(*one, case(one[0]))]
)
def test_rule_16_no_value_of_any_byte_that_nothing_signs_forges_a_claim(name, part):
    check(name, part, every=True)


def test_what_nothing_signs_is_told_in_words():
    told = " ".join(PAGE.read_text().split())
    reasons = {found.why for name, part in PARTS for found in every_byte.irrelevant(name, part, case(name))}
    assert len(reasons) == 7
    for why in reasons:
        assert why in told, why


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_the_good_case_is_accepted_and_nothing_is_listed_beyond_its_end(name, part):
    one = case(name)
    one.verify()
    for found in every_byte.irrelevant(name, part, one):
        assert found.places <= set(range(len(one.part(part))))
