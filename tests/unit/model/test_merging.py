"""Signatures that were made in parallel, in one file."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.errors import Refused
from strongroom.model.contracts import agreement, contract, drafting, merging
from tests import samples


def test_signatures_made_in_parallel_are_one_agreement():
    one = samples.a_contract()
    alices, bobs = samples.signed(one, samples.ALICE), samples.signed(one, samples.BOB)
    merged = merging.merge([bobs, alices])
    assert merged.left_out == ()
    assert merged.agreement.approved()
    assert merged.agreement == samples.signed(one)  # as if they had signed one after the other
    assert merging.merge([merged.agreement, bobs, alices]) == merged
    assert merging.merge([bobs]).agreement == bobs


def test_copies_of_another_contract_are_refused_with_the_difference():
    one = samples.a_contract()
    more = contract.parse(drafting.encode(replace(one, limits=replace(one.limits, runs=one.limits.runs + 1))))
    with pytest.raises(Refused, match=r"file 2 is another contract than file 1: limits\.runs is ") as caught:
        merging.merge([samples.signed(one, samples.ALICE), samples.signed(more, samples.BOB)])
    assert caught.value.code == "differs"
    assert f"{more.limits.runs}, not {one.limits.runs}" in caught.value.message


def test_many_differences_are_counted_and_other_bytes_of_the_same_meaning_are_others():
    one = samples.a_contract()
    day, limits = timedelta(days=1), one.limits
    limits = replace(limits, runs=77, not_before=limits.not_before - day, not_after=limits.not_after + day)
    other = contract.parse(drafting.encode(replace(one, id="another", limits=limits)))
    with pytest.raises(Refused, match="; and 1 more"):
        merging.merge([agreement.draft(one), agreement.draft(other)])
    three = contract.parse(drafting.encode(replace(one, limits=limits)))
    with pytest.raises(Refused) as caught:
        merging.merge([agreement.draft(one), agreement.draft(three)])
    assert "more" not in caught.value.message
    spaced = contract.parse(one.raw.replace(b'{"', b'{ "', 1))
    with pytest.raises(Refused, match="it says the same in other bytes"):
        merging.merge([agreement.draft(one), agreement.draft(spaced)])


def test_what_does_not_verify_is_left_out_and_said():
    one = samples.a_contract()
    alices, bobs = samples.signed(one, samples.ALICE), samples.signed(one, samples.BOB)
    (own,), (his,) = alices.envelope.signatures, bobs.envelope.signatures
    forged = replace(his, sig=bytes(64))
    stranger = replace(forged, keyid="sha256:" + "0" * 64)
    spoilt = replace(bobs, envelope=replace(bobs.envelope, signatures=(forged, stranger, his)))
    merged = merging.merge([alices, spoilt])
    assert merged.left_out == ((2, his.keyid), (2, stranger.keyid))
    assert merged.agreement == samples.signed(one)
    # Under another's key id it is still its signer's, and stands under the right one afterwards.
    crossed = replace(own, keyid=his.keyid)
    merged = merging.merge([replace(bobs, envelope=replace(bobs.envelope, signatures=(crossed, his)))])
    assert merged.left_out == ()
    assert merged.agreement == samples.signed(one)
