"""Any bytes in place of any part: claims never, `Malformed` or `EvidenceRefused` always, nothing else raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto import der
from strongroom.crypto.pki import vek
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import snp_product, snp_report
from strongroom.model.evidence import Evidence
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import snp_evidence as scene

REPORT = scene.GOOD.parts["report"]
VEK = scene.ENDORSED.parts["vek"]


@often
@given(data=mutations(REPORT, most=200))
def test_rule_15_no_other_report_verifies(data):
    if data == REPORT:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="snp", parts={"report": data}))


@often
@given(data=st.data(), name=st.sampled_from(sorted(scene.ENDORSED.parts)))
def test_rule_15_no_other_endorsement_verifies(data, name):
    good = scene.ENDORSED.parts[name]
    spoiled = data.draw(mutations(good, most=200))
    if spoiled == good:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(endorsements=scene.with_part(scene.ENDORSED, name, spoiled))


@often
@given(
    fields=st.binary(min_size=snp_report.SIZE, max_size=snp_report.SIZE), version=st.sampled_from([2, 3, 5])
)
def test_rule_15_reports_of_any_bytes_parse_or_are_malformed(fields, version):
    """Most are malformed by a reserved byte; with those zero, every value of the others parses."""
    data = bytearray(version.to_bytes(4, "little") + fields[4:])
    try:
        snp_report.parse(bytes(data))
    except Malformed:
        pass
    data[0x08:0x10] = ((int.from_bytes(data[0x08:0x10], "little") & 0x3FFFFFF) | 0x20000).to_bytes(
        8, "little"
    )
    data[0x41:0x48] = bytes(7)
    data[0x48] &= 0x1F
    data[0x49:0x50] = bytes(7)
    for first, end in (
        (0x18B, 0x1A0),
        (0x1EB, 0x1EC),
        (0x1EF, 0x1F0),
        (0x208, 0x2A0),
        (0x2D0, 0x2E8),
        (0x318, 0x4A0),
    ):
        data[first:end] = bytes(end - first)
    if version == 2:
        data[0x188:0x18B] = bytes(3)
    if version < 5:
        data[0x1F8:0x208] = bytes(16)
    report = snp_report.parse(bytes(data))
    assert report.signed == bytes(data[:0x2A0])
    assert report.report_data == bytes(data[0x50:0x90])
    assert report.signature == bytes(data[0x2A0:0x2D0])[::-1] + bytes(data[0x2E8:0x318])[::-1]


@often
@given(data=mutations(VEK, most=100))
def test_rule_15_certificates_parse_or_are_malformed(data):
    try:
        parsed = vek.parse(data)
        snp_product.read(data)
    except Malformed:
        return
    assert parsed.signed in data


@often
@given(
    extensions=st.dictionaries(st.sampled_from(["1", "2", "3.1", "3.8", "4", "5"]), st.binary(max_size=80))
)
def test_rule_15_amds_extensions_are_read_or_malformed(extensions):
    """Whatever AMD's extensions hold, in a certificate that parses otherwise."""
    from strongroom_testing.vendors import fake_amd

    chip = fake_amd.FakeAmd(now=scene.NOW)
    chip._extensions = lambda fault: [fake_amd._extension(name, value) for name, value in extensions.items()]
    try:
        snp_product.read(chip._certificate(None))
    except Malformed:
        return
    assert der.wrap(der.OCTET_STRING, extensions["2"]) in chip._certificate(None)
