"""SGX: what an enclave's claims say, and the rules that are its own."""

from __future__ import annotations

import hashlib
import struct

import pytest

from strongroom.appraisal.default import default_policy
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors.intel_faults import Fault
from tests.unit.evidence.dcap_evidence import BOUND, GOOD, INTEL, refusal, verified

VERSIONS = (3, 4, 5)


def claims_of(version=3, **body):
    return verified(INTEL.evidence(BOUND, tee="sgx", version=version, body=body))


def attributes(flags):
    return struct.pack("<QQ", flags, 0xE7)


@pytest.mark.parametrize("version", VERSIONS)
def test_claims_carry_every_field_of_the_report(version):
    claims = claims_of(
        version,
        isv_prod_id=struct.pack("<H", 0x1234),
        isv_svn=struct.pack("<H", 9),
        config_svn=struct.pack("<H", 4),
        isv_family_id=b"f" * 16,
        isv_ext_prod_id=b"e" * 16,
    )
    signer = hashlib.sha256(b"signer").hexdigest()
    assert claims.registers == {
        "mr_enclave": hashlib.sha256(b"enclave").hexdigest(),
        "signed_product": signer + "1234",
        "config_id": "00" * 64,
        "isv_family_id": (b"f" * 16).hex(),
        "isv_ext_prod_id": (b"e" * 16).hex(),
    }
    assert claims.facts["report_data"] == bytes(range(64)).hex()
    assert claims.facts["mr_signer"] == signer
    assert claims.memory_guard is False
    assert claims.facts["xfrm"] == claims.facts["attributes"][16:]
    assert len(claims.facts["xfrm"]) == 16
    assert claims.facts["isv_prod_id"] == 0x1234
    assert claims.tcb["isv.svn"] == claims.facts["isv_svn"] == 9
    assert claims.tcb["config.svn"] == 4
    assert claims.contract_digest is None


def test_rule_09_a_trust_domains_quote_is_no_enclaves():
    for version in (4, 5):
        quote = GOOD["tdx", version].parts["quote"]
        assert refusal(Evidence(tee="sgx", parts={"quote": quote})) == "tee"


def test_rule_10_debug_is_a_claim_that_the_default_policy_denies():
    claims = claims_of(attributes=attributes(0x7))
    assert claims.debug
    assert claims.facts["attributes.debug"] is True
    assert any(not check.ok and check.name == "debug" for check in default_policy(claims, simulated=True))
    assert all(check.ok for check in default_policy(claims_of(), simulated=True))


def test_rule_10_only_initialised_enclaves_count():
    for version in VERSIONS:
        evidence = INTEL.evidence(BOUND, tee="sgx", version=version, fault=Fault.NOT_INITIALISED)
        assert refusal(evidence) == "attributes"


def test_rule_10_mode_select_and_key_access_are_claims():
    claims = claims_of(attributes=attributes(0x1 | 0x10 | 0x20 | 0x80), misc_select=b"\1\0\0\0")
    assert claims.facts["attributes.mode64bit"] is False
    assert claims.facts["attributes.provision_key"] is True
    assert claims.facts["attributes.einittoken_key"] is True
    assert claims.facts["attributes.kss"] is True
    assert claims.facts["misc_select"] == "01000000"


def test_rule_10_a_signer_is_no_register_without_its_product():
    first, second = (claims_of(isv_prod_id=struct.pack("<H", product)) for product in (1, 2))
    assert "mr_signer" not in first.registers
    assert first.registers["signed_product"] != second.registers["signed_product"]


def test_rule_10_the_configuration_is_a_claim_and_may_carry_the_contract():
    contract = hashlib.sha256(b"contract").digest()
    assert claims_of(config_id=contract + bytes(32)).contract_digest == "sha256:" + contract.hex()
    assert claims_of(config_id=contract * 2).contract_digest is None
    assert claims_of(config_id=contract * 2).registers["config_id"] == (contract * 2).hex()


@pytest.mark.parametrize(
    ("reserved", "size"), [("reserved1", 12), ("reserved2", 32), ("reserved3", 32), ("reserved4", 42)]
)
def test_reserved_bytes_must_be_zero(reserved, size):
    for at in (0, size - 1):
        body = {reserved: bytes(at) + b"\1" + bytes(size - at - 1)}
        assert refusal(INTEL.evidence(BOUND, tee="sgx", body=body)) == "format"
