"""CCA tokens: sound ones of either profile verify, each fault is refused by its check, no byte can be changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import cca
from strongroom.evidence import roots as pinned
from strongroom.model.binding import Preset
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_cca
from tests import samples
from tests.unit.evidence.cca_evidence import PLATFORM, verified
from tests.unit.evidence.nitro_evidence import BOUND


def refusal(*args, **kwargs) -> str:
    try:
        verified(*args, **kwargs)
    except EvidenceRefused as cause:
        return cause.check if cause.expected and cause.hint else "explains nothing"
    except Malformed:
        return "format"
    return "accepted"


@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256R1()], ids=["es384", "es256"])
def test_a_sound_token_verifies_and_says_all(current, wrapped, curve):
    platform = fake_cca.FakeCca(current=current, platform_curve=curve)
    rem = fake_cca.measured("extended")
    token = platform.evidence(BOUND, wrapped=wrapped, rems=(rem, bytes(32), rem, bytes(32)))
    claims = verified(token, platform=platform)
    assert claims.tee == "cca"
    assert claims.root == platform.root
    assert claims.machine == platform.instance.hex()
    assert not claims.debug
    assert claims.registers == {
        "rim": fake_cca.RIM.hex(),
        "rem0": rem.hex(),
        "rem2": rem.hex(),
        "component0": fake_cca.measured("BL1").hex(),
        "component1": fake_cca.measured("RMM").hex(),
    }
    assert claims.facts["lifecycle_state"] == "secured"
    assert claims.facts["component_1_version"] == "2.3.1"


@pytest.mark.parametrize("fault", fake_cca.Fault)
@pytest.mark.parametrize("current", [True, False])
def test_each_fault_is_refused_by_its_check(fault, current):
    platform = fake_cca.FakeCca(current=current)
    token = platform.evidence(BOUND, fault=fault)
    got = refusal(token, platform=platform, endorsements=platform.endorsements(fault))
    assert got == fake_cca.REFUSED_BY[fault]


def test_no_platform_key_stands_for_hardware():
    assert verified(PLATFORM.evidence(BOUND)).simulated
    assert pinned.PINS["cca"] == ()
    assert refusal(PLATFORM.evidence(BOUND), roots=pinned.PINNED) == "root"


@pytest.mark.parametrize("state", [0x0000, 0x1000, 0x2000, 0x4000, 0x5000, 0x6000, 0x7000, 0x2FFF, 0x3100])
def test_a_platform_that_is_not_secured_counts_as_debug(state):
    claims = verified(PLATFORM.evidence(BOUND, lifecycle=state))
    assert claims.debug
    assert claims.facts["lifecycle"] == state
    assert not verified(PLATFORM.evidence(BOUND, lifecycle=0x30FF)).debug


def test_the_personalization_value_is_the_contract_where_it_is_a_digest():
    digest = bytes.fromhex(samples.DIGEST[7:])
    assert (
        verified(PLATFORM.evidence(BOUND, personalization=digest + bytes(32))).contract_digest
        == samples.DIGEST
    )
    for other in (bytes(64), digest + digest, bytes(32) + digest):
        assert verified(PLATFORM.evidence(BOUND, personalization=other)).contract_digest is None


def test_rule_17_without_an_expectation_nothing_is_verified():
    assert refusal(PLATFORM.evidence(BOUND), binding=Preset(values={"nonce": bytes(32)})) == "binding"


def test_rule_19_another_binding_is_refused():
    assert refusal(PLATFORM.evidence(BOUND), binding=replace(BOUND, nonce=b"m" * 32)) == "binding"


def test_rule_25_tokens_of_two_platforms_do_not_mix():
    """The realm token of one platform under the platform token of another: the key does not fit."""
    import cbor2

    other = fake_cca.FakeCca()
    ours, theirs = (cbor2.loads(one.evidence(BOUND).parts["token"]).value for one in (PLATFORM, other))
    mixed = cbor2.dumps(cbor2.CBORTag(399, {44234: ours[44234], 44241: theirs[44241]}))
    assert refusal(Evidence(tee="cca", parts={"token": mixed})) == "realm.key"


def test_rule_15_sizes_are_bounded():
    for size in (0, 1, cca.MAX_TOKEN + 1):
        assert refusal(Evidence(tee="cca", parts={"token": bytes(size)})) == "format"
