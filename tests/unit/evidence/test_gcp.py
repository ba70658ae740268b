"""Google's virtual TPMs: sound evidence verifies and says all, each fault is refused by its check, no byte can be changed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.crypto import digest
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import gcp
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import ccel
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_amd, fake_google, fake_intel
from tests.unit.evidence.gcp_evidence import BOUND, GOOD, GOOGLE, KINDS, NOW, changed, verified


def refusal(*args, **kwargs) -> str:
    """The check that refuses, `format` where a part does not parse."""
    try:
        verified(*args, **kwargs)
    except EvidenceRefused as cause:
        return cause.check if cause.expected and cause.hint else "explains nothing"
    except Malformed:
        return "format"
    return "accepted"


def test_sound_evidence_verifies_and_says_all():
    claims = verified(GOOD)
    pcrs = fake_google.replay(fake_google.boot(), "sha256")
    assert claims.tee == "gcp"
    assert claims.root == GOOGLE.root
    assert claims.machine == GOOGLE.machine
    assert claims.contract_digest is None
    assert not claims.debug
    assert claims.tcb == {"gce.security": 2}
    assert claims.registers == {f"pcr{index}": pcrs[index].hex() for index in (*range(10), 11)}
    told = claims.facts
    assert (told["zone"], told["project_id"], told["instance_name"]) == (
        "europe-west4-a",
        "a-project",
        "instance-1",
    )
    assert (told["project_number"], told["instance_id"]) == (str(0x12345678), str(0x0F23456789ABCDEF))
    assert told["is_production"] is True
    assert told["vmtd_always_disabled"] is False
    assert told["secure_boot"] is True
    assert told["firmware_version"] == "GCE Virtual Firmware v2"
    assert told["gce_technology"] == "intel-tdx"
    assert told["kernel_cmdline"] == "root=/dev/sda1 ro"
    assert told["uki.linux"] == hashlib.sha256(fake_google.KERNEL).hexdigest()
    assert told["event_log"] == "0 1 2 3 4 5 6 7 8 9 11"
    assert told["tpm.bank"] == "sha256"
    assert gcp.UNSHIELDED in claims.not_checked


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_attestation_key_and_bank_verifies(kind):
    google = fake_google.FakeGoogle(now=NOW, **KINDS[kind])
    evidence = google.evidence(BOUND)
    claims = verified(evidence, google=google)
    assert claims.facts["tpm.bank"] == google.bank
    assert claims.facts["secure_boot"] is True
    assert len(claims.registers["pcr7"]) == 2 * {"sha256": 32, "sha384": 48}[google.bank]
    for fault in (fake_google.Fault.BAD_SIGNATURE, fake_google.Fault.OTHER_KEY, fake_google.Fault.PCR_VALUE):
        spoiled = google.evidence(BOUND, fault=fault)
        assert refusal(spoiled, google=google) == fake_google.REFUSED_BY[fault]


def test_a_signature_of_one_scheme_is_none_of_another():
    google = fake_google.FakeGoogle(now=NOW, algorithm="rsa")
    evidence = google.evidence(BOUND)
    signature = bytearray(evidence.parts["signature"])
    for scheme in (0x16, 0x18):
        signature[1] = scheme
        parts = {**evidence.parts, "signature": bytes(signature)}
        assert refusal(Evidence(tee="gcp", parts=parts), google=google) in {"signature", "format"}


@pytest.mark.parametrize("fault", fake_google.Fault)
def test_each_fault_is_refused_by_its_check(fault):
    assert refusal(GOOGLE.evidence(BOUND, fault=fault)) == fake_google.REFUSED_BY[fault]


def test_a_fakes_root_stands_for_no_hardware():
    assert verified(GOOD).simulated


def test_a_test_machine_of_googles_stands_for_no_hardware(monkeypatch):
    for production in (True, False):
        google = fake_google.FakeGoogle(now=NOW, production=production)
        monkeypatch.setitem(pinned.HARDWARE, "gcp", frozenset({google.root}))
        assert verified(google.evidence(BOUND), google=google).simulated is not production


def test_rule_06_a_root_that_the_evidence_brings_is_not_trusted():
    assert refusal(GOOD, roots=pinned.PINNED) == "chain.root"
    assert refusal(GOOD, roots=frozenset()) == "root"


def test_rule_12_the_nonce_is_compared_whole():
    value = BOUND.value("extra_data")
    for other in (b"", value[:31], value + b"\0", bytes(32), value[:31] + bytes([value[31] ^ 1])):
        assert refusal(GOOD, binding=Preset(values={"extra_data": other})) == "binding"


def test_rule_12_pcr_values_are_recomputed_from_what_was_signed():
    pcrs = GOOD.parts["pcrs"]
    for index in range(24):
        spoiled = bytearray(pcrs)
        spoiled[32 * index] ^= 1
        assert refusal(changed("pcrs", bytes(spoiled))) == "pcr-values"
    swapped = pcrs[32:64] + pcrs[:32] + pcrs[64:]
    assert refusal(changed("pcrs", swapped)) == "pcr-values"


def test_rule_17_without_an_expectation_nothing_is_verified():
    assert refusal(GOOD, binding=Preset(values={})) == "binding"
    assert refusal(GOOD, binding=Preset(values={"report_data": bytes(64)})) == "binding"


def test_a_quote_that_nobody_expected_to_carry_anything_is_said_not_to_be_fresh():
    evidence = GOOGLE.evidence(Preset(values={"extra_data": b""}))
    claims = verified(evidence, binding=Preset(values={"extra_data": b""}))
    assert any("fresh" in line for line in claims.not_checked)
    assert not any("fresh" in line for line in verified(GOOD).not_checked)


def test_rule_19_another_nonce_contract_key_or_audience_is_refused():
    for other in (
        replace(BOUND, nonce=b"m" * 32),
        replace(BOUND, contract_digest="sha256:" + "cd" * 32),
        replace(BOUND, keys=replace(BOUND.keys, kem=b"x" * 1216)),
        replace(BOUND, audience="sha256:" + "cd" * 32),
    ):
        assert refusal(GOOD, binding=other) == "binding"


def test_rule_25_parts_of_two_machines_do_not_go_together():
    second = fake_google.FakeGoogle(now=NOW)
    other, both = second.evidence(BOUND), frozenset({GOOGLE.root, second.root})
    for name in ("quote", "signature", "ak-certificate", "issuers"):
        assert refusal(changed(name, other.parts[name]), roots=both) != "accepted"
    # The other machine booted without secure boot: its PCRs and its log are not this one's.
    unsafe = GOOGLE.evidence(BOUND, events=fake_google.boot(secure=False))
    assert refusal(changed("pcrs", unsafe.parts["pcrs"])) == "pcr-values"
    assert refusal(changed("event-log", unsafe.parts["event-log"])) == "event-log.pcr-7"


def test_a_log_is_not_demanded_and_its_absence_is_told():
    claims = verified(GOOGLE.evidence(BOUND, logged=False))
    assert "secure_boot" not in claims.facts
    assert any("no event log" in line for line in claims.not_checked)
    assert claims.registers == verified(GOOD).registers


def test_facts_are_of_quoted_registers_alone():
    claims = verified(GOOGLE.evidence(BOUND, selection=(0, 2, 14)))
    assert set(claims.registers) == {"pcr0", "pcr2"}
    assert "secure_boot" not in claims.facts
    assert claims.facts["firmware_version"] == "GCE Virtual Firmware v2"
    assert claims.facts["event_log"] == "0 2"


def test_systemds_phases_may_follow_in_pcr_11_and_nothing_else():
    phases = [
        hashlib.sha256(word).digest() for word in (b"enter-initrd", b"leave-initrd", b"sysinit", b"ready")
    ]
    claims = verified(GOOGLE.evidence(BOUND, extend=tuple((11, one) for one in phases)))
    assert claims.facts["boot_phases"] == "enter-initrd:leave-initrd:sysinit:ready"
    one = verified(GOOGLE.evidence(BOUND, extend=((11, phases[0]),)))
    assert one.facts["boot_phases"] == "enter-initrd"
    for wrong in (((11, phases[1]),), ((11, phases[0]), (11, phases[0])), ((11, bytes(32)),)):
        assert refusal(GOOGLE.evidence(BOUND, extend=wrong)) == "event-log.pcr-11"
    assert refusal(GOOGLE.evidence(BOUND, extend=((7, phases[0]),))) == "event-log.pcr-7"


def test_the_contract_in_pcr_12_is_found_and_no_other():
    contract = digest.raw(BOUND.contract_digest)
    claims = verified(GOOGLE.evidence(BOUND, extend=((12, contract),)))
    assert claims.contract_digest == BOUND.contract_digest
    assert "pcr12" not in claims.registers
    for extended in (((12, contract), (12, contract)), ((12, bytes(32)),), ((13, contract),)):
        claims = verified(GOOGLE.evidence(BOUND, extend=extended))
        assert claims.contract_digest is None
        assert f"pcr{extended[0][0]}" in claims.registers


def test_endorsements_and_unknown_parts_are_refused():
    assert refusal(GOOD, endorsements=Endorsements(parts={"crl": b"x"})) == "parts"
    assert refusal(changed("ccel", b"x")) == "parts"
    both = Evidence(tee="gcp", parts={**GOOD.parts, "td-quote": b"x", "snp-report": b"x"})
    assert refusal(both) == "parts"


def test_a_hardware_report_that_does_not_verify_is_never_passed_over():
    for name in ("td-quote", "snp-report"):
        assert refusal(changed(name, b"x" * 1184)) != "accepted"
        assert refusal(changed(name, bytes(gcp.MAX_REPORT + 1))) == "format"


def test_rule_16_r_and_s_out_of_range_are_refused():
    for r, s in ((0, 1), (1, 0), (GOOGLE.order, 1), (1, GOOGLE.order), (GOOGLE.order + 1, 1)):
        assert refusal(changed("signature", GOOGLE.ecdsa(r, s))) == "signature"


def test_rule_16_no_byte_of_a_quote_signed_with_pss_can_be_changed():
    """The other kinds of keys, and logs: test_every_byte.py."""
    google = fake_google.FakeGoogle(now=NOW, **KINDS["rsapss"])
    good = google.evidence(BOUND, logged=False)
    for name in ("quote", "signature"):
        part = good.parts[name]
        for place in range(len(part)):
            flipped = bytearray(part)
            flipped[place] ^= 1 << (place % 8)
            evidence = Evidence(tee="gcp", parts={**good.parts, name: bytes(flipped)})
            assert refusal(evidence, google=google) != "accepted", f"{name}, byte {place}"


def test_validity_is_asked_each_time():
    assert verified(GOOD, now=NOW + timedelta(days=29)).tee == "gcp"
    assert refusal(GOOD, now=NOW + timedelta(days=31)) == "chain.validity"
    assert refusal(GOOD, now=NOW - timedelta(days=2)) == "chain.validity"
    assert verified(GOOD).tee == "gcp"


INTEL = fake_intel.FakeIntel(now=NOW)
AMD = fake_amd.FakeAmd(now=NOW)
LOG_OF_TD = fake_google.encode_log(
    [
        fake_google.variable(fake_google._GLOBAL, "SecureBoot", b"\0", pcr=1),
        fake_google.said(1, 4, bytes(4)),
    ],
    ("sha384",),
)
RTMR0 = fake_google.replay(
    [
        fake_google.variable(fake_google._GLOBAL, "SecureBoot", b"\0", pcr=1),
        fake_google.said(1, 4, bytes(4)),
    ],
    "sha384",
)[1]


def in_a_td(**kwargs) -> Evidence:
    quote = INTEL.evidence(BOUND, body={"rtmr0": RTMR0}, **kwargs).parts["quote"]
    return Evidence(tee="gcp", parts={**GOOD.parts, "td-quote": quote, "ccel": LOG_OF_TD})


def in_hardware(evidence, **kwargs):
    roots = frozenset({GOOGLE.root, INTEL.root_digest, AMD.root})
    given = {"endorsements": INTEL.endorsements(), "roots": roots} | kwargs
    return evidence, given


def test_with_a_tdx_quote_the_claims_are_the_hardwares_and_the_tpms_together():
    evidence, given = in_hardware(in_a_td())
    claims = verified(evidence, **given)
    assert claims.tee == "gcp"
    assert (claims.root, claims.machine) == (INTEL.root_digest, INTEL.machine)
    assert claims.status == "UpToDate"
    assert {"mr_td", "rtmr0", "pcr0", "pcr7"} <= claims.registers.keys()
    assert (claims.facts["hardware"], claims.facts["tpm.machine"]) == ("tdx", GOOGLE.machine)
    # The TD's own log says what its RTMRs prove, the TPM's what Google's TPM proves.
    assert (claims.facts["secure_boot"], claims.facts["tpm.secure_boot"]) == (False, True)
    assert claims.facts["td_attributes.sept_ve_disable"] in (True, False)
    assert gcp.UNTIED in claims.not_checked
    assert gcp.UNSHIELDED not in claims.not_checked
    assert claims.simulated


def test_rule_25_a_tdx_quote_for_another_request_is_refused():
    other = replace(BOUND, nonce=b"m" * 32)
    quote = INTEL.evidence(other, body={"rtmr0": RTMR0}).parts["quote"]
    evidence, given = in_hardware(changed("td-quote", quote))
    assert refusal(evidence, **given) == "binding"


def test_a_hardware_root_that_is_not_trusted_fails_all():
    evidence, given = in_hardware(in_a_td(), roots=frozenset({GOOGLE.root}))
    assert refusal(evidence, **given) not in {"accepted", "format"}
    evidence, given = in_hardware(in_a_td(), roots=frozenset({INTEL.root_digest}))
    assert refusal(evidence, **given) == "chain.root"


def test_without_the_hardwares_endorsements_nothing_is_accepted():
    evidence, given = in_hardware(in_a_td(), endorsements=NONE)
    assert refusal(evidence, **given) not in {"accepted", "format"}


def test_a_ccel_that_is_not_of_these_rtmrs_is_refused():
    parts = {**GOOD.parts, "ccel": LOG_OF_TD, "td-quote": INTEL.evidence(BOUND).parts["quote"]}
    evidence, given = in_hardware(Evidence(tee="gcp", parts=parts))
    assert refusal(evidence, **given) == "ccel.rtmr-0"
    evidence, given = in_hardware(Evidence(tee="tdx", parts={"quote": parts["td-quote"], "ccel": LOG_OF_TD}))
    assert refusal(evidence, **given) == "ccel.rtmr-0"
    oversized = {"quote": parts["td-quote"], "ccel": bytes(ccel.MAX_LOG + 1)}
    evidence, given = in_hardware(Evidence(tee="tdx", parts=oversized))
    assert refusal(evidence, **given) == "format"


def test_bare_tdx_evidence_may_bring_its_log():
    quote = INTEL.evidence(BOUND, body={"rtmr0": RTMR0}).parts["quote"]
    for parts, told in (({"quote": quote, "ccel": LOG_OF_TD}, False), ({"quote": quote}, None)):
        evidence, given = in_hardware(Evidence(tee="tdx", parts=parts))
        claims = verified(evidence, **given)
        assert claims.facts.get("secure_boot") is told
        assert any("event log" in line for line in claims.not_checked) is (told is None)


def test_with_an_snp_report_the_claims_are_the_hardwares_and_the_tpms_together():
    report = AMD.evidence(BOUND).parts["report"]
    evidence, given = in_hardware(changed("snp-report", report), endorsements=AMD.endorsements())
    claims = verified(evidence, **given)
    assert (claims.root, claims.facts["hardware"]) == (AMD.root, "snp")
    assert {"measurement", "pcr0"} <= claims.registers.keys()
    other = AMD.evidence(replace(BOUND, nonce=b"m" * 32)).parts["report"]
    evidence, given = in_hardware(changed("snp-report", other), endorsements=AMD.endorsements())
    assert refusal(evidence, **given) == "binding"
