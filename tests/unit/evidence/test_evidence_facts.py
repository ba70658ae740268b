"""Facts and edges of evidence that only one field decides: each is told as it is, for every value that it has."""

from __future__ import annotations

import itertools
import struct
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from strongroom.crypto import der
from strongroom.errors import Malformed
from strongroom.evidence import azure, snp, verify
from strongroom.evidence.formats import azure_hcl, ccel, dcap, dcap_pck, dcap_quote, snp_product, snp_report
from strongroom.model.binding import Preset
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import intel_pki
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_azure import FakeAzure
from strongroom_testing.vendors.fake_intel import FakeIntel
from strongroom_testing.vendors.intel_faults import Fault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INTEL = FakeIntel(now=NOW)
BOUND = Preset(values={"report_data": bytes(range(64))})
PREFIX = bytes.fromhex("2a864886f84d010d01")


def entry(numbers: bytes, value: bytes) -> bytes:
    return der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, PREFIX, numbers), value)


def members() -> list[bytes]:
    """The seven members of a multi-package platform's SGX extensions."""
    raw = intel_pki.sgx_extension(components=bytes(range(16)), pce_svn=13, ppid=b"\x11" * 16)
    ((_, body, _),) = der.elements(raw)
    return [whole for _, _, whole in der.elements(body)]


@pytest.mark.parametrize("said", list(itertools.product([True, False], repeat=3)))
def test_each_setting_of_a_platform_is_the_one_that_intel_certified(said):
    values = [
        entry(bytes([7, at]), der.wrap(0x01, b"\xff" if one else b"\0")) for at, one in enumerate(said, 1)
    ]
    read = dcap_pck.parse_extension(
        der.wrap(der.SEQUENCE, *members()[:6], entry(b"\x07", der.wrap(der.SEQUENCE, *values)))
    )
    assert (read.dynamic_platform, read.cached_keys, read.smt_enabled) == said
    assert read.instance == b"\x33" * 16


def test_a_platform_of_one_package_has_no_instance_and_no_settings():
    read = dcap_pck.parse_extension(der.wrap(der.SEQUENCE, *members()[:5]))
    assert read.instance == b""
    assert (read.dynamic_platform, read.cached_keys, read.smt_enabled) == (None, None, None)


def test_the_instance_of_a_platform_is_a_fact_where_it_has_one():
    quote = INTEL.evidence(BOUND, tee="tdx", version=4)
    claims = verify.verify(
        quote,
        INTEL.endorsements(tee="tdx"),
        binding=BOUND,
        roots=frozenset({INTEL.root_digest}),
        now=NOW,
    )
    assert claims.facts["platform_instance"] == "33" * 16


def test_a_log_larger_than_any_is_refused_before_the_quote_is_looked_at():
    parts = {"quote": b"junk", "ccel": bytes(ccel.MAX_LOG + 1)}
    with pytest.raises(Malformed, match=f"CCEL: {ccel.MAX_LOG + 1} bytes, at most {ccel.MAX_LOG} allowed"):
        verify.verify(
            Evidence(tee="tdx", parts=parts),
            INTEL.endorsements(tee="tdx"),
            binding=BOUND,
            roots=frozenset({INTEL.root_digest}),
            now=NOW,
        )


def test_kept_collateral_counts_for_the_roots_that_it_was_verified_under():
    """A reader with other roots asks anew, though the same bytes were sound for somebody else."""
    given = INTEL.endorsements(tee="sgx")
    quote = INTEL.evidence(BOUND, tee="sgx", version=3)
    verify.verify(quote, given, binding=BOUND, roots=frozenset({INTEL.root_digest}), now=NOW)
    asked: list[object] = []

    class Watched:
        def get(self, key, make):
            asked.append(key)
            return make()

    kept, dcap.COLLATERALS = dcap.COLLATERALS, Watched()
    try:
        verify.verify(quote, given, binding=BOUND, roots=frozenset({INTEL.root_digest}), now=NOW)
    finally:
        dcap.COLLATERALS = kept
    ((_, roots),) = asked
    assert roots == frozenset({INTEL.root_digest})


def test_a_quote_is_shown_field_by_field_to_its_end():
    lines = {}
    data = INTEL.evidence(BOUND, tee="tdx", version=4).parts["quote"]
    dcap_quote.describe(data, line=lambda name, value, _meaning: lines.update({name: value}))
    certified = dcap_quote.certification(4, dcap_quote.parse(data).certified)
    assert lines["QE authentication data"] == (certified.authentication_data.hex() or "-")
    assert lines["QE report"] == certified.qe_report.hex()
    assert lines["attestation key"] == certified.attestation_key.hex()
    assert lines["certification data"] == f"type {certified.kind}, {len(certified.data)} bytes"


def spoiled(report: bytes, offset: int, value: bytes) -> bytes:
    return report[:offset] + value + report[offset + len(value) :]


# Offsets of the SEV-SNP firmware ABI, table "ATTESTATION_REPORT".
@pytest.mark.parametrize(
    ("first", "end"),
    [
        pytest.param(0x04C, 0x050, id="after the key flags"),
        pytest.param(0x18B, 0x1A0, id="after the stepping"),
        pytest.param(0x1EB, 0x1EC, id="after the current version"),
        pytest.param(0x1EF, 0x1F0, id="after the committed one"),
        pytest.param(0x208, 0x2A0, id="before the signature"),
        pytest.param(0x330, 0x4A0, id="after the signature"),
    ],
)
def test_each_reserved_byte_between_the_fields_of_a_report_is_zero(first, end):
    report = FakeAmd(now=NOW).report(bytes(64))
    assert snp_report.parse(report)
    for offset in range(first, end):
        with pytest.raises(Malformed, match="reserved bytes"):
            snp_report.parse(spoiled(report, offset, b"\1"))


@pytest.mark.parametrize("offset", [0x1F8, 0x200])
def test_before_version_5_a_report_has_neither_mitigation_vector(offset):
    report = spoiled(FakeAmd(now=NOW).report(bytes(64)), 0, struct.pack("<I", 3))
    cleared = spoiled(report, 0x1F8, bytes(16))
    assert snp_report.parse(cleared)
    with pytest.raises(Malformed, match="bytes of version 3"):
        snp_report.parse(spoiled(cleared, offset, b"\1"))


def test_a_tcb_version_has_a_byte_for_each_of_its_components():
    for line in snp_product.LINES.values():
        for size in (len(line.layout) - 1, len(line.layout) + 1):
            with pytest.raises(ValueError, match="zip"):
                line.tcb(bytes(size))


def test_certification_data_are_as_long_as_they_say():
    """In quotes of version 3 nothing stands around them that would notice."""
    certified = dcap_quote.parse(INTEL.evidence(BOUND, tee="sgx", version=3).parts["quote"]).certified
    assert dcap_quote.certification(3, certified)
    for changed in (certified[:-1], certified + b"\0"):
        with pytest.raises(Malformed, match=r"bytes of certification data .* announced"):
            dcap_quote.certification(3, changed)


def test_a_named_platform_is_named_in_as_many_bytes_as_its_type_has():
    evidence = INTEL.evidence(BOUND, tee="sgx", version=3, fault=Fault.PCK_ABSENT)
    certified = dcap_quote.parse(evidence.parts["quote"]).certified
    named = dcap_quote.certification(3, certified)
    assert len(named.data) == dcap_quote.PLATFORM_NAMED[named.kind]
    head = certified[: len(certified) - len(named.data) - 6]
    for data in (named.data[:-1], named.data + b"\0"):
        with pytest.raises(Malformed, match=r"bytes of certification data .* announced"):
            dcap_quote.certification(3, head + struct.pack("<HI", named.kind, len(data)) + data)


AZURE = FakeAzure.over("snp", now=NOW)


def test_an_hcl_report_that_is_cut_does_not_have_its_length():
    report = AZURE.evidence(Preset(values={"extra_data": b"\5" * 32})).parts["hcl-report"]
    (end,) = struct.unpack_from("<I", report, 8)
    whole = report[:end]
    assert azure_hcl.parse(whole)
    with pytest.raises(Malformed, match="its lengths do not agree"):
        azure_hcl.parse(whole[:-1])


def test_boot_registers_are_claimed_though_blank_and_others_only_if_extended():
    quoted = SimpleNamespace(quote=SimpleNamespace(bank="sha256"))
    values = {3: "00" * 32, 7: "ff" * 32, 9: "00" * 32, 10: "ff" * 32, 11: "11" * 32, 12: "22" * 32}
    told = {"pcr3": "00" * 32, "pcr7": "ff" * 32, "pcr11": "11" * 32}
    assert azure._pcr_registers(quoted, values, "sha256:" + "a" * 64) == told
    assert azure._pcr_registers(quoted, values, None) == {**told, "pcr12": "22" * 32}


def test_what_an_azure_vm_leaves_unchecked_is_said_with_what_its_hardware_does():
    binding = Preset(values={"extra_data": b"\5" * 32})
    claims = verify.verify(
        AZURE.evidence(binding),
        AZURE.endorsements(),
        binding=binding,
        roots=frozenset({AZURE.root}),
        now=NOW,
    )
    assert set(azure.NOT_CHECKED) <= set(claims.not_checked)
    assert set(snp.NOT_CHECKED) <= set(claims.not_checked)
    assert azure.NOT_FRESH not in claims.not_checked
