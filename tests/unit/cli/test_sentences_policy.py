"""`contract show` tells each rule and allowance of a platform's policy to whoever signs it."""

from __future__ import annotations

from dataclasses import replace

from strongroom.cli import sentences
from strongroom.model.contracts.policy import Devices, Policy
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
        devices=Devices(
            count=8,
            roots=(),
            machines=("any",),
            facts={"model": ("GH100",)},
            references=({"m1": "aa", "m2": "bb"},),
        ),
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
        "devices: 8 attached, each as one of 1 reference(s)",
        "device reference 1: m2 bb",
        'device machines: ["any"]',
        "device roots: []",
        'device facts: model "GH100"',
    ):
        assert line in shown


def test_a_platform_without_a_policy_is_told_as_before():
    assert "policy" not in "\n".join(sentences.of(samples.a_contract()))


def test_devices_that_nothing_is_compared_of_are_told():
    policy = Policy(devices=Devices(count=1, roots=(), machines=("any",)))
    platform = replace(samples.a_contract().platforms[0], policy=policy)
    shown = "\n".join(sentences.of(samples.a_contract(platforms=(platform,))))
    assert "device reference: none, so that no device is accepted" in shown
