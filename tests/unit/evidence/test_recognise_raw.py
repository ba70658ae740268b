"""Every kind of raw evidence against every recogniser: exactly one says yes, and magic letters alone are none."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import pytest

from strongroom.errors import Malformed
from strongroom.evidence.wrappings import recognise_raw
from strongroom.evidence.wrappings.recognise import recognise
from strongroom.model.binding import Preset
from strongroom_testing.evidence_folder import NOW, REPORT_DATA
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_aws import FakeAws
from strongroom_testing.vendors.fake_azure import FakeAzure
from strongroom_testing.vendors.fake_cca import FakeCca
from strongroom_testing.vendors.fake_google import FakeGoogle
from strongroom_testing.vendors.fake_intel import FakeIntel
from strongroom_testing.vendors.fake_nvidia import FakeGpu
from tests.unit.evidence.tpm_evidence import GOOD

BINDING = Preset(
    values={"report_data": REPORT_DATA, "nonce": b"n" * 32, "extra_data": b"x" * 32, "challenge": REPORT_DATA}
)
VECTORS = Path(__file__).parents[4] / "shared/vectors"
INTEL = FakeIntel(now=NOW)
REPORT = FakeAmd(now=NOW).evidence(BINDING).parts["report"]


def fakes():
    """A whole one of each kind in the table, by the kind's name."""
    aws = Preset(values={"user_data": b"x", "nonce": b"n" * 32, "public_key": b"k"})
    made = {
        "SNP report": REPORT,
        "SNP report in the driver's answer": struct.pack("<II", 0, len(REPORT)) + bytes(24) + REPORT,
        "HCL report of an Azure VM": FakeAzure.over("snp", now=NOW).evidence(BINDING).parts["hcl-report"],
        "Nitro attestation document": FakeAws(now=NOW).evidence(aws).parts["document"],
        "CCA token": FakeCca().evidence(BINDING).parts["token"],
        "SPDM measurements of an NVIDIA device": FakeGpu(now=NOW).evidence(BINDING).parts["report"],
        "TPM quote": FakeGoogle(now=NOW).evidence(BINDING).parts["quote"],
    }
    for tee, version in (("sgx", 3), ("sgx", 4), ("sgx", 5), ("tdx", 4), ("tdx", 5)):
        quote = INTEL.evidence(BINDING, tee=tee, version=version).parts["quote"]
        made[f"{tee.upper()} quote, version {version}"] = quote
    return made


FAKES = fakes()
MAGIC = {
    "SNP report": b"\2\0\0\0",
    "HCL report of an Azure VM": b"HCLA",
    "Nitro attestation document": b"\x84\x44\xa1\x01\x38\x22\xa0\x59\x10\x00\xa9\x69module_id",
    "CCA token": b"\xd9\x01\x8f\xa2\x19\xac\xca\x19\xac\xd1",
    "SPDM measurements of an NVIDIA device": b"\x11\xe0\x01\xff" + bytes(33) + b"\x11\x60",
    "TPM quote": b"\xff\x54\x43\x47\x80\x18",
    "SGX quote, version 3": FAKES["SGX quote, version 3"][:48],
    "TDX quote, version 4": FAKES["TDX quote, version 4"][:48],
}


def kinds_of(data):
    return [
        kind
        for kind, _, _, least, most, matches in recognise_raw.KINDS
        if len(data) >= least and (content := matches(data)) is not None and len(content) <= most
    ]


def test_every_kind_of_the_table_has_a_fake():
    assert FAKES.keys() == {kind for kind, *_ in recognise_raw.KINDS}


@pytest.mark.parametrize("kind", FAKES)
def test_exactly_one_recogniser_says_yes(kind):
    assert kinds_of(FAKES[kind]) == [kind]


@pytest.mark.parametrize("kind", FAKES)
def test_a_whole_one_is_recognised_in_every_wrapping(kind):
    data = FAKES[kind]
    for text in (data, data.hex().encode(), base64.b64encode(data), json.dumps({"a": [list(data)]}).encode()):
        assert recognise(text).kind == kind


OTHERS = {
    "event log": GOOD.parts["event-log"],
    "signature": GOOD.parts["signature"],
    "PCRs": FakeGoogle(now=NOW).evidence(BINDING).parts["pcrs"],
    "certificates": FakeGpu(now=NOW).evidence(BINDING).parts["certificates"],
    **{f"endorsement {name}": part for name, part in INTEL.endorsements(tee="tdx").parts.items()},
    **{f"endorsement {name}": part for name, part in FakeAmd(now=NOW).endorsements().parts.items()},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_evidence_by_itself_is_of_no_kind(name):
    assert kinds_of(OTHERS[name]) == []
    with pytest.raises(Malformed, match="of no kind that is known here"):
        recognise(OTHERS[name])


@pytest.mark.parametrize("kind", MAGIC)
def test_magic_alone_is_no_evidence_and_hides_none(kind):
    """Eight letters within Azure's JSON once passed for an HCL report, and hid the report of the hardware."""
    short = MAGIC[kind]
    (least,) = (one[3] for one in recognise_raw.KINDS if one[0] == kind)
    for junk in (short, short.ljust(48, b"\0"), short.ljust(least - 1, b"\0")):
        assert kinds_of(junk) == []
        for text in (junk.hex(), base64.b64encode(junk).decode(), list(junk)):
            with pytest.raises(Malformed, match="of no kind that is known here"):
                recognise(json.dumps({"kid": text}).encode())
            found = recognise(json.dumps({"kid": text, "hwReport": REPORT.hex()}).encode())
            assert found.evidence.parts == {"report": REPORT}


@pytest.mark.parametrize("name", ["HCLAkPub", "HCLA", "HCLAttestation" * 20])
def test_names_that_begin_like_magic_are_names(name):
    value = {"runtimeClaims": {"keys": [{"kid": name, "kty": "RSA"}]}}
    with pytest.raises(Malformed, match="of no kind that is known here"):
        recognise(json.dumps(value).encode())
    assert recognise(json.dumps({**value, "hwReport": REPORT.hex()}).encode()).place == ".hwReport"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the recorded evidence is not beside the project")
def test_every_recorded_file_is_of_one_kind_at_most():
    seen = set()
    for path in VECTORS.glob("*/*/*"):
        if path.is_file() and path.stat().st_size <= 1 << 22:
            kinds = kinds_of(path.read_bytes())
            assert len(kinds) <= 1, (path.name, kinds)
            seen.update(kinds)
    assert len(seen) > 8
