"""Platforms in contracts: the optional policy is read strictly, and registers are bounded and named."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Malformed
from strongroom.model.contracts import contract, drafting
from strongroom.model.contracts.policy import Policy
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
    many = {"facts": {"product": [f"p{number}" for number in range(64)]}}
    policy = parsed(lambda platform: platform.update(policy=many)).platforms[0].policy
    assert policy is not None
    assert len(policy.facts["product"]) == 64
    # An empty policy is the strict default, said aloud.
    assert parsed(lambda platform: platform.update(policy={})).platforms[0].policy == Policy()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda platform: platform.update(policy=None), "policy: expected an object"),
        (lambda platform: platform.update(policy=[]), "policy: expected an object"),
        (lambda platform: platform.update(policy={"tcbs": {}}), "unknown key 'tcbs'"),
        (lambda platform: platform.update(polices={}), "unknown key 'polices'"),
        (
            lambda platform: platform.update(policy={"facts": {"product": ["x"] * 65}}),
            "product: 65 values, at most 64 allowed",
        ),
        (
            lambda platform: platform.update(references=[{f"r{index}": "x" for index in range(49)}]),
            "49 entries, at most 48 allowed",
        ),
        (
            lambda platform: platform.update(references=[{"Kernel": "x"}]),
            "expected a name: at most 64 .*, got 'Kernel'",
        ),
        (
            lambda platform: platform.update(references=[{"k" * 65: "x"}]),
            "expected a name: at most 64 .*, got 'kkkk",
        ),
        (
            lambda platform: platform.update(references=[{"": "x"}]),
            "expected a name: at most 64 .*, got an empty text",
        ),
        (
            lambda platform: platform.update(references=[{"kernel": "x" * 401}]),
            "kernel: expected text of 1 to 400 characters",
        ),
        (lambda platform: platform.update(references=[{}]), "an empty reference would accept anything"),
        (lambda platform: platform.update(machines=[]), "empty, which no room could meet"),
    ],
)
def test_rule_34_what_is_not_understood_is_refused(change, why):
    with pytest.raises(Malformed, match=why):
        parsed(change)


def test_as_many_registers_as_a_record_holds():
    most = {f"r{index}": "x" for index in range(contract.MAX_REGISTERS)}
    assert parsed(lambda platform: platform.update(references=[most])).platforms[0].references == (most,)
