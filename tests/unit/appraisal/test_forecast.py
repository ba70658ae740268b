"""Evidence judged by a policy file, and forecasts: what newer word of the vendor ends, when, and what to update."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.appraisal.evaluate import evaluate
from strongroom.appraisal.forecast import forecast
from strongroom.appraisal.wording.sentences import explain
from strongroom.encoding import canonical, fields
from strongroom.evidence import verify
from strongroom.model.binding import Preset
from strongroom.model.contracts import policy_file
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.verdict import read_checks
from strongroom_testing import evidence_folder
from strongroom_testing.evidence_folder import BINDING, LATER, NOW
from strongroom_testing.vendors import fake_intel
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_intel import FakeIntel

INTEL = FakeIntel(now=NOW)
EVIDENCE, OLD = INTEL.evidence(BINDING), INTEL.endorsements()
CLAIMS = verify.verify(EVIDENCE, OLD, binding=BINDING, roots=frozenset({INTEL.root_digest}), now=NOW)
NEWER = evidence_folder.newer(INTEL)
WAIVED = ["td_attributes.sept_ve_disable"]


def policy(**rules):
    value = {
        "format": "strongroom-policy/1",
        "name": "test",
        "platforms": [evidence_folder.platform(CLAIMS, **{"waived": WAIVED, **rules})],
    }
    return policy_file.parse(json.dumps(value).encode(), pinned=lambda _: frozenset())


def judge(evidence=EVIDENCE, endorsements=OLD, *, rules=None, binding=BINDING, now=NOW, **more):
    return evaluate(evidence, endorsements, rules or policy(), binding=binding, now=now, **more)


def ahead(newer=NEWER, **rules):
    return forecast(EVIDENCE, OLD, newer, policy(**rules), binding=BINDING, then=NOW, later=LATER)


def names(appraisal):
    return [check.name for check in appraisal.failed]


def test_sound_evidence_is_accepted_and_the_verdict_is_a_verdicts_object():
    made = judge()
    assert made.accepted
    value = made.to_json()
    assert value["result"] == "accepted"
    assert value["policy"] == policy().digest
    assert read_checks(fields.Fields(value, "verdict")) == made.checks
    assert canonical.dumps(value) == canonical.dumps(judge().to_json())


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"binding": Preset(values={"report_data": bytes(64)})}, "evidence.binding"),
        ({"binding": Preset(values={})}, "evidence.binding"),
        ({"endorsements": NONE}, "evidence.endorsements.missing"),
        ({"now": NOW + timedelta(days=60)}, "evidence.pck-crl.validity"),
        ({"evidence": replace(EVIDENCE, parts={"quote": b"?"})}, "evidence.format"),
        ({"evidence": replace(EVIDENCE, tee="other")}, "evidence.tee"),
        ({"contract_digest": "sha256:" + "11" * 32}, "platform.contract"),
        ({"evidence": replace(EVIDENCE, devices=(EVIDENCE,))}, "evidence.devices.count"),
        ({"rules": policy(facts={"td_report": "1.5"})}, "platform.fact.td_report"),
        ({"rules": policy(tcb={"qe.svn": 255})}, "platform.tcb.qe.svn"),
    ],
)
def test_a_denial_names_its_check(changes, check):
    made = judge(**changes)
    assert not made.accepted
    assert names(made) == [check]
    assert explain(made.failed[0]).hint
    assert made.to_json()["result"] == "denied"


def test_an_empty_verdict_accepts_nothing():
    assert not replace(judge(), checks=()).accepted
    assert not replace(judge(), claims=None).accepted


def test_a_forecast_says_what_stops_when_and_what_to_update():
    made = ahead()
    assert made.before.accepted
    assert not made.after.accepted
    stops = {one.check: one for one in made.stops}
    since = LATER - timedelta(days=1)
    assert stops["platform.status"].when == since
    assert "will be OutOfDate" in stops["platform.status"].reason
    assert stops["platform.advisory.INTEL-SA-09999"].when == since
    assert stops["endorsements.tcb_info_next_update"].when == NOW + timedelta(days=29)
    assert all(one.fix for one in made.stops)
    assert [(one.component, one.has, one.needs, one.what) for one in made.updates] == [
        ("sgx.01", 7, 8, "BIOS: Early Microcode Update"),
        ("qe.svn", 8, 9, "the quoting enclave (DCAP packages of the host)"),
    ]
    assert canonical.dumps(made.to_json())


def test_allowances_end_on_their_dates():
    soon = NOW + timedelta(days=5)
    text = fields.format_time(soon)
    rules = {"status": {"UpToDate": text, "OutOfDate": "2027-06-01T00:00:00Z"}}
    stops = {one.check: one for one in ahead(**rules).stops}
    assert stops["platform.status"].when == soon
    made = ahead(**rules, advisories={"INTEL-SA-09999": "2027-06-01T00:00:00Z"})
    assert made.after.accepted
    ended = ahead(**rules, advisories={"INTEL-SA-09999": fields.format_time(LATER)})
    assert names(ended.after) == ["platform.advisory.INTEL-SA-09999"]


def test_the_same_word_changes_nothing():
    made = forecast(EVIDENCE, OLD, OLD, policy(), binding=BINDING, then=NOW, later=NOW)
    assert {one.check for one in made.stops} == {"endorsements.tcb_info_next_update"}
    assert made.updates == ()


def test_a_platform_below_every_level_is_told_what_it_lacks():
    newest = fake_intel.level(
        bytes([9, 9]) + fake_intel.COMPONENTS[2:],
        fake_intel.PCE_SVN + 1,
        bytes([6, 1, 9]) + bytes(13),
        "UpToDate",
    )
    INTEL.now = LATER
    made = ahead(INTEL.endorsements(tcb={"tcbLevels": [newest]}))
    assert names(made.after) == ["evidence.tcb.level"]
    assert {one.component for one in made.updates} == {"sgx.01", "pce.svn", "tdx.03"}


@pytest.mark.parametrize(
    "newer",
    [NONE, Endorsements(parts={"tcb-info": b"?"}), Endorsements(parts={**NEWER.parts, "qe-identity": b"{}"})],
)
def test_damaged_newer_endorsements_are_a_denial_not_a_crash(newer):
    made = ahead(newer)
    assert not made.after.accepted
    assert any(one.check.startswith("evidence.") for one in made.stops)


def test_other_vendors_are_forecast_by_minimums():
    amd = FakeAmd(now=NOW, line="Genoa")
    evidence, endorsements = amd.evidence(BINDING), amd.endorsements()
    claims = verify.verify(evidence, endorsements, binding=BINDING, roots=frozenset({amd.root}), now=NOW)
    value = {
        "format": "strongroom-policy/1",
        "name": "test",
        "platforms": [evidence_folder.platform(claims, tcb={"committed.snp": 255})],
    }
    rules = policy_file.parse(json.dumps(value).encode(), pinned=lambda _: frozenset())
    made = forecast(evidence, endorsements, endorsements, rules, binding=BINDING, then=NOW, later=NOW)
    assert "platform.tcb.committed.snp" in names(made.before)
    assert made.updates == ()
    assert any(one.check == "endorsements.crl_next_update" for one in made.stops)
