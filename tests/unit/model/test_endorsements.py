"""Endorsements: byte strings by name, strictly read; a missing one is never skipped."""

from __future__ import annotations

import pytest

from strongroom.encoding import canonical
from strongroom.errors import Malformed
from strongroom.model import endorsements


def test_what_is_written_is_read():
    made = endorsements.Endorsements(parts={"crl": b"\0list", "tcb-info": b"{}"})
    assert endorsements.parse(made.encode()) == made
    assert endorsements.parse(endorsements.NONE.encode()) == endorsements.NONE


def test_rule_04_a_missing_part_is_an_error():
    assert endorsements.Endorsements(parts={"crl": b"x"}).part("crl") == b"x"
    with pytest.raises(Malformed) as caught:
        endorsements.NONE.part("crl")
    assert caught.value.code == "missing-part"


@pytest.mark.parametrize(
    ("parts", "tee", "vouched"),
    [
        ({"vcek": b"x"}, "snp", True),
        ({}, "snp", False),
        ({}, "sgx", False),
        ({}, "tdx", False),
        ({}, "nitro", True),
        ({}, "nvgpu", True),
        ({}, "tpm", True),
        ({"root": b"x"}, "nitro", True),
        ({}, "unknown", False),
    ],
)
def test_nothing_at_hand_vouches_only_for_what_carries_its_own(parts, tee, vouched):
    assert endorsements.vouches(endorsements.Endorsements(parts=parts), tee) is vouched


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({}, "key 'parts' is missing"),
        ({"parts": []}, "parts: expected an object"),
        ({"parts": {"CRL": "eA=="}}, "parts: expected a name: at most 64 .*, got 'CRL'"),
        ({"parts": {"crl": "eA"}}, "crl: expected base64"),
        ({"parts": {"crl": 1}}, "crl: expected base64 of at most"),
        ({"parts": {}, "more": 1}, "unknown key 'more'"),
        (
            {"parts": {f"part-{index}": "" for index in range(endorsements.MAX_PARTS + 1)}},
            "513 parts, expected 0 to 512",
        ),
    ],
    ids=str,
)
def test_rule_34_anything_else_is_malformed(bad, why):
    with pytest.raises(Malformed, match=why):
        endorsements.parse(canonical.dumps(bad))


def test_as_many_bytes_as_endorsements_may_have_are_written_and_read_again():
    """Base64 makes them a third longer; the bound of the file leaves room for that, and for little more."""
    full = endorsements.Endorsements(parts={"a": bytes(endorsements.MAX_BYTES)})
    assert endorsements.parse(full.encode()) == full
    with pytest.raises(Malformed, match="at most"):
        endorsements.parse(b" " * (2 * endorsements.MAX_BYTES + 1))


def test_evidence_that_carries_all_that_is_read_is_that_of_these_tees():
    assert {"nitro", "nvgpu", "tpm"} == endorsements.SELF_CONTAINED
