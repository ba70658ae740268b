"""SEV-SNP reports: sound ones of every line verify, each fault is refused by its check, no byte can be changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.crypto import digest
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import roots as pinned
from strongroom.evidence import snp
from strongroom.evidence.formats import snp_product, snp_report
from strongroom.evidence.roots import amd
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_amd
from strongroom_testing.vendors.fake_amd import Fault, Guest
from tests import samples
from tests.unit.evidence.nitro_evidence import BOUND
from tests.unit.evidence.snp_evidence import (
    CHIPS,
    ENDORSED,
    GENOA,
    GOOD,
    MILAN,
    NOW,
    PROVIDER,
    ROOTS,
    TURIN,
    verified,
    with_part,
)


def refusal(*args, **kwargs) -> str:
    """The check that refuses, `format` where something does not parse."""
    try:
        verified(*args, **kwargs)
    except EvidenceRefused as cause:
        return cause.check if cause.expected and cause.got and cause.hint else "explains nothing"
    except Malformed:
        return "format"
    return "accepted"


def claims_of(guest: Guest, chip=MILAN):
    return verified(chip.evidence(BOUND, guest=guest), chip.endorsements())


@pytest.mark.parametrize("name", sorted(CHIPS))
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_sound_reports_of_every_line_and_version_verify(name, version):
    chip = CHIPS[name]
    evidence, endorsements = chip.evidence(BOUND, guest=Guest(version=version)), chip.endorsements()
    if name == "turin" and version == 2:
        assert refusal(evidence, endorsements) == "product"  # Turin's firmware never wrote these
        return
    claims = verified(evidence, endorsements)
    assert claims.tee == "snp"
    assert claims.root == chip.root
    assert claims.simulated
    assert claims.contract_digest is None
    assert not claims.debug
    assert claims.registers == {"measurement": fake_amd.MEASUREMENT.hex()}
    assert claims.facts["version"] == version
    assert claims.facts["product"] == chip.line
    assert claims.facts["report_data"] == BOUND.digest().hex()
    assert claims.facts["policy.smt"] is True
    assert claims.facts["platform.alias_check_complete"] is True
    assert claims.facts["cpuid"] == (
        "" if version == 2 else "{:02x}.{:02x}.{:x}".format(*fake_amd.CPUID[chip.line])
    )
    assert claims.facts["crl_number"] == 3


@pytest.mark.parametrize("name", sorted(CHIPS))
@pytest.mark.parametrize("fault", Fault)
def test_each_fault_is_refused_by_its_check(fault, name):
    if name == "vlek" and fault in {Fault.CHIP_MASKED, Fault.OTHER_CHIP}:
        pytest.skip("a VLEK certifies no chip")
    chip, expected = CHIPS[name], fake_amd.REFUSED_BY[fault]
    if name == "turin" and fault is Fault.VEK_OF_OTHER_LINE:
        expected = "format"  # Milan's certificates have another set of extensions
    assert refusal(chip.evidence(BOUND, fault=fault), chip.endorsements(fault=fault)) == expected


def test_a_chip_and_a_provider_are_told_apart():
    claims = verified()
    assert claims.machine == fake_amd.CHIP_ID.hex()
    assert claims.facts["vek"] == "VCEK"
    claims = verified(PROVIDER.evidence(BOUND), PROVIDER.endorsements())
    assert claims.machine == f"provider:{fake_amd.CSP_ID}"
    assert claims.facts["provider"] == fake_amd.CSP_ID
    assert snp.NO_MACHINE in claims.not_checked


def test_host_data_are_the_contract_where_they_are_used():
    contract = digest.raw(samples.DIGEST)
    assert claims_of(Guest(host_data=contract)).contract_digest == samples.DIGEST


def test_amd_roots_are_pinned_one_for_each_line():
    assert set(amd.ARKS) == set(snp_product.LINES)
    assert all(pinned.is_hardware("snp", key) for key in amd.ARKS.values())
    assert not pinned.is_hardware("snp", MILAN.root)
    assert not pinned.is_hardware("tpm", amd.ARKS["Milan"])


def test_certificates_of_other_chips_and_lines_are_refused():
    other = fake_amd.FakeAmd(now=NOW)
    assert refusal(GOOD, other.endorsements()) == "signature"
    assert refusal(GOOD, GENOA.endorsements()) == "product"
    assert refusal(GOOD, PROVIDER.endorsements()) == "chain.path"
    mixed = with_part(ENDORSED, "issuers", GENOA.endorsements().parts["issuers"])
    assert refusal(GOOD, mixed) == "chain.path"


def test_an_octet_string_around_the_chips_identity_is_read_too():
    wrapped = fake_amd.FakeAmd(now=NOW)
    extensions = wrapped._extensions(None)
    extensions[-1] = fake_amd._extension("4", b"\x04\x40" + fake_amd.CHIP_ID)
    wrapped._extensions = lambda fault: extensions
    assert verified(wrapped.evidence(BOUND), wrapped.endorsements()).machine == fake_amd.CHIP_ID.hex()


def test_dates_are_asked_each_time_although_certificates_are_kept():
    verified()
    assert refusal(now=NOW + timedelta(days=299)) == "accepted"
    assert refusal(now=NOW + timedelta(days=301)) == "revocation"
    assert refusal(now=NOW + timedelta(days=2001)) == "chain.validity"
    assert refusal(now=NOW - timedelta(days=31)) == "chain.validity"
    assert refusal(now=NOW) == "accepted"


@pytest.mark.parametrize(
    "fault", [None, Fault.CRL_MISSING, Fault.CRL_STALE, Fault.CRL_FORGED, Fault.ISSUER_REVOKED]
)
def test_rule_04_a_list_that_is_missing_or_does_not_count_is_never_skipped(fault):
    expected = "accepted" if fault is None else "revocation"
    assert refusal(GOOD, MILAN.endorsements(fault=fault)) == expected
    attested = snp.attest(GOOD, MILAN.endorsements(fault=fault), binding=BOUND, roots=ROOTS, now=NOW)
    assert not hasattr(attested, "registers")  # what stops short of the list is no claim


def test_rule_04_the_list_of_another_line_does_not_count():
    assert refusal(GOOD, with_part(ENDORSED, "crl", GENOA.crl())) == "revocation"


@pytest.mark.parametrize("age", [29, 200])
def test_rule_03_a_list_counts_until_amds_next_one(age):
    assert refusal(now=NOW + timedelta(days=age)) == "accepted"


@pytest.mark.parametrize(
    "fault", [Fault.UNKNOWN_CPU, Fault.VEK_OF_UNKNOWN_PRODUCT, Fault.ROOT_OF_UNKNOWN_LINE]
)
def test_rule_05_an_unknown_product_never_verifies(fault):
    assert refusal(MILAN.evidence(BOUND, fault=fault), MILAN.endorsements(fault=fault)) == "product"


def test_rule_05_without_a_root_nothing_verifies():
    assert refusal(roots=frozenset()) == "root"
    with pytest.raises(EvidenceRefused) as caught:
        snp.verify(GOOD, ENDORSED, binding=BOUND, roots=frozenset(), now=NOW)
    assert caught.value.check == "chain.root"


def test_rule_05_every_processor_is_of_one_line_or_of_none():
    known = {
        (family, model): snp_product.line_of_cpuid(family, model)
        for family in range(256)
        for model in range(256)
    }
    assert known[0x19, 0x01].name == "Milan"
    assert known[0x19, 0x11].name == known[0x19, 0xA0].name == "Genoa"
    assert known[0x1A, 0x02].name == known[0x1A, 0x11].name == "Turin"
    assert known[0x19, 0x20] is known[0x1A, 0x12] is known[0x1A, 0x50] is known[0, 0] is None
    assert sum(line is not None for line in known.values()) == 16 + 32 + 18


def test_rule_06_a_root_that_the_endorsements_bring_is_not_trusted():
    assert refusal(roots=frozenset({samples.DIGEST})) == "chain.root"
    assert refusal(roots=pinned.PINNED) == "chain.root"


def test_rule_06_a_pinned_key_does_not_vouch_for_another_line(monkeypatch):
    monkeypatch.setitem(amd.ARKS, "Genoa", MILAN.root)
    snp._line.cache_clear()
    assert refusal(GENOA.evidence(BOUND), GENOA.endorsements()) == "accepted"
    assert refusal() == "chain.root"
    snp._line.cache_clear()


@pytest.mark.parametrize("place", range(8))
def test_rule_07_the_certificate_is_for_each_byte_of_the_reported_tcb(place):
    chip = fake_amd.FakeAmd(now=NOW)
    endorsements = chip.endorsements()
    chip.tcb = bytes(value + (index == place) for index, value in enumerate(chip.tcb))
    assert refusal(chip.evidence(BOUND), endorsements) == "vek.tcb"


@pytest.mark.parametrize("name", ["milan", "turin"])
def test_rule_07_each_tcb_is_in_the_claims_by_component(name):
    chip = CHIPS[name]
    layout = ("bootloader", "tee", "", "", "", "", "snp", "microcode")
    if name == "turin":
        layout = ("fmc", "bootloader", "tee", "snp", "", "", "", "microcode")
    committed, launch, current = (
        bytes(9 * which + index if component else 0 for index, component in enumerate(layout))
        for which in (1, 2, 3)
    )
    tcb = claims_of(Guest(committed_tcb=committed, launch_tcb=launch, current_tcb=current), chip).tcb
    for which, raw in (
        ("committed", committed),
        ("launch", launch),
        ("current", current),
        ("reported", chip.tcb),
    ):
        found = {key.split(".")[1]: value for key, value in tcb.items() if key.startswith(which)}
        assert found == {component: raw[index] for index, component in enumerate(layout) if component}
    assert tcb["guest.svn"] == 3


@pytest.mark.parametrize("bit", [bit for bit in range(16, 26) if bit != 17])
def test_rule_08_every_bit_of_the_guest_policy_is_a_claim(bit):
    names = {
        16: "smt", 18: "migrate_ma", 19: "debug", 20: "single_socket", 21: "cxl_allow", 22: "mem_aes_256_xts",
        23: "rapl_dis", 24: "ciphertext_hiding_dram", 25: "page_swap_disable",
    }  # fmt: skip
    claims = claims_of(Guest(policy=0x20000 | 1 << bit | 0x0137))
    on = {name for name, value in claims.facts.items() if name.startswith("policy.") and value is True}
    assert on == {f"policy.{names[bit]}"}
    assert claims.facts["policy.abi"] == "1.55"
    assert claims.debug is (bit == 19)


@pytest.mark.parametrize("bit", range(8))
def test_rule_08_every_bit_of_the_platform_information_is_a_claim(bit):
    names = ("smt_en", "tsme_en", "ecc_en", "rapl_dis", "ciphertext_hiding_dram_en", "alias_check_complete",
             "iommu_write_safe", "tio_en")  # fmt: skip
    facts = claims_of(Guest(platform_info=1 << bit)).facts
    assert {name for name, value in facts.items() if name.startswith("platform.") and value is True} == {
        f"platform.{names[bit]}"
    }


def test_rule_08_vmpl_author_key_and_versions_are_claims():
    claims = claims_of(Guest(vmpl=3, flags=1, mitigations=(5, 7), firmware=(1, 58, 2)))
    assert claims.facts["vmpl"] == 3
    assert claims.facts["author_key_en"] is True
    assert claims.facts["mask_chip_key"] is False
    assert claims.facts["signing_key"] == 0
    assert claims.facts["signature_algo"] == 1
    assert (claims.facts["mitigations.launch"], claims.facts["mitigations.current"]) == (5, 7)
    assert claims.facts["firmware.current"] == claims.facts["firmware.committed"] == "1.58.2"
    assert claims.facts["guest_svn"] == 3


@pytest.mark.parametrize(
    "fault", [Fault.KEY_MASKED, Fault.NO_KEY, Fault.OTHER_ALGORITHM, Fault.VERSION_1, Fault.VERSION_6]
)
def test_rule_08_reports_that_no_amd_key_signed_or_of_unknown_version_are_refused(fault):
    assert refusal(MILAN.evidence(BOUND, fault=fault)) == fake_amd.REFUSED_BY[fault]


@pytest.mark.parametrize("size", [0, 1, 0x2A0, 1183, 1185, 4096])
def test_rule_15_a_report_has_one_length(size):
    report = GOOD.parts["report"].ljust(size, b"\0")[:size]
    assert refusal(Evidence(tee="snp", parts={"report": report})) == "format"


@pytest.mark.parametrize("name", ["vek", "issuers", "crl"])
def test_rule_15_endorsements_are_bounded_before_they_are_parsed(name):
    assert refusal(GOOD, with_part(ENDORSED, name, bytes(snp.LIMITS[name] + 1))) == "format"


def test_rule_15_only_the_named_parts_are_taken():
    assert refusal(GOOD, NONE) == "parts"
    assert refusal(Evidence(tee="snp", parts={})) == "parts"


@pytest.mark.parametrize("fault", [Fault.TRAILING_BYTE, Fault.R_ZERO, Fault.S_IS_ORDER, Fault.R_TOO_LONG])
def test_rule_16_trailing_bytes_and_numbers_out_of_range_are_refused(fault):
    assert refusal(MILAN.evidence(BOUND, fault=fault)) == fake_amd.REFUSED_BY[fault]


@pytest.mark.parametrize("name", ["vek", "issuers", "crl"])
def test_rule_16_no_endorsement_may_trail(name):
    assert refusal(GOOD, with_part(ENDORSED, name, ENDORSED.parts[name] + b"\0")) != "accepted"


def test_rule_17_there_is_no_unbound_verification():
    assert refusal(binding=Preset(values={})) == "binding"
    for wrong in (b"", BOUND.digest()[:32], BOUND.digest() + b"\0"):
        assert refusal(binding=Preset(values={"report_data": wrong})) == "binding"
    assert refusal(binding=Preset(values={"report_data": BOUND.digest()})) == "accepted"
    assert refusal(binding=replace(BOUND, nonce=bytes(32))) == "binding"


def test_rule_57_product_line_and_chip_are_claims_that_a_policy_can_deny():
    assert {name: verified(chip.evidence(BOUND), chip.endorsements()).facts["product"] for name, chip in CHIPS.items()} == {
        "milan": "Milan", "genoa": "Genoa", "turin": "Turin", "vlek": "Milan",
    }  # fmt: skip
    claims = verified(TURIN.evidence(BOUND), TURIN.endorsements())
    assert claims.machine == claims.facts["chip_id"] == fake_amd.CHIP_ID[:8].ljust(64, b"\0").hex()


def test_what_is_kept_is_bounded():
    for kept in (
        snp._check_issued,
        snp._list,
        snp._line,
        snp._split,
        snp_product.read,
        snp_product.claimed_tcb,
    ):
        assert kept.cache_info().maxsize <= 1024


def test_reports_parse_to_what_was_written():
    report = snp_report.parse(MILAN.report(BOUND.digest(), guest=Guest(vmpl=2, mitigations=(1, 2))))
    assert (report.version, report.vmpl, report.mitigations_current) == (5, 2, 2)
    assert (report.family, report.model, report.stepping) == fake_amd.CPUID["Milan"]
    assert report.current_version == (1, 55, 40)
