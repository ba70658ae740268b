"""What SGX and TDX share: every fault refused by its check, every flipped byte refused, rules, dates, caches."""

from __future__ import annotations

from datetime import timedelta

import pytest

from strongroom.encoding import pem
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import dcap, dcap_collateral, dcap_pck, dcap_quote
from strongroom.evidence.memo import Memo
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors.fake_intel import FakeIntel
from strongroom_testing.vendors.intel_faults import OF_SGX, OF_TDX, REFUSED_BY, Fault
from tests import effort
from tests.unit.evidence.dcap_evidence import (
    BOUND,
    ENDORSED,
    GOOD,
    INTEL,
    KINDS,
    NOW,
    ROOTS,
    refusal,
    verified,
    with_part,
)

DAY = timedelta(days=1)


def flips(data: bytes, *, masks=(0x01, 0x20, 0x80)):
    for at in effort.some(range(len(data))):
        for mask in masks:
            yield at, data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


@pytest.mark.parametrize(("tee", "version"), KINDS)
def test_sound_evidence_is_accepted(tee, version):
    claims = verified(GOOD[tee, version])
    assert claims.tee == tee
    assert claims.status == "UpToDate"
    assert claims.advisories == ()
    assert claims.simulated
    assert claims.root == INTEL.root_digest
    assert claims.machine == INTEL.machine
    assert claims.facts["quote_version"] == version
    assert claims.tcb["pce.svn"] == 13
    assert not claims.debug


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize(("tee", "version"), KINDS)
def test_every_fault_is_refused_by_its_check(tee, version, fault):
    if fault in (OF_TDX if tee == "sgx" else OF_SGX):
        return  # the other TEE's
    evidence = INTEL.evidence(BOUND, tee=tee, version=version, fault=fault)
    endorsements = INTEL.endorsements(tee=tee, fault=fault)
    assert refusal(evidence, endorsements) == REFUSED_BY[fault]


def test_every_fault_says_who_refuses_it():
    assert REFUSED_BY.keys() == set(Fault)


@pytest.mark.parametrize(("tee", "version"), [("sgx", 4), ("sgx", 5)])
def test_every_flipped_byte_of_a_quote_is_refused(tee, version):
    """No byte is without effect: the header and the body are signed, the rest is checked or has one form.

    The other kinds, and all endorsements: test_every_byte.py.
    """
    quote = GOOD[tee, version].parts["quote"]
    for at, flipped in flips(quote, masks=(0x20,)):
        assert refusal(Evidence(tee=tee, parts={"quote": flipped})) != "accepted", at


@pytest.mark.parametrize("form", ["hex", "HEX", "pem"])
def test_revocation_lists_count_in_each_form_and_no_flipped_byte_of_it_does(form):
    for part in ("root-ca-crl", "pck-crl"):
        data = ENDORSED["sgx"].parts[part]
        written = {
            "hex": data.hex().encode(),
            "HEX": data.hex().upper().encode(),
            "pem": pem.encode(data, b"X509 CRL"),
        }[form]
        assert refusal(GOOD["sgx", 3], with_part("sgx", part, written)) == "accepted"
        for at, flipped in flips(written, masks=(0x01, 0x20)):
            assert refusal(GOOD["sgx", 3], with_part("sgx", part, flipped)) != "accepted", at


def test_rule_01_the_quoting_enclave_is_intels_by_a_signed_identity():
    for fault in (
        Fault.QE_IDENTITY_FORGED,
        Fault.QE_IDENTITY_WRONG_ISSUER,
        Fault.QE_OTHER_SIGNER,
        Fault.QE_OTHER_PRODUCT,
        Fault.QE_DEBUG,
        Fault.QE_MISC,
        Fault.QE_OLD,
    ):
        evidence = INTEL.evidence(BOUND, tee="tdx", fault=fault)
        endorsements = INTEL.endorsements(tee="tdx", fault=fault)
        assert refusal(evidence, endorsements) == REFUSED_BY[fault]
    # Unsigned: the inner object alone, and an empty signature.
    document = ENDORSED["tdx"].parts["qe-identity"]
    inner = document[len(b'{"enclaveIdentity":') : document.index(b',"signature"')]
    for bad in (
        inner,
        b'{"enclaveIdentity":' + inner + b',"signature":""}',
        document[:-130] + b"0" * 128 + b'"}',
    ):
        assert refusal(GOOD["tdx", 4], with_part("tdx", "qe-identity", bad)) in {
            "format",
            "qe-identity.signature",
        }


def test_rule_02_collateral_that_has_ended_does_not_count_and_its_evaluation_number_is_a_claim():
    for fault in (
        Fault.TCB_INFO_ENDED,
        Fault.TCB_INFO_NOT_YET,
        Fault.QE_IDENTITY_ENDED,
        Fault.ROOT_CRL_ENDED,
        Fault.PCK_CRL_ENDED,
        Fault.SIGNER_ENDED,
    ):
        assert refusal(GOOD["tdx", 4], INTEL.endorsements(tee="tdx", fault=fault)) == REFUSED_BY[fault]
    # Whoever has seen a newer number refuses an older one: a minimum of `evaluation`, the lower of both documents'.
    assert verified(GOOD["tdx", 4]).tcb["evaluation"] == 17
    older = INTEL.endorsements(tee="tdx", identity={"tcbEvaluationDataNumber": 12})
    claims = verified(GOOD["tdx", 4], older)
    assert claims.tcb["evaluation"] == 12
    assert claims.facts["tcb_evaluation_data_number"] == 17
    assert claims.facts["qe_evaluation_data_number"] == 12


def test_rule_03_collateral_counts_for_as_long_as_the_vendor_says():
    # Issued a day before NOW, for thirty days.
    assert refusal(GOOD["tdx", 4], now=NOW + 28 * DAY) == "accepted"
    assert refusal(GOOD["tdx", 4], now=NOW + 29 * DAY) == "accepted"
    assert refusal(GOOD["tdx", 4], now=NOW + 29 * DAY + timedelta(seconds=1)) == "tcb-info.validity"
    assert refusal(GOOD["tdx", 4], now=NOW - DAY) == "accepted"
    assert refusal(GOOD["tdx", 4], now=NOW - DAY - timedelta(seconds=1)).endswith(".validity")


def test_what_is_kept_does_not_outlive_its_dates():
    assert refusal(GOOD["sgx", 3]) == "accepted"
    assert refusal(GOOD["sgx", 3], now=NOW + 31 * DAY).endswith(".validity")
    assert refusal(GOOD["sgx", 3], now=NOW + 10000 * DAY) == "pck.validity"
    assert refusal(GOOD["sgx", 3]) == "accepted"


def test_rule_04_revoked_is_refused_and_so_is_a_list_that_is_missing():
    for fault in (
        Fault.PCK_REVOKED,
        Fault.CA_REVOKED,
        Fault.SIGNER_REVOKED,
        Fault.ROOT_CRL_MISSING,
        Fault.PCK_CRL_MISSING,
        Fault.ROOT_CRL_FORGED,
        Fault.PCK_CRL_FORGED,
        Fault.PCK_CRL_OF_OTHER_CA,
    ):
        assert refusal(GOOD["sgx", 3], INTEL.endorsements(tee="sgx", fault=fault)) == REFUSED_BY[fault]
    assert refusal(GOOD["sgx", 3], NONE) == "endorsements.missing"
    # The lists of one authority in place of the other's.
    swapped = Endorsements(parts={**ENDORSED["sgx"].parts, "pck-crl": ENDORSED["sgx"].parts["root-ca-crl"]})
    assert refusal(GOOD["sgx", 3], swapped) == "pck-crl.signature"


def test_rule_05_unknown_platforms_and_empty_sets_of_roots_are_refused():
    assert refusal(GOOD["tdx", 4], roots=frozenset()) == "root"
    other = INTEL.evidence(BOUND, tee="tdx", fault=Fault.OTHER_FMSPC)
    assert refusal(other) == "tcb.platform"
    for fault in (Fault.PLATFORM_OLD, Fault.PCE_OLD):
        assert refusal(INTEL.evidence(BOUND, tee="tdx", fault=fault)) == "tcb.level"
    quote = GOOD["tdx", 4].parts["quote"]
    for version in (0, 1, 2, 6, 0xFFFF):
        changed = version.to_bytes(2, "little") + quote[2:]
        assert refusal(Evidence(tee="tdx", parts={"quote": changed})) == "format"


def test_rule_06_a_root_that_came_along_is_not_trusted_for_that():
    other = FakeIntel(now=NOW)
    assert refusal(other.evidence(BOUND), other.endorsements()) == "pck.root"
    assert refusal(GOOD["tdx", 4], roots=pinned.PINNED) == "pck.root"
    # A platform of one trusted root, endorsements of another.
    both = ROOTS | {other.root_digest}
    assert refusal(GOOD["tdx", 4], other.endorsements(), roots=both) == "root"
    mixed = {**ENDORSED["tdx"].parts}
    mixed["qe-identity"] = other.endorsements().parts["qe-identity"]
    mixed["qe-identity-issuer-chain"] = other.endorsements().parts["qe-identity-issuer-chain"]
    assert refusal(GOOD["tdx", 4], Endorsements(parts=mixed), roots=both) == "root"


def test_the_root_is_pinned_by_its_key_which_two_certificates_carry(monkeypatch):
    assert pinned.HARDWARE["sgx"] == pinned.HARDWARE["tdx"]
    monkeypatch.setitem(pinned.HARDWARE, "sgx", ROOTS)
    assert not verified(GOOD["sgx", 3]).simulated
    assert verified(GOOD["tdx", 4]).simulated


def test_rule_15_lists_of_another_length_are_refused_before_they_are_compared():
    for fault in (Fault.FIFTEEN_COMPONENTS, Fault.UNKNOWN_STATUS):
        assert refusal(GOOD["sgx", 3], INTEL.endorsements(tee="sgx", fault=fault)) == "format"
    many = {"tcbLevels": [{}] * 257}
    assert refusal(GOOD["sgx", 3], INTEL.endorsements(tee="sgx", tcb=many)) == "format"
    assert refusal(GOOD["sgx", 3], INTEL.endorsements(tee="sgx", tcb={"tcbLevels": []})) == "format"
    for part in dcap_collateral.REQUIRED:
        assert refusal(GOOD["sgx", 3], with_part("sgx", part, b"0" * 3_000_000)) == "format"
    assert refusal(Evidence(tee="sgx", parts={"quote": b"\3" * 70_000})) == "format"


def test_rule_16_trailing_bytes_duplicate_keys_and_signatures_out_of_range_are_refused():
    for kind, evidence in GOOD.items():
        quote = evidence.parts["quote"]
        for more in (b"\0", b"\n", b"\0" * 64, quote):
            assert refusal(Evidence(tee=kind[0], parts={"quote": quote + more})) == "format"
        for fault in (Fault.R_ZERO, Fault.S_IS_ORDER):
            assert refusal(INTEL.evidence(BOUND, tee=kind[0], version=kind[1], fault=fault)) == "signature"
    assert refusal(GOOD["sgx", 3], INTEL.endorsements(tee="sgx", fault=Fault.DUPLICATE_KEY)) == "format"
    for part, data in ENDORSED["sgx"].parts.items():
        for more in (b" ", b"\n\n", b"{}"):
            assert refusal(GOOD["sgx", 3], with_part("sgx", part, data + more)) == "format", part


def test_rule_17_there_is_no_unbound_verification():
    assert refusal(GOOD["tdx", 4], bound=Preset(values={})) == "binding"
    for other in (bytes(64), bytes(range(63)), bytes(range(64)) + b"\0", b""):
        assert refusal(GOOD["tdx", 4], bound=Preset(values={"report_data": other})) == "binding"


def test_rule_34_what_nobody_asked_for_is_refused():
    for tee in ("sgx", "tdx"):
        assert refusal(GOOD[tee, 4], with_part(tee, "tcb-infos", b"x")) == "parts"
        assert refusal(GOOD[tee, 4], with_part(tee, dcap.OPTIONAL, INTEL.pck.chain)) == "parts"
    assert refusal(Evidence(tee="sgx", parts={}), ENDORSED["sgx"]) == "parts"


def test_a_quote_without_certificates_takes_them_from_the_endorsements():
    bare = INTEL.evidence(BOUND, tee="sgx", fault=Fault.PCK_ABSENT)
    assert refusal(bare) == "pck.missing"
    assert refusal(bare, with_part("sgx", dcap.OPTIONAL, INTEL.pck.chain)) == "accepted"
    other = FakeIntel(now=NOW)
    assert refusal(bare, with_part("sgx", dcap.OPTIONAL, other.pck.chain)) == "pck.root"
    # Another platform of the same Intel: its key did not sign this quoting enclave's report.
    sibling = INTEL._pck(Fault.OTHER_FMSPC)
    assert refusal(bare, with_part("sgx", dcap.OPTIONAL, sibling.chain)) == "qe.signature"


def test_certificates_count_in_any_order_of_the_chain():
    leaf, ca, root = (
        pem.encode(one, b"CERTIFICATE")
        for one in pem.decode(INTEL.pck.chain, b"CERTIFICATE", what="chain", max_blocks=3, max_bytes=65536)
    )
    bare = INTEL.evidence(BOUND, tee="sgx", fault=Fault.PCK_ABSENT)
    for order in ((leaf, root, ca), (root, ca, leaf), (ca, leaf, root)):
        assert refusal(bare, with_part("sgx", dcap.OPTIONAL, b"".join(order))) == "accepted"
    for chain in (
        (leaf, ca),
        (leaf, ca, root, root),
        (leaf, leaf, root),
        (ca, root, root),
        (leaf, root, root),
    ):
        assert refusal(bare, with_part("sgx", dcap.OPTIONAL, b"".join(chain))) in {"format", "pck.path"}


def test_both_certification_authorities_count():
    other = FakeIntel(now=NOW, processor=True)
    claims = verified(other.evidence(BOUND), other.endorsements(), roots=frozenset({other.root_digest}))
    assert claims.facts["pck_ca"] == "processor"


def test_machines_are_told_apart_by_their_ppid_and_nothing_else():
    other = FakeIntel(now=NOW, ppid=b"\x55" * 16)
    claims = verified(other.evidence(BOUND), other.endorsements(), roots=frozenset({other.root_digest}))
    assert claims.machine == other.machine != INTEL.machine
    again = FakeIntel(now=NOW)
    assert again.machine == INTEL.machine


def test_verification_changes_none_of_its_arguments():
    evidence, endorsements = GOOD["tdx", 5], ENDORSED["tdx"]
    before = dict(evidence.parts), dict(endorsements.parts)
    first, second = verified(evidence), verified(evidence)
    assert (evidence.parts, endorsements.parts) == before
    first.facts["status"] = first.registers["mr_td"] = "changed"
    first.tcb["pce.svn"] = 99
    assert verified(evidence) == second


def test_kept_outcomes_are_bounded_and_do_not_mix_roots():
    kept: Memo[int] = Memo(2)
    assert [kept.get(key, lambda key=key: key) for key in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert len(kept) == 2
    assert refusal(GOOD["tdx", 4]) == "accepted"
    assert refusal(GOOD["tdx", 4], roots=frozenset({"sha256:" + "0" * 64})) == "pck.root"


def test_a_root_is_trusted_only_if_it_is_sound():
    root = pem.encode(INTEL.root.certificate, b"CERTIFICATE")
    assert dcap_pck.trusted_root(root, now=NOW) == INTEL.root_digest
    for bad, now, why in (
        (INTEL.ca.chain, NOW, "more than 1 blocks"),
        (pem.encode(INTEL.ca.certificate, b"CERTIFICATE"), NOW, "root.path:"),
        (root, NOW + 9999 * DAY, "root.validity:"),
    ):
        with pytest.raises((EvidenceRefused, Malformed), match=why):
            dcap_pck.trusted_root(bad, now=now)


def test_every_field_of_a_quote_can_be_shown():
    for evidence in GOOD.values():
        lines = []
        dcap_quote.describe(evidence.parts["quote"], line=lambda *line, lines=lines: lines.append(line))
        assert len(lines) > 15
        assert all(isinstance(text, str) for line in lines for text in line)
