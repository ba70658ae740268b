"""TDX: what a trust domain's claims say, the rules that are its own, the TDX module and relaunch."""

from __future__ import annotations

import hashlib
import struct

import pytest

from strongroom.appraisal.default import default_policy
from strongroom.evidence.formats import dcap_quote
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_intel
from strongroom_testing.vendors.intel_faults import Fault
from tests.unit.evidence.dcap_evidence import BOUND, GOOD, INTEL, refusal, verified


def claims_of(version=5, endorsements=None, **body):
    return verified(INTEL.evidence(BOUND, tee="tdx", version=version, body=body), endorsements)


def bits(*which):
    return struct.pack("<Q", sum(1 << bit for bit in which))


def svn(*numbers):
    return bytes(numbers) + bytes(16 - len(numbers))


@pytest.mark.parametrize("version", [4, 5])
def test_claims_carry_every_field_of_the_report(version):
    claims = claims_of(version, mr_owner=b"o" * 48, mr_owner_config=b"p" * 48, rtmr3=b"3" * 48)
    measured = {name: hashlib.sha384(name.encode()).hexdigest() for name in ("rtmr0", "rtmr1", "rtmr2")}
    expected = {
        "mr_td": hashlib.sha384(b"firmware").hexdigest(),
        **measured,
        "rtmr3": (b"3" * 48).hex(),
        "mr_seam": hashlib.sha384(b"module").hexdigest(),
        "mr_signer_seam": "00" * 48,
        "mr_config_id": "00" * 48,
        "mr_owner": (b"o" * 48).hex(),
        "mr_owner_config": (b"p" * 48).hex(),
    }
    if version == 5:
        expected["mr_service_td"] = "00" * 48
    assert claims.registers == expected
    assert claims.facts["td_report"] == ("1.5" if version == 5 else "1.0")
    assert claims.facts["td_attributes.sept_ve_disable"] is True
    assert claims.facts["tdx_module_status"] == "UpToDate"
    assert claims.tcb["tdx_module.version"] == 1
    assert claims.tcb["tdx_module.svn"] == 6


def test_rule_09_an_enclaves_quote_is_no_trust_domains():
    for version in (3, 4, 5):
        quote = GOOD["sgx", version].parts["quote"]
        assert refusal(Evidence(tee="tdx", parts={"quote": quote})) == "tee"
    # Nor with the TEE type turned, which the signature is over.
    turned = GOOD["sgx", 4].parts["quote"]
    turned = turned[:4] + b"\x81" + turned[5:]
    assert refusal(Evidence(tee="tdx", parts={"quote": turned})) in {"format", "signature"}


def test_rule_09_version_5_names_its_body_and_its_size():
    quote = GOOD["tdx", 5].parts["quote"]
    assert struct.unpack_from("<HI", quote, 48) == (3, 648)
    for kind, size in ((1, 384), (2, 584), (3, 584), (2, 648), (4, 648), (0, 0), (3, 0xFFFFFFFF)):
        changed = quote[:48] + struct.pack("<HI", kind, size) + quote[54:]
        assert refusal(Evidence(tee="tdx", parts={"quote": changed})) == "format"


def test_rule_09_version_5_may_carry_a_report_1_0():
    quote = GOOD["tdx", 4].parts["quote"]
    # Signed anew: the same body under the header of version 5.
    header = struct.pack("<H", 5) + quote[2:48] + struct.pack("<HI", 2, 584)
    signed = header + quote[48:632]
    data = fake_intel.raw_signature(INTEL._attestation, signed) + quote[632 + 4 + 64 :]
    claims = verified(Evidence(tee="tdx", parts={"quote": signed + struct.pack("<I", len(data)) + data}))
    assert (claims.facts["quote_version"], claims.facts["td_report"]) == (5, "1.0")


@pytest.mark.parametrize("bit", range(8))
def test_rule_09_each_bit_of_td_under_debug_is_debug(bit):
    known = {0, 4, 5, 6}
    evidence = INTEL.evidence(BOUND, tee="tdx", body={"td_attributes": bits(bit, 28)})
    if bit not in known:
        assert refusal(evidence) == "td-attributes"
        return
    claims = verified(evidence)
    assert claims.debug
    assert not all(check.ok for check in default_policy(claims, simulated=True))


def test_rule_09_reserved_attributes_and_unknown_state_are_refused():
    known = set(range(64)) - {1, 2, 3, 7, *range(8, 16), *range(17, 27), *range(32, 62)}
    for bit in range(64):
        got = refusal(INTEL.evidence(BOUND, tee="tdx", body={"td_attributes": bits(bit)}))
        assert got == ("accepted" if bit in known else "td-attributes"), bit
    for fault in (Fault.XFAM_UNKNOWN, Fault.XFAM_WITHOUT_SSE):
        assert refusal(INTEL.evidence(BOUND, tee="tdx", fault=fault)) == "xfam"
    for state, got in ((bits(0, 1), "accepted"), (bits(0), "xfam"), (bits(1), "xfam"), (bits(), "xfam")):
        assert refusal(INTEL.evidence(BOUND, tee="tdx", body={"xfam": state})) == got, state


def test_rule_09_the_module_is_intels():
    for fault in (Fault.MODULE_UNKNOWN, Fault.MODULE_OTHER_SIGNER, Fault.MODULE_ATTRIBUTES):
        for version in (4, 5):
            assert refusal(INTEL.evidence(BOUND, tee="tdx", version=version, fault=fault)) == "tcb.module"
    assert refusal(INTEL.evidence(BOUND, tee="tdx", fault=Fault.MODULE_OLD)) == "tcb.level"
    # Without identities in the collateral, only modules of version 0 are known.
    bare = INTEL.endorsements(tee="tdx", tcb={"tdxModuleIdentities": []})
    assert refusal(GOOD["tdx", 4], bare) == "tcb.module"


def test_rule_09_a_service_td_is_a_register_and_strict_policy_denies_it():
    claims = claims_of(mr_service_td=b"s" * 48)
    assert claims.registers["mr_service_td"] == (b"s" * 48).hex()
    assert all(check.ok for check in default_policy(claims, simulated=True))
    assert not all(check.ok for check in default_policy(claims, simulated=True, strict=True))
    without = claims_of(td_attributes=bits())
    assert not all(check.ok for check in default_policy(without, simulated=True, strict=True))


def test_the_configuration_may_carry_the_contract():
    contract = hashlib.sha256(b"contract").digest()
    assert claims_of(mr_config_id=contract + bytes(16)).contract_digest == "sha256:" + contract.hex()
    assert claims_of(mr_config_id=b"\1" + contract + bytes(15)).contract_digest is None


def relaunch_levels(latest="UpToDate", module="OutOfDate", qe="UpToDate"):
    """TCB info whose newest module is of SVN 5 and whose launch module may be of SVN 3."""
    identity = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    components, pce = fake_intel.COMPONENTS, fake_intel.PCE_SVN
    return INTEL.endorsements(
        tee="tdx",
        tcb={
            "tcbLevels": [
                fake_intel.level(components, pce, svn(5, 0, 3), latest),
                fake_intel.level(components, pce - 2, svn(3, 0, 2), "OutOfDate", "INTEL-SA-1"),
            ],
            "tdxModuleIdentities": [
                {
                    "id": "TDX_01",
                    **identity,
                    "tcbLevels": [
                        fake_intel.svn_level(5, "UpToDate"),
                        fake_intel.svn_level(3, module, "INTEL-SA-2"),
                    ],
                },
            ],
        },
        identity={"tcbLevels": [fake_intel.svn_level(8, qe, "INTEL-SA-3")]},
    )


@pytest.mark.parametrize(
    ("launch", "present", "options", "status"),
    [
        (svn(5, 1, 3), svn(5, 1, 3), {}, "UpToDate"),
        # Launched on an old module, which was updated beneath it.
        (svn(3, 1, 3), svn(5, 1, 3), {}, "TDRelaunchAdvised"),
        (svn(3, 1, 3), svn(6, 1, 3), {"latest": "SWHardeningNeeded"}, "TDRelaunchAdvised"),
        (svn(3, 1, 3), svn(5, 1, 3), {"latest": "ConfigurationNeeded"}, "TDRelaunchAdvisedConfigurationNeeded"),
        # The present module is not the newest either, nor the microcode.
        (svn(3, 1, 3), svn(3, 1, 3), {}, "OutOfDate"),
        (svn(3, 1, 3), svn(4, 1, 3), {}, "OutOfDate"),
        (svn(3, 1, 3), svn(5, 1, 2), {}, "OutOfDate"),
        # More than the module is out of date.
        (svn(3, 1, 3), svn(5, 1, 3), {"latest": "OutOfDate"}, "OutOfDate"),
        (svn(3, 1, 3), svn(5, 1, 3), {"qe": "OutOfDate"}, "OutOfDate"),
        (svn(3, 1, 3), svn(5, 1, 3), {"latest": "ConfigurationNeeded", "qe": "OutOfDate"}, "OutOfDateConfigurationNeeded"),
    ],
)  # fmt: skip
def test_relaunch_is_advised_where_the_launchs_module_alone_is_out_of_date(launch, present, options, status):
    endorsements = relaunch_levels(**options)
    assert claims_of(5, endorsements, tee_tcb_svn=launch, tee_tcb_svn2=present).status == status
    # A TD report 1.0 does not tell of the present module.
    of_launch = claims_of(4, endorsements, tee_tcb_svn=launch).status
    assert of_launch == status.replace("TDRelaunchAdvised", "OutOfDate")


def test_the_present_module_must_be_known_and_not_revoked():
    def refused(launch, present, **options):
        body = {"tee_tcb_svn": launch, "tee_tcb_svn2": present}
        return refusal(INTEL.evidence(BOUND, tee="tdx", version=5, body=body), relaunch_levels(**options))

    assert refused(svn(5, 1, 3), svn(5, 2, 3)) == "tcb.module"
    assert refused(svn(5, 1, 3), svn(2, 1, 3)) == "tcb.level"
    assert refused(svn(5, 1, 3), svn(3, 1, 3), module="Revoked") == "tcb.status"
    assert refused(svn(3, 1, 3), svn(5, 1, 3), module="Revoked") == "tcb.status"
    assert refused(svn(5, 1, 3), svn(5, 1, 3), qe="Revoked") == "tcb.status"
    assert refused(svn(5, 1, 3), svn(5, 1, 3), latest="Revoked") == "tcb.status"


def test_advisories_of_platform_module_and_quoting_enclave_are_merged():
    endorsements = relaunch_levels(qe="OutOfDate")
    claims = claims_of(4, endorsements, tee_tcb_svn=svn(3, 1, 2))
    assert claims.advisories == ("INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3")
    assert (claims.status, claims.facts["qe_status"]) == ("OutOfDate", "OutOfDate")


def test_reports_of_another_length_are_no_reports():
    for kind in (0, dcap_quote.BODY_SGX, dcap_quote.BODY_TD10, dcap_quote.BODY_TD15, 4):
        for size in (0, 583, 585, 647, 649):
            with pytest.raises(
                dcap_quote.Malformed, match=f"{size} bytes, expected .* in a body of type {kind}"
            ):
                dcap_quote.td_report(kind, bytes(size))
