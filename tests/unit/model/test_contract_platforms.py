"""Platforms in contracts: the optional policy is read strictly, and registers are bounded and named."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Malformed
from strongroom.model import contract, drafting
from strongroom.model.policy import Policy
from tests import samples


def parsed(change):
    value = json.loads(samples.a_contract().raw)
    change(value["platforms"][0])
    return contract.parse(json.dumps(value).encode())


def test_a_platform_without_a_policy_has_none_and_stays_the_same_bytes():
    one = samples.a_contract()
    assert one.platforms[0].policy is None
    assert drafting.encode(one) == one.raw
    assert b'"policy"' not in one.raw


def test_a_policy_is_read_and_written():
    one = parsed(lambda platform: platform.update(policy={"tcb": {"committed.snp": 3}, "vmpl": 1}))
    assert one.platforms[0].policy == Policy(tcb={"committed.snp": 3}, vmpl=1)
    assert contract.parse(drafting.encode(one)).platforms == one.platforms
    # An empty policy is the strict default, said aloud.
    assert parsed(lambda platform: platform.update(policy={})).platforms[0].policy == Policy()


@pytest.mark.parametrize(
    "change",
    [
        lambda platform: platform.update(policy=None),
        lambda platform: platform.update(policy=[]),
        lambda platform: platform.update(policy={"tcbs": {}}),
        lambda platform: platform.update(polices={}),
        lambda platform: platform.update(references=[{f"r{index}": "x" for index in range(49)}]),
        lambda platform: platform.update(references=[{"Kernel": "x"}]),
        lambda platform: platform.update(references=[{"k" * 65: "x"}]),
        lambda platform: platform.update(references=[{"": "x"}]),
        lambda platform: platform.update(references=[{"kernel": "x" * 401}]),
        lambda platform: platform.update(references=[{}]),
        lambda platform: platform.update(machines=[]),
    ],
)
def test_rule_34_what_is_not_understood_is_refused(change):
    with pytest.raises(Malformed):
        parsed(change)


def test_as_many_registers_as_a_record_holds():
    most = {f"r{index}": "x" for index in range(contract.MAX_REGISTERS)}
    assert parsed(lambda platform: platform.update(references=[most])).platforms[0].references == (most,)
