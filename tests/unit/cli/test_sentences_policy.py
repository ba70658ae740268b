"""`contract show` tells each rule and allowance of a platform's policy to whoever signs it."""

from __future__ import annotations

from dataclasses import replace

from strongroom.cli import sentences
from strongroom.model.policy import Devices, Policy
from tests import samples


def test_every_rule_and_allowance_is_shown():
    policy = Policy(
        profile="strict",
        tcb={"committed.snp": 22},
        facts={"product": ("Genoa", "Turin")},
        waived=("policy.migrate_ma",),
        any_value=("rtmr3",),
        status={},
        vmpl=2,
        devices=Devices(count=8, roots=(), machines=("any",)),
    )
    platform = replace(samples.a_contract().platforms[0], policy=policy)
    shown = "\n".join(sentences.of(samples.a_contract(platforms=(platform,))))
    for line in (
        'policy profile: "strict"',
        "policy tcb: committed.snp 22",
        'policy facts: product ["Genoa", "Turin"]',
        'policy waived: ["policy.migrate_ma"]',
        'policy any_value: ["rtmr3"]',
        "policy status: none",
        "policy vmpl: 2",
        'policy devices: {"count": 8',
    ):
        assert line in shown


def test_a_platform_without_a_policy_is_told_as_before():
    assert "policy" not in "\n".join(sentences.of(samples.a_contract()))
