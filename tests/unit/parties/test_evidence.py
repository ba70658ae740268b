"""Evidence by files: shown, compared, judged and judged again, each with what it must refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.errors import Malformed, PolicyDenied, Refused
from strongroom.model.binding import Preset
from strongroom.parties import evidence
from strongroom.parties.evidence import PolicyFiles
from strongroom_testing import evidence_folder
from strongroom_testing.evidence_folder import BINDING, LATER, NOW, REPORT_DATA


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("evidence")
    evidence_folder.write(where)
    return where


def judge(folder, **changes):
    asked = {
        "policy": PolicyFiles(path=folder / "policy.json"),
        "binding": BINDING,
        "now": NOW,
        "endorsements": folder / "tdx.endorsements.json",
        **changes,
    }
    return evidence.judge_evidence(folder / "quote.bin", **asked)


def test_judged_evidence_has_its_verdict_its_policy_and_the_question_that_it_answers(folder):
    judged = judge(folder)
    judged.require()
    assert (judged.evidence.tee, judged.policy, judged.known) == ("tdx", "test", "simulated")
    assert judged.nonce == REPORT_DATA
    assert judge(folder, binding=Preset(values={**BINDING.values, "nonce": b"n" * 16})).nonce == b"n" * 16


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"binding": Preset(values={"report_data": b"\xcd" * 64})}, "evidence.binding"),
        ({"binding": Preset(values={})}, "evidence.binding"),
        ({"endorsements": None}, "evidence.endorsements.missing"),
        ({"contract_digest": "sha256:" + "0" * 64}, "platform.contract"),
    ],
)
def test_a_denial_is_a_verdict_and_whoever_requires_more_gets_it_as_an_error(folder, changes, failed):
    judged = judge(folder, **changes)
    assert not judged.verdict.accepted
    assert [check.name for check in judged.verdict.failed] == [failed]
    with pytest.raises(PolicyDenied) as caught:
        judged.require()
    assert caught.value.verdict is judged.verdict


def test_devices_that_no_policy_asks_for_are_not_passed_over(folder):
    judged = judge(folder, devices=[folder / "report.bin"])
    assert len(judged.evidence.devices) == 1
    assert not judged.verdict.accepted


def test_a_reference_counts_for_its_signer_alone(folder):
    bare = {"path": folder / "bare.json", "references": [folder / "guest.reference.json"]}
    signed = PolicyFiles(**bare, trust=[folder / "maker.party.json"])
    judge(folder, policy=signed).require()
    with pytest.raises(Refused) as caught:
        judge(folder, policy=PolicyFiles(**bare, trust=[folder / "stranger.party.json"]))
    assert (caught.value.code, caught.value.file) == ("untrusted-reference", folder / "guest.reference.json")
    with pytest.raises(Refused, match="not signed by any key"):
        judge(folder, policy=PolicyFiles(**bare))
    with pytest.raises(
        Refused, match="not signed by any key"
    ):  # nobody vouches for a signed file by calling it unsigned
        judge(folder, policy=PolicyFiles(path=folder / "bare.json", vouched=bare["references"]))


@pytest.mark.parametrize("name", ["nothing.json", "policy.json", "maker.party.json"])
def test_a_file_without_evidence_is_malformed_and_named(folder, name):
    for call in (
        lambda: evidence.show_evidence(folder / name),
        lambda: evidence.compare_evidence(folder / "quote.bin", folder / name),
        lambda: evidence.judge_evidence(
            folder / name, policy=PolicyFiles(path=folder / "policy.json"), binding=BINDING, now=NOW
        ),
    ):
        with pytest.raises(Malformed) as caught:
            call()
        assert caught.value.file == folder / name


def test_a_policy_that_is_none_is_malformed_and_named(folder):
    with pytest.raises(Malformed) as caught:
        judge(folder, policy=PolicyFiles(path=folder / "quote.b64"))
    assert caught.value.file == folder / "quote.b64"


def test_what_is_shown_is_every_field_and_a_place_that_is_not_there_is_refused(folder):
    (shown,) = evidence.show_evidence(folder / "quote.pem")
    assert shown.recognised.evidence.tee == "tdx"
    assert any(REPORT_DATA.hex() in field.value for field in shown.fields)
    assert evidence.show_evidence(folder / "trustee.json", place=shown_place(folder)) != ()
    with pytest.raises(Malformed, match="nowhere"):
        evidence.show_evidence(folder / "trustee.json", place=".nowhere")


def shown_place(folder):
    (shown,) = evidence.show_evidence(folder / "trustee.json")
    return shown.recognised.place


def test_two_wrappings_of_one_quote_differ_in_their_kind_alone_and_another_quote_in_its_report_data(folder):
    assert [
        change.field for change in evidence.compare_evidence(folder / "quote.bin", folder / "quote.bin")
    ] == []
    changes = {
        change.field: (change.before, change.after)
        for change in evidence.compare_evidence(folder / "quote.bin", folder / "other.bin")
    }
    assert any(REPORT_DATA.hex() in (before or "") for before, _ in changes.values())
    snp = evidence.compare_evidence(folder / "quote.bin", folder / "report.bin")
    assert (
        {change.before is None for change in snp} == {change.after is None for change in snp} == {False, True}
    )


def test_a_forecast_ends_what_the_newer_endorsements_end(folder):
    asked = {
        "policy": PolicyFiles(path=folder / "policy.json"),
        "binding": BINDING,
        "endorsements": folder / "tdx.endorsements.json",
        "then": NOW,
    }
    same = evidence.forecast_evidence(
        folder / "quote.bin", newer=folder / "tdx.endorsements.json", later=NOW, **asked
    )
    same.require()
    assert same.before.accepted
    ended = evidence.forecast_evidence(
        folder / "quote.bin", newer=folder / "newer.endorsements.json", later=LATER, **asked
    )
    with pytest.raises(PolicyDenied) as caught:
        ended.require()
    assert caught.value.verdict is ended.after
    # What was never accepted has no acceptance to end.
    replace(ended, before=ended.after).require()
