"""Any bytes in place of any part: claims never, `Malformed` or `EvidenceRefused` always, nothing else raised."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import ccel, eventlog_efi, gcp_instance, tpm_credential, tpm_quote
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_google
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import efi_log as logs
from tests.unit.evidence import gcp_evidence as scene

SIGNED = ("quote", "signature", "ak-certificate", "issuers", "pcrs")
# A public area of an RSA key, of the shape that TPM2_ReadPublic answers.
PUBLIC = (
    bytes.fromhex("0001000b000300b2002000000000")
    + bytes(30)
    + b"\0\x06\0\x80\0\x43\0\x10\x08\0\0\0\0\0\x01\0"
    + b"\xff" * 256
)


@often
@given(data=st.data())
def test_rule_15_no_other_evidence_verifies(data):
    name = data.draw(st.sampled_from(SIGNED))
    good = scene.GOOD.parts[name]
    mutated = data.draw(mutations(good, most=200))
    if mutated == good:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(scene.changed(name, mutated))


@often
@given(data=st.data())
def test_rule_15_no_log_makes_the_verifier_fall_over_or_forges_a_proved_fact(data):
    mutated = data.draw(mutations(scene.GOOD.parts["event-log"], most=200))
    try:
        claims = scene.verified(scene.changed("event-log", mutated))
    except (EvidenceRefused, Malformed):
        return
    assert claims.facts.get("secure_boot", True) is True
    assert claims.facts.get("kernel_cmdline", "root=/dev/sda1 ro") == "root=/dev/sda1 ro"


@often
@given(
    parts=st.dictionaries(
        st.sampled_from((*SIGNED, "event-log", "td-quote", "ccel", "snp-report")), st.binary(max_size=60)
    )
)
def test_rule_15_any_parts_are_refused(parts):
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="gcp", parts=parts))


@pytest.mark.parametrize(
    ("parse", "good"),
    [
        (tpm_quote.parse_quote, scene.GOOD.parts["quote"]),
        (tpm_quote.parse_signature, scene.GOOD.parts["signature"]),
        (gcp_instance.parse, fake_google.instance_extension()),
        (eventlog_efi.parse, logs.LOG),
        (lambda data: eventlog_efi.parse(data, padded=True), logs.CCEL + b"\xff" * 40),
        (tpm_credential.parse_public, PUBLIC),
    ],
)
@often
@given(data=st.data())
def test_rule_15_parsers_return_or_say_malformed(parse, good, data):
    mutated = data.draw(mutations(good, most=100))
    with contextlib.suppress(Malformed):
        parse(mutated)


@often
@given(data=st.data())
def test_rule_15_no_ccel_makes_its_replay_fall_over(data):
    mutated = data.draw(mutations(logs.CCEL, most=100))
    try:
        facts = ccel.explain(mutated, logs.rtmrs())
    except (EvidenceRefused, Malformed):
        return
    assert facts.get("secure_boot", True) is True
