"""Nitro documents: sound ones verify, each fault is refused by its check, no byte can be changed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.crypto import digest
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import nitro
from strongroom.model.binding import Preset
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_aws
from tests import samples
from tests.unit.evidence.nitro_evidence import AWS, BOUND, NOW, verified


def refusal(*args, **kwargs) -> str:
    """The check that refuses, `format` where a part does not parse."""
    try:
        verified(*args, **kwargs)
    except EvidenceRefused as cause:
        return cause.check if cause.expected and cause.hint else "explains nothing"
    except Malformed:
        return "format"
    return "accepted"


def test_a_sound_document_verifies_and_says_all():
    claims = verified(AWS.evidence(BOUND))
    assert claims.tee == "nitro"
    assert claims.root == AWS.root
    assert claims.machine == fake_aws.INSTANCE
    assert not claims.debug
    assert claims.contract_digest is None
    assert claims.registers == {f"pcr{index}": fake_aws.PCRS[index].hex() for index in (0, 1, 2)}
    assert claims.facts["timestamp_ms"] == int(NOW.timestamp() * 1000)
    assert claims.facts["bound"] == "user_data, nonce"
    assert claims.facts["user_data"] == BOUND.digest().hex()
    assert claims.facts["pcr_15"] == "00" * 48
    assert any("revocation" in line for line in claims.not_checked)


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("indefinite", [False, True])
def test_either_form_of_maps_and_either_tag_are_read(indefinite, tagged):
    claims = verified(AWS.evidence(BOUND, indefinite=indefinite, tagged=tagged))
    assert claims.registers["pcr0"] == fake_aws.PCRS[0].hex()


@pytest.mark.parametrize("fault", fake_aws.Fault)
def test_each_fault_is_refused_by_its_check(fault):
    assert refusal(AWS.evidence(BOUND, fault=fault)) == fake_aws.REFUSED_BY[fault]


def test_a_fakes_root_stands_for_no_hardware():
    assert verified(AWS.evidence(BOUND)).simulated


def test_rule_06_a_root_that_the_evidence_brings_is_not_trusted():
    assert refusal(AWS.evidence(BOUND), roots=frozenset({samples.DIGEST})) == "chain.root"
    assert refusal(AWS.evidence(BOUND), roots=frozenset()) == "root"


def test_rule_11_zeros_are_debug_whatever_anybody_lists():
    claims = verified(AWS.evidence(BOUND, pcrs=dict.fromkeys(range(16), bytes(48))))
    assert claims.debug
    for index in (0, 1, 2):
        assert verified(AWS.evidence(BOUND, pcrs=fake_aws.PCRS | {index: bytes(48)})).debug


def test_rule_11_the_chain_is_judged_at_the_documents_own_time():
    """Its certificate has to be valid when the document was made; a later `now` does not change that."""
    document = AWS.evidence(BOUND)
    assert verified(document, now=NOW + timedelta(hours=1, minutes=59)).facts["bound"]
    ended = AWS.evidence(BOUND, fault=fake_aws.Fault.LEAF_ENDED)
    assert refusal(ended) == "chain.validity"
    assert refusal(ended, now=NOW - timedelta(minutes=4)) == "chain.validity"


def test_rule_11_an_old_document_is_refused_once_its_certificate_has_ended():
    document = AWS.evidence(BOUND)
    ends = NOW + timedelta(hours=2)
    assert verified(document, now=ends + nitro.SKEW).tee == "nitro"
    assert refusal(document, now=ends + nitro.SKEW + timedelta(seconds=1)) == "time"
    assert refusal(document, now=NOW - nitro.SKEW - timedelta(seconds=1)) == "time"
    assert verified(document, now=NOW - nitro.SKEW).tee == "nitro"


def test_rule_11_the_signer_is_a_register_of_its_own():
    """PCR 0 names the image; who signed it stands in PCR 8, and no reference without PCR 8 has it."""
    signed = verified(AWS.evidence(BOUND, pcrs=fake_aws.PCRS | {8: fake_aws.pcr("signer")}))
    other = verified(AWS.evidence(BOUND, pcrs=fake_aws.PCRS | {8: fake_aws.pcr("other")}))
    unsigned = verified(AWS.evidence(BOUND))
    assert signed.registers["pcr0"] == other.registers["pcr0"] == unsigned.registers["pcr0"]
    assert signed.registers["pcr8"] != other.registers["pcr8"]
    assert "pcr8" not in unsigned.registers


def test_the_contract_in_pcr_16_is_found_and_no_other():
    contract = digest.raw(BOUND.contract_digest)
    extended = hashlib.sha384(bytes(48) + contract).digest()
    claims = verified(AWS.evidence(BOUND, pcrs=fake_aws.PCRS | {16: extended}))
    assert claims.contract_digest == BOUND.contract_digest
    assert "pcr16" not in claims.registers
    twice = hashlib.sha384(extended + contract).digest()
    for value in (twice, contract + bytes(16), bytes(48)):
        claims = verified(AWS.evidence(BOUND, pcrs=fake_aws.PCRS | {16: value}))
        assert claims.contract_digest is None
        assert ("pcr16" in claims.registers) == any(value)


def test_nitrotpm_documents_have_no_debug_mode_and_no_contract_register():
    pcrs = {index: fake_aws.pcr(str(index)) for index in range(11)} | dict.fromkeys(
        range(17, 23), b"\xff" * 48
    )
    claims = verified(
        AWS.evidence(BOUND, pcrs=pcrs | {16: hashlib.sha384(bytes(80)).digest()}, nitrotpm=True)
    )
    assert claims.facts["nitrotpm"] is True
    assert claims.machine == fake_aws.INSTANCE
    assert claims.contract_digest is None
    assert nitro.NITROTPM_CONTRACT in claims.not_checked
    assert set(claims.registers) == {f"pcr{index}" for index in (*range(11), 16)}


def test_rule_17_without_an_expectation_nothing_is_verified():
    document = AWS.evidence(BOUND)
    assert refusal(document, binding=Preset(values={})) == "binding"
    assert (
        refusal(document, binding=Preset(values={"extra_data": bytes(32), "contract": bytes(32)}))
        == "binding"
    )


def test_each_stated_field_has_to_hold():
    document = AWS.evidence(BOUND)
    user, nonce = BOUND.value("user_data"), BOUND.value("nonce")
    assert verified(document, binding=Preset(values={"nonce": nonce})).facts["bound"] == "nonce"
    assert verified(document, binding=Preset(values={"report_data": user})).facts["bound"] == "user_data"
    for values in (
        {"nonce": nonce, "user_data": user[:63]},
        {"nonce": nonce, "user_data": user + b"\0"},
        {"nonce": nonce, "user_data": user, "report_data": bytes(64)},
        {"nonce": nonce, "public_key": b"key"},
        {"nonce": b"", "user_data": user},
    ):
        assert refusal(document, binding=Preset(values=values)) == "binding"


def test_expecting_emptiness_is_said_to_be_no_binding():
    bare = Preset(values={"user_data": b"", "nonce": b"", "public_key": b""})
    claims = verified(AWS.evidence(bare), binding=bare)
    assert claims.facts["bound"] == ""
    assert nitro.NOT_BOUND in claims.not_checked


def test_rule_19_another_nonce_contract_key_or_audience_is_refused():
    document = AWS.evidence(BOUND)
    for other in (
        replace(BOUND, nonce=b"m" * 32),
        replace(BOUND, contract_digest="sha256:" + "cd" * 32),
        replace(BOUND, keys=replace(BOUND.keys, kem=b"x" * 1216)),
        replace(BOUND, audience="sha256:" + "cd" * 32),
    ):
        assert refusal(document, binding=other) == "binding"


def test_endorsements_are_refused():
    assert refusal(AWS.evidence(BOUND), endorsements=Endorsements(parts={"crl": b"x"})) == "parts"


def test_rule_16_no_byte_of_the_envelope_can_have_any_other_value():
    document = AWS.evidence(BOUND).parts["document"]
    for place in (*range(12), len(document) - 98, len(document) - 97):
        for value in set(range(256)) - {document[place]}:
            changed = document[:place] + bytes([value]) + document[place + 1 :]
            assert refusal(Evidence(tee="nitro", parts={"document": changed})) != "accepted", (place, value)


def test_rule_15_sizes_are_bounded():
    for size in (0, 1, nitro.MAX_DOCUMENT + 1):
        assert refusal(Evidence(tee="nitro", parts={"document": bytes(size)})) == "format"


def test_what_is_kept_changes_no_answer():
    """The chain is kept by its exact bytes; another time, or another root, is asked again."""
    document = AWS.evidence(BOUND)
    for _ in range(3):
        assert verified(document).machine == fake_aws.INSTANCE
        assert refusal(document, roots=frozenset({samples.DIGEST})) == "chain.root"
        assert refusal(document, now=NOW + timedelta(days=1)) == "time"
