"""TCB info and identities: exact bytes, strict reading, both versions, the comparison level by level."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Malformed
from strongroom.evidence import dcap_tcb
from strongroom_testing import fake_intel
from tests.unit.evidence.test_dcap import ENDORSED, GOOD, INTEL, refusal, verify

SGX = json.loads(dcap_tcb.split(ENDORSED["sgx"].parts["tcb-info"], "tcbInfo", what="x")[0])
TDX = json.loads(dcap_tcb.split(ENDORSED["tdx"].parts["tcb-info"], "tcbInfo", what="x")[0])
QE = json.loads(dcap_tcb.split(ENDORSED["sgx"].parts["qe-identity"], "enclaveIdentity", what="x")[0])
DOCUMENT = ENDORSED["sgx"].parts["tcb-info"]


def parsed(document, **changed):
    return dcap_tcb.parse_tcb_info(json.dumps({**document, **changed}, separators=(",", ":")).encode())


def version_2():
    """The same TCB info in the structure of version 2, which had its SVNs by name."""
    levels = []
    for level in SGX["tcbLevels"]:
        tcb = {
            f"sgxtcbcomp{at:02d}svn": one["svn"]
            for at, one in enumerate(level["tcb"]["sgxtcbcomponents"], start=1)
        }
        levels.append({**level, "tcb": {**tcb, "pcesvn": level["tcb"]["pcesvn"]}})
    rest = {name: value for name, value in SGX.items() if name != "id"}
    return {**rest, "version": 2, "tcbLevels": levels}


def test_version_2_says_the_same_as_version_3():
    assert parsed(version_2()) == parsed(SGX)
    old = version_2()
    del old["tcbLevels"][0]["tcb"]["sgxtcbcomp16svn"]
    with pytest.raises(Malformed):
        parsed(old)


def test_the_signature_is_over_the_exact_bytes_of_the_inner_object():
    inner, signature = dcap_tcb.split(DOCUMENT, "tcbInfo", what="x")
    assert b'{"tcbInfo":' + inner + b',"signature":"' + signature.hex().encode() + b'"}' == DOCUMENT
    assert refusal(GOOD["sgx", 3]) == "accepted"
    upper = DOCUMENT[:-130] + DOCUMENT[-130:-2].upper() + DOCUMENT[-2:]
    assert dcap_tcb.split(upper, "tcbInfo", what="x") == (inner, signature)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{}",
        DOCUMENT[:-1],
        DOCUMENT + b"\n",
        b" " + DOCUMENT,
        DOCUMENT.replace(b'{"tcbInfo":', b'{ "tcbInfo":'),
        DOCUMENT.replace(b'{"tcbInfo":', b'{"tcbinfo":'),
        DOCUMENT.replace(b',"signature":"', b', "signature":"'),
        DOCUMENT[:-4] + b'"}',
        DOCUMENT[:-4] + b'zz"}',
        DOCUMENT[:-4] + b'+1"}',
    ],
)
def test_documents_have_one_form_outside(bad):
    with pytest.raises(Malformed):
        dcap_tcb.split(bad, "tcbInfo", what="x")


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 4},
        {"version": True},
        {"version": "3"},
        {"id": "sgx"},
        {"id": "TDX"},  # without TDX components
        {"tcbType": 1},
        {"fmspc": "00906ed500"},
        {"fmspc": "00906ed5000g"},
        {"pceId": 0},
        {"issueDate": "2026-13-01T00:00:00Z"},
        {"nextUpdate": "2026-01-01T00:00:00+00:00"},
        {"nextUpdate": None},
        {"tcbEvaluationDataNumber": -1},
        {"tcbEvaluationDataNumber": 17.0},
        {"tcbLevels": {}},
    ],
)
def test_wrong_values_are_malformed(changed):
    assert parsed(SGX)
    with pytest.raises(Malformed):
        parsed(SGX, **changed)


@pytest.mark.parametrize("svn", [-1, 256, 1.0, "1", None, True, {}])
def test_components_are_numbers_of_one_byte(svn):
    level = json.loads(json.dumps(TDX["tcbLevels"][0]))
    for name in ("sgxtcbcomponents", "tdxtcbcomponents"):
        changed = json.loads(json.dumps(level))
        changed["tcb"][name][3] = {"svn": svn}
        with pytest.raises(Malformed):
            parsed(TDX, tcbLevels=[changed])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 1),
        ("id", 5),
        ("miscselect", "0000"),
        ("attributes", "11"),
        ("attributesMask", 0),
        ("mrsigner", "00" * 31),
        ("isvprodid", 65536),
        ("tcbLevels", []),
    ],
)
def test_wrong_values_of_an_identity_are_malformed(name, value):
    assert dcap_tcb.parse_identity(json.dumps(QE).encode())
    with pytest.raises(Malformed):
        dcap_tcb.parse_identity(json.dumps({**QE, name: value}).encode())


def test_what_intel_adds_is_passed_over():
    assert parsed(SGX, tomorrow={"a": 1.5}) == parsed(SGX)


@pytest.mark.parametrize("at", range(16))
def test_every_component_must_reach_its_level(at):
    info = parsed(SGX)
    components = fake_intel.COMPONENTS
    if not components[at]:
        return
    lower = components[:at] + bytes([components[at] - 1]) + components[at + 1 :]
    assert dcap_tcb.match(info, components, fake_intel.PCE_SVN, None).status == "UpToDate"
    found = dcap_tcb.match(info, lower, fake_intel.PCE_SVN, None)
    assert found is None or found.status == "OutOfDate"


def test_levels_are_asked_from_the_newest_and_no_level_is_no_status():
    info, components = parsed(SGX), fake_intel.COMPONENTS
    assert dcap_tcb.match(info, components, 13, None).status == "UpToDate"
    assert dcap_tcb.match(info, components, 12, None).status == "OutOfDate"
    assert dcap_tcb.match(info, components, 11, None).advisories == ("INTEL-SA-00001",)
    assert dcap_tcb.match(info, components, 10, None) is None
    assert dcap_tcb.match(info, bytes(16), 13, None) is None
    assert dcap_tcb.match(info, b"\xff" * 15, 13, None) is None, "fewer components never cover"


@pytest.mark.parametrize("status", sorted(dcap_tcb._STATUSES))
def test_a_quoting_enclaves_status_lowers_the_platforms_as_intel_says(status):
    assert dcap_tcb.converge(status, "UpToDate") == status
    assert dcap_tcb.converge(status, "Revoked") == "Revoked"
    expected = {
        "UpToDate": "OutOfDate",
        "SWHardeningNeeded": "OutOfDate",
        "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    }
    assert dcap_tcb.converge(status, "OutOfDate") == expected.get(status, status)


@pytest.mark.parametrize("status", sorted(dcap_tcb._STATUSES - {"Revoked"}))
def test_each_status_but_revoked_is_a_claim(status):
    level = fake_intel.level(fake_intel.COMPONENTS, 13, None, status, "INTEL-SA-9")
    claims = verify(GOOD["sgx", 3], INTEL.endorsements(tee="sgx", tcb={"tcbLevels": [level]}))
    assert (claims.status, claims.advisories) == (status, ("INTEL-SA-9",))
