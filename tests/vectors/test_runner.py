"""The runner itself: it skips nothing, passes nothing over, and tells a wrong verdict, whichever way it is wrong."""

from __future__ import annotations

import json
import re
import types
from dataclasses import replace

import pytest

from strongroom.errors import EvidenceRefused
from strongroom.model.binding import Preset
from strongroom.model.evidence import Evidence
from tests.unit.evidence import gcp_evidence as scene
from tests.vectors import __main__ as command
from tests.vectors import runner
from tests.vectors.loaded import Loaded

GOOD = Loaded(
    now=scene.NOW,
    evidence=scene.GOOD,
    binding=Preset(values={"extra_data": scene.BOUND.value("extra_data")}),
    roots=frozenset({scene.GOOGLE.root}),
)
BAD = replace(GOOD, binding=Preset(values={"extra_data": bytes(32)}))
EMPTY = replace(GOOD, evidence=None)


def refuse() -> None:
    raise EvidenceRefused("signature", expected="one", got="another")


def fall_over() -> None:
    raise ZeroDivisionError


def give(loaded):
    if isinstance(loaded, Loaded):
        return loaded
    raise loaded


def outcome(tmp_path, monkeypatch, loaded, verdict, **labels):
    """One case of a TEE whose adapter gives `loaded` (or raises it), labelled `verdict`."""
    folder = tmp_path / "some" / "case"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps({"expected": {"verdict": verdict, **labels}}))
    adapter = types.SimpleNamespace(load=lambda _path, _case: give(loaded))
    monkeypatch.setattr(runner, "importlib", types.SimpleNamespace(import_module=lambda _name: adapter))
    (result,) = runner.run(tmp_path)
    return result


@pytest.mark.parametrize(
    ("loaded", "verdict", "state"),
    [
        (GOOD, "accept", runner.AGREES),
        (GOOD, "reject", runner.MISMATCH),
        (GOOD, "crypto_valid", runner.AGREES),
        (GOOD, "accept-partial", runner.AGREES),
        (GOOD, "unknown", runner.MISMATCH),
        (GOOD, "anything else", runner.MISMATCH),
        (BAD, "accept", runner.MISMATCH),
        (BAD, "reject", runner.AGREES),
        (BAD, "crypto_valid", runner.MISMATCH),
        (BAD, "unknown", runner.MISMATCH),
        (EMPTY, "accept", runner.MISMATCH),
        (EMPTY, "reject", runner.MISMATCH),
        (replace(EMPTY, partial=lambda: None), "accept", runner.AGREES),
        (replace(EMPTY, partial=lambda: None), "accept-partial", runner.AGREES),
        (replace(EMPTY, partial=lambda: None), "unknown", runner.MISMATCH),  # a signature was verified
        (replace(EMPTY, partial=lambda: None, signed=False), "unknown", runner.AGREES),
        (replace(EMPTY, partial=lambda: None, signed=False), "accept", runner.MISMATCH),
        (replace(EMPTY, partial=lambda: None, signed=False), "accept-partial", runner.MISMATCH),
        (replace(EMPTY, partial=lambda: None, signed=False), "crypto_valid", runner.MISMATCH),
        (replace(EMPTY, partial=lambda: None), "reject", runner.MISMATCH),
        (replace(EMPTY, partial=refuse), "reject", runner.AGREES),
        (replace(EMPTY, partial=refuse), "accept", runner.MISMATCH),
        (replace(EMPTY, partial=refuse), "unknown", runner.MISMATCH),
        (replace(EMPTY, partial=fall_over), "reject", runner.MISMATCH),
        (replace(GOOD, partial=lambda: None), "unknown", runner.MISMATCH),  # accepted, though no key is known
        (replace(BAD, partial=lambda: None, signed=False), "unknown", runner.AGREES),
        (replace(GOOD, others=(BAD,)), "accept", runner.MISMATCH),
        (replace(GOOD, others=(GOOD, BAD)), "reject", runner.AGREES),
        (replace(GOOD, others=(GOOD,)), "accept", runner.AGREES),
        (replace(GOOD, evidence=Evidence(tee="none such", parts={})), "reject", runner.AGREES),
        (
            replace(GOOD, evidence=Evidence(tee="gcp", parts={"quote": None})),
            "reject",
            runner.AGREES,
        ),  # parts
        (replace(GOOD, binding=None), "reject", runner.MISMATCH),  # our own error is no refusal
        (EvidenceRefused("chain.root", expected="one", got="another"), "reject", runner.AGREES),
        (ValueError("the adapter's own error"), "reject", runner.MISMATCH),
        (ValueError("the adapter's own error"), "accept", runner.MISMATCH),
    ],
)
def test_each_case_agrees_or_is_told(tmp_path, monkeypatch, loaded, verdict, state):
    assert outcome(tmp_path, monkeypatch, loaded, verdict).state == state


def test_strict_verdict_status_and_advisories_are_compared(tmp_path, monkeypatch):
    def state(**labels):
        return outcome(tmp_path, monkeypatch, GOOD, "accept", **labels).state

    assert state(strict_verdict="accept", tcb_status="", advisory_ids=[]) == runner.AGREES
    assert state(strict_verdict="reject") == runner.MISMATCH
    assert state(tcb_status="UpToDate") == runner.MISMATCH
    assert state(advisory_ids=["INTEL-SA-00001"]) == runner.MISMATCH


def test_a_tee_without_an_adapter_and_a_folder_without_a_label_are_mismatches(tmp_path):
    (tmp_path / "unheard-of" / "case").mkdir(parents=True)
    (tmp_path / "unheard-of" / "case" / "case.json").write_text('{"expected": {"verdict": "reject"}}')
    (tmp_path / "gcp" / "case").mkdir(parents=True)
    assert [result.state for result in runner.run(tmp_path)] == [runner.MISMATCH] * 2


def test_disagreements_are_argued_for_the_projects_own_folder_and_stay_true(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("### `some/case`: reject\nThe specification says so.\n")
    monkeypatch.setattr(runner, "DISAGREEMENTS", page)
    vectors = tmp_path / "vectors"
    assert outcome(vectors, monkeypatch, BAD, "accept").state == runner.MISMATCH  # another folder
    monkeypatch.setattr(runner, "DEFAULT", vectors)
    assert outcome(vectors, monkeypatch, BAD, "accept").state == runner.ARGUED
    assert outcome(vectors, monkeypatch, BAD, "reject").state == runner.MISMATCH  # argued for nothing
    page.write_text("### `some/case`: accept\nArgued otherwise.\n")
    assert outcome(vectors, monkeypatch, BAD, "crypto_valid").state == runner.MISMATCH


def test_the_command_says_what_went_wrong_and_exits_so(tmp_path, monkeypatch, capsys):
    assert command.main([str(tmp_path)]) == 2
    outcome(tmp_path, monkeypatch, GOOD, "accept")
    assert command.main([str(tmp_path)]) == 0
    assert "mismatches:" not in capsys.readouterr().out
    outcome(tmp_path, monkeypatch, BAD, "accept")
    assert command.main([str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "some/case" in told
    assert "expected accept, got refused by binding" in told


def test_a_case_without_a_verified_signature_never_reads_as_one(tmp_path, monkeypatch, capsys):
    unsigned = replace(EMPTY, partial=lambda: None, signed=False)
    result = outcome(tmp_path / "unsigned", monkeypatch, unsigned, "unknown")
    assert result.outcome.verdict == "cannot tell"
    assert outcome(tmp_path / "simulated", monkeypatch, GOOD, "accept").outcome.verdict == "simulated"
    assert outcome(tmp_path / "refused", monkeypatch, BAD, "reject").outcome.verdict == "refused"
    command.table([result])
    head, row, _ = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", head)[2:6] == ["verified", "refused", "cannot tell", "simulated"]
    assert re.split(r"\s{2,}", row)[2:6] == ["0", "0", "1", "0"]
    assert "accept" not in head
