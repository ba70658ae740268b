"""Azure confidential VMs: sound evidence over SNP and TDX verifies, each fault is refused by its check."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import azure
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import azure_hcl
from strongroom.evidence.roots import amd, intel
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_azure, fake_intel
from strongroom_testing.vendors.fake_amd import Fault as AmdFault
from strongroom_testing.vendors.fake_amd import Guest
from strongroom_testing.vendors.fake_azure import FakeAzure, Fault
from tests import samples
from tests.unit.evidence.azure_evidence import ENDORSED, GOOD, KINDS, NOW, VMS, verified, with_part
from tests.unit.evidence.nitro_evidence import BOUND


def refusal(*args, **kwargs) -> str:
    """The check that refuses, `format` where something does not parse."""
    try:
        verified(*args, **kwargs)
    except EvidenceRefused as cause:
        return cause.check if cause.expected and cause.got and cause.hint else "explains nothing"
    except Malformed:
        return "format"
    return "accepted"


@pytest.mark.parametrize("kind", KINDS)
def test_sound_evidence_verifies_and_says_all(kind):
    vm, claims = VMS[kind], verified(kind)
    assert claims.tee == "azure"
    assert claims.root == vm.root
    assert claims.simulated
    assert claims.contract_digest == samples.DIGEST
    assert not claims.debug
    assert claims.facts["hardware"] == kind
    assert claims.facts["vm.vmUniqueId"] == fake_azure.UNIQUE_ID
    assert claims.facts["vm.secure-boot"] is True
    assert claims.facts["user_data"] == fake_azure.USER_DATA.hex()
    assert claims.facts["tpm.reset_count"] == 1
    pcrs = {name for name in claims.registers if name.startswith("pcr")}
    assert pcrs == {f"pcr{index}" for index in range(8)}
    assert all(claims.registers[f"pcr{index}"] == vm.pcrs[index].hex() for index in range(8))
    assert ("measurement" if kind == "snp" else "mr_td") in claims.registers
    assert claims.machine
    assert claims.tcb
    if kind == "tdx":
        assert claims.status == "UpToDate"


@pytest.mark.parametrize("hash_type", [2, 3])
def test_the_other_hashes_of_runtime_data_are_read(hash_type):
    assert verified("snp", VMS["snp"].evidence(BOUND, hash_type=hash_type)).contract_digest == samples.DIGEST


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", Fault)
def test_each_fault_is_refused_by_its_check(fault, kind):
    assert refusal(kind, VMS[kind].evidence(BOUND, fault=fault)) == fake_azure.REFUSED_BY[fault]


@pytest.mark.parametrize(
    "fault",
    [
        Fault.OTHER_RUNTIME_DATA,
        Fault.AK_SWAPPED,
        Fault.REPORT_OF_OTHER_VM,
        Fault.QUOTE_OF_OTHER_TPM,
        Fault.BAD_SIGNATURE,
        Fault.OTHER_NONCE,
        Fault.PCR_VALUE,
        Fault.PCR_MISSING,
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_rule_12_hash_signature_nonce_and_pcrs_are_all_asked(kind, fault):
    assert refusal(kind, VMS[kind].evidence(BOUND, fault=fault)) not in {"accepted", "explains nothing"}


@pytest.mark.parametrize("kind", KINDS)
def test_rule_12_a_quote_of_another_genuine_vm_is_refused(kind):
    """Both VMs are genuine, of one vendor: the quote of one does not go with the report of the other."""
    other = FakeAzure(hardware=VMS[kind].hardware, ak="another VM's")
    parts = other.evidence(BOUND).parts
    assert refusal(kind, Evidence(tee="azure", parts=parts)) == "accepted"
    mixed = {**GOOD[kind].parts, **{name: parts[name] for name in ("quote", "signature", "pcrs")}}
    assert refusal(kind, Evidence(tee="azure", parts=mixed)) == "signature"
    swapped = {**GOOD[kind].parts, "hcl-report": parts["hcl-report"]}
    assert refusal(kind, Evidence(tee="azure", parts=swapped)) == "signature"


def test_rule_12_the_td_quote_must_carry_the_hash_not_only_the_td_report():
    """A TDREPORT's MAC counts on its own machine alone: what it carries proves nothing to others."""
    other = VMS["tdx"].hardware.evidence(Preset(values={"report_data": bytes(64)}))
    assert refusal("tdx", with_part("tdx", "td-quote", other.parts["quote"])) == "binding"


def test_the_hardwares_own_checks_are_made_by_their_names():
    chip = VMS["snp"].hardware
    for fault in (AmdFault.CRL_MISSING, AmdFault.VEK_EXPIRED, AmdFault.ISSUER_REVOKED, AmdFault.VEK_MISSING):
        expected = {
            "crl-missing": "revocation",
            "vek-expired": "chain.validity",
            "issuer-revoked": "revocation",
        }
        got = refusal("snp", endorsements=chip.endorsements(fault=fault))
        assert got == expected.get(fault.value, "parts")
    platform = VMS["tdx"].hardware
    stale = platform.endorsements(fault=fake_intel.Fault.SIGNER_ENDED)
    assert refusal("tdx", endorsements=stale) not in {"accepted", "explains nothing"}
    assert refusal("tdx", endorsements=Endorsements(parts={"other": b"x"})) == "parts"
    assert refusal("snp", now=NOW + timedelta(days=4000)) == "chain.validity"


def test_endorsements_of_the_other_vendor_do_not_count():
    assert refusal("snp", endorsements=ENDORSED["tdx"]) == "parts"
    assert refusal("tdx", endorsements=ENDORSED["snp"]) == "parts"
    with pytest.raises(EvidenceRefused, match="parts:"):
        azure.verify(GOOD["snp"], NONE, binding=BOUND, roots=pinned.PINNED, now=NOW)


def test_rule_06_only_the_pinned_vendors_roots_are_hardware():
    assert pinned.HARDWARE["azure"] == {pin.key for pin in (*amd.PINS, *intel.PINS)}
    for kind in KINDS:
        assert refusal(kind, roots=pinned.PINNED).startswith(("chain", "pck"))


def test_debug_of_the_hardware_is_debug():
    assert verified("snp", VMS["snp"].evidence(BOUND, guest=Guest(policy=0xB0000))).debug


def test_a_contract_is_claimed_only_where_pcr_12_holds_it_once():
    blank = FakeAzure(hardware=VMS["snp"].hardware)
    claims = verified("snp", blank.evidence(BOUND))
    assert claims.contract_digest is None
    assert "pcr12" not in claims.registers
    other = FakeAzure(hardware=VMS["snp"].hardware, contract=bytes(32))
    claims = verified("snp", other.evidence(BOUND))
    assert claims.contract_digest is None
    assert claims.registers["pcr12"] == other.pcrs[12].hex()
    preset = Preset(values={"extra_data": BOUND.value("extra_data")})
    claims = verified("snp", binding=preset)
    assert claims.contract_digest is None
    assert "pcr12" in claims.registers


def test_rule_17_there_is_no_unbound_verification():
    for kind in KINDS:
        assert refusal(kind, binding=Preset(values={})) == "binding"
        assert refusal(kind, binding=Preset(values={"extra_data": b""})) == "binding"
        assert refusal(kind, binding=replace(BOUND, nonce=bytes(32))) == "binding"


def test_evidence_without_a_nonce_says_so():
    preset = Preset(values={"extra_data": b""})
    claims = verified("snp", VMS["snp"].evidence(preset), binding=preset)
    assert azure.NOT_FRESH in claims.not_checked


@pytest.mark.parametrize("name", ["hcl-report", "quote", "signature", "pcrs", "td-quote"])
def test_rule_15_parts_are_bounded_before_they_are_parsed(name):
    limit = azure.PARTS.get(name, azure.MAX_TD_QUOTE)
    assert refusal("tdx", with_part("tdx", name, bytes(limit + 1))) == "format"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[]", "runtime data: expected an object, got a list"),
        (b"{}", "keys: expected a list of at most 8 objects"),
        (b'{"keys":[1]}', "keys: expected a list of at most 8 objects"),
        (b'{"keys":[{"kid":"HCLAkPub"}]}', "expected base64url of 1 to 1024 characters, got"),
        (
            b'{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"A+"}],"vm-configuration":{}}',
            "not in the one form of base64url",
        ),
        (
            b'{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"AA"}],"vm-configuration":{}}',
            "HCLAkPub is not RSA of 2048 to 4096 bits",
        ),
        (
            b'{"keys":[{"kid":"HCLAkPub","kty":"EC","e":"AQAB","n":"AA"}],"vm-configuration":{}}',
            "HCLAkPub is not RSA with exponent",
        ),
        (b"\xff", "not JSON"),
    ],
)
def test_rule_15_runtime_data_of_another_form_do_not_parse(text, why):
    with pytest.raises(Malformed, match=why):
        azure_hcl.parse_runtime(text)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            b'"secure-boot":true',
            b'"secure\\nboot":true',
            "vm-configuration: expected names of at most 64 letters, digits and dashes, got",
        ),
        (b'"secure-boot":true', b'"secure-boot":1.5', "number '1.5' is not an integer"),
        (b'"vm-configuration":{', b'"vm-configuration":7,"x":{', "vm-configuration: expected an object"),
        (b'"user-data":"', b'"user-data":"0', "user-data: expected 64 bytes in hexadecimal"),
        (b'"user-data":"', b'"user-data":1,"x":"', "user-data: expected 64 bytes in hexadecimal"),
    ],
)
def test_runtime_data_with_one_member_of_another_form_do_not_parse(old, new, why):
    text = VMS["snp"]._runtime(None)
    assert old in text
    with pytest.raises(Malformed, match=why):
        azure_hcl.parse_runtime(text.replace(old, new))
