"""One verdict from agreement and evidence: the order, and that every failure is an explained check."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.appraisal import judge as judge_file
from strongroom.appraisal.judge import judge, with_runs_used
from strongroom.appraisal.wording.sentences import explain
from strongroom.encoding import fields
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom.model.verdict import Accepted, Check, Denied, read_checks
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm
from strongroom_testing.vendors.fake_tpm import REFUSED_BY, Fault
from tests.unit.appraisal.a_judgement import AGREEMENT, GATES, SCENE, binding

NOW = SCENE.now
BAD_GATE = Check(name="nonce", expected="fresh", got="used", ok=False)


def decide(evidence=None, agreement=AGREEMENT, *, tpm=SCENE.tpm, endorsements=NONE, bound=None, **changed):
    bound = bound or binding(agreement)
    return judge(
        agreement,
        tpm.evidence(bound) if evidence is None else evidence,
        endorsements,
        binding=bound,
        **{"gates": GATES, "runs_used": 0, "now": NOW, "lifetime": timedelta(hours=1), **changed},
    )


def failed(verdict) -> list[str]:
    assert isinstance(verdict, Denied)
    assert all(told.hint and told.expected and told.got for told in map(explain, verdict.failed))
    return [check.name for check in verdict.failed]


def test_a_sound_room_is_accepted_with_every_check_told():
    verdict = decide()
    assert isinstance(verdict, Accepted)
    names = [check.name for check in verdict.checks]
    assert names[0] == "nonce"
    assert names.index("contract.runs") < names.index("evidence.verified") < names.index("platform.tee")
    assert len(set(names)) == len(names)
    # The ledger keeps the record form; it reads back.
    assert read_checks(fields.Fields(verdict.to_json(), "verdict")) == verdict.checks


@pytest.mark.parametrize("fault", list(Fault))
def test_refused_evidence_becomes_a_failed_check(fault):
    verdict = decide(SCENE.tpm.evidence(binding(), fault=fault))
    assert failed(verdict) == [f"evidence.{REFUSED_BY[fault]}"]
    assert verdict.claims is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        *(
            ({part: fake_tpm.digest("other")}, f"platform.reference.{part}")
            for part in ("firmware", "kernel", "initrd", "cmdline")
        ),
        ({"machine": "microvm"}, "platform.reference.machine"),
        ({"memory_guard": False}, "platform.memory_guard"),
    ],
    ids=str,
)
def test_rule_26_each_measured_input_of_the_launch_is_judged(change, name):
    record = replace(fake_tpm.RECORD, **change)
    verdict = decide(SCENE.tpm.evidence(binding(), record=record))
    assert failed(verdict) == [name]
    assert verdict.claims is not None


def test_another_nodes_root_is_refused():
    assert failed(decide(tpm=fake_tpm.FakeTpm(now=NOW))) == ["evidence.chain.root"]


def test_replayed_evidence_is_refused():
    old = SCENE.tpm.evidence(binding(nonce=b"o" * 32))
    assert failed(decide(old)) == ["evidence.binding"]


def test_evidence_for_another_contract_is_refused():
    other = SCENE.agreement(lambda one: replace(one, id="other"))
    evidence = SCENE.tpm.evidence(binding(other))
    assert failed(decide(evidence)) == ["evidence.binding"]
    # Claimed to be bound to the other contract, it verifies, and is denied under this one.
    assert failed(decide(evidence, bound=binding(other))) == ["binding.contract", "platform.contract"]


def test_the_evidence_is_not_looked_at_when_a_check_before_it_failed(monkeypatch):
    def never(*arguments, **named):
        raise AssertionError("looked at")

    monkeypatch.setattr(judge_file.devices, "verify_with_devices", never)
    assert failed(decide(gates=(BAD_GATE,))) == ["nonce", "evidence.verified"]
    assert failed(decide(runs_used=2)) == ["contract.runs", "evidence.verified"]
    assert failed(decide(now=NOW + timedelta(days=2))) == ["contract.validity", "evidence.verified"]
    unsigned = SCENE.agreement(signers=("bob",))
    assert failed(decide(agreement=unsigned)) == [
        "contract.approvals",
        "contract.approvals.alice",
        "evidence.verified",
    ]
    with pytest.raises(AssertionError, match="looked at"):
        decide()


def test_without_gates_there_is_no_acceptance():
    assert failed(decide(gates=())) == ["verdict.gates", "evidence.verified"]


def test_rule_35_a_tee_that_the_contract_does_not_name_is_refused():
    snp_only = SCENE.agreement(
        lambda one: replace(one, platforms=(replace(one.platforms[0], tee="snp", simulated=False),))
    )
    verdict = decide(agreement=snp_only)
    assert failed(verdict) == ["evidence.root"]
    assert "no platform for tpm" in explain(verdict.failed[0]).hint


def test_rule_33_an_unknown_tee_is_refused_even_if_the_contract_names_it():
    sample = SCENE.agreement(lambda one: replace(one, platforms=(replace(one.platforms[0], tee="sample"),)))
    evidence = Evidence(tee="sample", parts=SCENE.tpm.evidence(binding(sample)).parts)
    assert failed(decide(evidence, sample)) == ["evidence.tee"]


def test_rule_33_simulated_evidence_is_refused_where_the_contract_wants_hardware():
    strict = SCENE.agreement(
        lambda one: replace(one, platforms=(replace(one.platforms[0], simulated=False),))
    )
    assert failed(decide(agreement=strict)) == ["platform.simulated"]


def test_roots_of_one_tee_do_not_count_for_another():
    theirs = fake_tpm.FakeTpm(now=NOW)

    def two(contract):
        own = contract.platforms[0]
        return replace(contract, platforms=(own, replace(own, tee="snp", roots=(theirs.root,))))

    agreement = SCENE.agreement(two)
    assert failed(decide(agreement=agreement, tpm=theirs)) == ["evidence.chain.root"]


def test_the_root_of_one_platform_does_not_serve_the_reference_of_another():
    theirs = fake_tpm.FakeTpm(now=NOW)

    def two(contract):
        own = contract.platforms[0]
        other = {**fake_tpm.RECORD.reference(), "kernel": fake_tpm.digest("other")}
        return replace(contract, platforms=(own, replace(own, roots=(theirs.root,), references=(other,))))

    agreement = SCENE.agreement(two)
    assert isinstance(decide(agreement=agreement), Accepted)
    verdict = decide(agreement=agreement, tpm=theirs)
    assert len(failed(verdict)) == 1
    assert failed(verdict)[0] in {"platform.root", "platform.reference.kernel"}


def test_endorsements_that_no_verifier_reads_are_refused():
    assert failed(decide(endorsements=Endorsements(parts={"crl": b"x"}))) == ["evidence.parts"]


def test_a_verdict_is_the_same_each_time():
    evidence = SCENE.tpm.evidence(binding())
    assert decide(evidence) == decide(evidence)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"gates": (BAD_GATE,)},
        {"now": NOW + timedelta(days=400)},
        {"evidence": SCENE.tpm.evidence(binding(nonce=b"m" * 32))},
        {"agreement": SCENE.agreement(lambda one: replace(one, platforms=(contracts.platform(SCENE.tpm, machines=(fake_tpm.digest("x"),)),)))},
    ],
    ids=["sound", "gate", "term", "evidence", "platform"],
)  # fmt: skip
def test_runs_counted_in_later_give_the_verdict_that_judging_anew_would(changed):
    agreement = changed.get("agreement", AGREEMENT)
    changed = {"evidence": SCENE.tpm.evidence(binding(agreement)), **changed}
    permitted = agreement.contract.limits.runs
    for before, after in (
        (0, 0),
        (0, permitted - 1),
        (0, permitted),
        (0, permitted + 5),
        (permitted, permitted + 1),
    ):
        told = with_runs_used(decide(runs_used=before, **changed), agreement, runs_used=after)
        assert told == decide(runs_used=after, **changed)


def test_runs_that_were_too_many_do_not_become_fewer():
    verdict = decide(runs_used=AGREEMENT.contract.limits.runs)
    assert isinstance(with_runs_used(verdict, AGREEMENT, runs_used=0), Denied)
