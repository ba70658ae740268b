"""TCB info and identities: exact bytes, strict reading, both versions, the comparison level by level."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import Malformed
from strongroom.evidence.formats import dcap_tcb
from strongroom_testing.vendors import fake_intel
from tests.unit.evidence.dcap_evidence import ENDORSED, GOOD, INTEL, refusal, verified

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
    with pytest.raises(Malformed, match="key 'sgxtcbcomp16svn' is missing"):
        parsed(old)


def test_the_signature_is_over_the_exact_bytes_of_the_inner_object():
    inner, signature = dcap_tcb.split(DOCUMENT, "tcbInfo", what="x")
    assert b'{"tcbInfo":' + inner + b',"signature":"' + signature.hex().encode() + b'"}' == DOCUMENT
    assert refusal(GOOD["sgx", 3]) == "accepted"
    upper = DOCUMENT[:-130] + DOCUMENT[-130:-2].upper() + DOCUMENT[-2:]
    assert dcap_tcb.split(upper, "tcbInfo", what="x") == (inner, signature)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (b"{}", 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (DOCUMENT[:-1], 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (DOCUMENT + b"\n", 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (b" " + DOCUMENT, 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (
            DOCUMENT.replace(b'{"tcbInfo":', b'{ "tcbInfo":'),
            'not ."tcbInfo":.….,"signature":"…". with nothing',
        ),
        (
            DOCUMENT.replace(b'{"tcbInfo":', b'{"tcbinfo":'),
            'not ."tcbInfo":.….,"signature":"…". with nothing',
        ),
        (
            DOCUMENT.replace(b',"signature":"', b', "signature":"'),
            'not ."tcbInfo":.….,"signature":"…". with nothing',
        ),
        (DOCUMENT[:-4] + b'"}', 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (DOCUMENT[:-4] + b'zz"}', "the signature is not hexadecimal"),
        (DOCUMENT[:-2] + b'"]', 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (DOCUMENT[:-4] + b'aB"}', "the signature is not 128 hexadecimal digits of one case"),
        (b"x" * (dcap_tcb.MAX_DOCUMENT + 1), "262145 bytes, at most 262144 allowed"),
        (b"x" * dcap_tcb.MAX_DOCUMENT, 'not ."tcbInfo":.….,"signature":"…". with nothing'),
        (DOCUMENT[:-4] + b'+1"}', "the signature is not 128 hexadecimal digits of one case"),
    ],
)
def test_documents_have_one_form_outside(bad, why):
    with pytest.raises(Malformed, match=why):
        dcap_tcb.split(bad, "tcbInfo", what="x")


@pytest.mark.parametrize("digits", range(2, 64, 2))
def test_a_document_too_short_for_a_signature_is_none(digits):
    """With fewer digits than a signature has, its places would be counted from the document's end."""
    start, tail = b'{"tcbInfo":', b',"signature":"'
    inner = b"x" * (128 - digits - len(start) - len(tail) - digits - 2)
    short = start + inner + tail + b"a" * digits + b'"}'
    with pytest.raises(Malformed, match=r'not ."tcbInfo":.….,"signature":"…". with nothing'):
        dcap_tcb.split(short, "tcbInfo", what="x")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"version": 4}, "version: expected an integer from 0 to 3"),
        ({"version": True}, "version: expected an integer from 0 to 3"),
        ({"version": "3"}, "version: expected an integer from 0 to 3"),
        ({"id": "sgx"}, "id: expected SGX or TDX, got 'sgx'"),
        ({"id": "TDX"}, "key 'tdxtcbcomponents' is missing"),  # without TDX components
        ({"tcbType": 1}, "tcbType: expected 0, whose rules of comparison are known, got"),
        ({"fmspc": "00906ed500"}, "fmspc: expected 6 bytes in hexadecimal"),
        ({"fmspc": "00906ed5000g"}, "fmspc: expected 6 bytes in hexadecimal"),
        ({"pceId": 0}, "pceId: expected 2 bytes in hexadecimal"),
        ({"issueDate": "2026-13-01T00:00:00Z"}, "issueDate: expected a date and time that exist, got"),
        (
            {"nextUpdate": "2026-01-01T00:00:00+00:00"},
            "nextUpdate: expected a UTC time like 2026-12-31T00:00:00Z, got",
        ),
        ({"nextUpdate": None}, "nextUpdate: expected a UTC time like 2026-12-31T00:00:00Z, got"),
        ({"tcbEvaluationDataNumber": -1}, "tcbEvaluationDataNumber: expected an integer from 0 to"),
        ({"tcbEvaluationDataNumber": 17.0}, "tcbEvaluationDataNumber: expected an integer from 0 to"),
        ({"tcbLevels": {}}, "tcbLevels: expected a list of 1 to 256"),
    ],
)
def test_wrong_values_are_malformed(changed, why):
    assert parsed(SGX)
    with pytest.raises(Malformed, match=why):
        parsed(SGX, **changed)


@pytest.mark.parametrize("svn", [-1, 256, 1.0, "1", None, True, {}])
def test_components_are_numbers_of_one_byte(svn):
    level = json.loads(json.dumps(TDX["tcbLevels"][0]))
    for name, why in (
        ("sgxtcbcomponents", "sgxtcbcomponents: expected an SVN from 0 to 255 in each"),
        ("tdxtcbcomponents", "tdxtcbcomponents: expected an SVN from 0 to 255 in each"),
    ):
        changed = json.loads(json.dumps(level))
        changed["tcb"][name][3] = {"svn": svn}
        with pytest.raises(Malformed, match=why):
            parsed(TDX, tcbLevels=[changed])


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("version", 1, "version .*, expected 2"),
        ("id", 5, "id: expected 1 to 64 printable ASCII characters, got"),
        ("miscselect", "0000", "miscselect: expected 4 bytes in hexadecimal"),
        ("attributes", "11", "attributes: expected 16 bytes in hexadecimal"),
        ("attributesMask", 0, "attributesMask: expected 16 bytes in hexadecimal"),
        ("mrsigner", "00" * 31, "mrsigner: expected 32 bytes in hexadecimal"),
        ("isvprodid", 65536, "isvprodid: expected an integer from 0 to"),
        ("tcbLevels", [], "tcbLevels: expected a list of 1 to 256"),
    ],
)
def test_wrong_values_of_an_identity_are_malformed(name, value, why):
    assert dcap_tcb.parse_identity(json.dumps(QE).encode())
    with pytest.raises(Malformed, match=why):
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
    claims = verified(GOOD["sgx", 3], INTEL.endorsements(tee="sgx", tcb={"tcbLevels": [level]}))
    assert (claims.status, claims.advisories) == (status, ("INTEL-SA-9",))
