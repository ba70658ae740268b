"""Packs that were recorded once verify for ever, whatever is reworded or asked besides; what was judged cannot change.

The packs of a version are made by `python -m strongroom_testing.hardware_packs DIR` before its release.
"""

from __future__ import annotations

import copy
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.appraisal import appraise
from strongroom.appraisal.wording import sentences
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.ledger import inspect, proofpack, releases
from strongroom.model import party, record, verdict
from strongroom.model.claims import Claims
from strongroom_testing import hardware_packs

ROOT = Path(__file__).parents[2] / "vectors" / "packs"
RECORDED = sorted(path.parent for path in ROOT.glob("*/*/proof.json"))
NOVEL = verdict.Check(name="platform.novel.part", expected=1, got=1, ok=True)


def read(folder):
    """The pack, and the parties whose files stand beside it."""
    anchors = [party.parse(path.read_bytes()) for path in sorted(folder.glob("*.party.json"))]
    return proofpack.parse((folder / hardware_packs.PACK).read_bytes()), anchors


def judged(folder):
    pack, anchors = read(folder)
    return inspect.inspect(pack, anchors=anchors)


def asks_more(monkeypatch, check):
    """A later version, whose policy makes one more check, in the middle of the verdict."""
    plain = appraise.check_policy
    monkeypatch.setattr(appraise, "check_policy", lambda *args, **named: (check, *plain(*args, **named)))


@pytest.fixture(params=RECORDED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def folder(request):
    return request.param


def test_there_are_packs_of_every_kind_of_room():
    assert {folder.name for folder in RECORDED} == {"nitro", "snp", "tdx", "tpm"}


def test_a_recorded_pack_verifies_for_ever(folder):
    judgement = judged(folder)
    assert [(check.name, check.got) for check in judgement.failed] == []
    assert judgement.holds


def test_a_recorded_pack_verifies_whatever_is_reworded(folder, monkeypatch):
    pack, _ = read(folder)
    checks = [
        check
        for release in pack.releases
        for check in verdict.read_checks(
            fields.Fields(record.parse(release.ledger.entry).body["verdict"], "verdict")
        )
    ]
    before = [sentences.explain(check).expected for check in checks]
    monkeypatch.setattr(sentences, "TABLE", {})
    monkeypatch.setattr(sentences, "plain", lambda _: "said quite differently")
    assert all(sentences.explain(check).expected != told for check, told in zip(checks, before, strict=True))
    assert judged(folder).holds


def test_a_recorded_pack_holds_no_sentence(folder):
    """Checks are names and data: no text in them has two spaces, as every sentence of ours has."""
    pack, _ = read(folder)
    for release in pack.releases:
        for check in record.parse(release.ledger.entry).body["verdict"]["checks"]:
            assert set(check) == {"name", "expected", "got", "ok"}
            assert json.dumps([check["expected"], check["got"]], separators=(",", ":")).count(" ") < 2, check


def leaves(value, at=()):
    """The places of all texts, numbers and truths in a JSON value; empty lists and objects are such places too."""
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*at, key))
    else:
        yield at


def with_leaf(value, at, changed):
    twin = copy.deepcopy(value)
    inner = twin
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = changed(inner[at[-1]])
    return twin


def other(leaf):
    if isinstance(leaf, bool):
        return not leaf
    return leaf + 1 if isinstance(leaf, int) else "another"


def test_every_datum_of_a_recorded_verdict_counts(folder):
    pack, _ = read(folder)
    release = pack.releases[0]
    entry = record.parse(release.ledger.entry)
    said, gates = entry.body["verdict"], entry.body["judged"]["gates"]

    again, _ = releases._judge_again(pack, release, entry)

    def holds(changed):
        try:
            return releases._same(again, changed, entry)
        except Malformed:
            return False

    assert holds(said)
    for at in leaves(said):
        if at[0] == "checks" and at[1] < gates:
            continue  # the broker's own word, which nobody can ask again: its signed ledger alone holds it
        assert not holds(with_leaf(said, at, other)), at
    own, checks = said["checks"][:gates], said["checks"][gates:]
    for index in range(len(checks)):
        assert not holds({**said, "checks": own + checks[:index] + checks[index + 1 :]})
        assert not holds({**said, "checks": [*own, *checks, checks[index]]})
    assert not holds({**said, "checks": own + checks[::-1]})
    assert not holds({**said, "claims": {}})
    for name in said["claims"]:
        assert not holds(
            {**said, "claims": {key: said["claims"][key] for key in said["claims"] if key != name}}
        )


def test_a_broker_that_records_another_datum_is_found_out(world, pack):
    value = canonical.loads(pack.releases[0].ledger.entry, what="entry", max_bytes=1 << 20)
    check = next(one for one in value["body"]["verdict"]["checks"] if one["name"] == "contract.runs")
    check["expected"] += 1
    lied = replace(pack.releases[0], ledger=world.forge("alice", value))
    judgement = inspect.inspect(replace(pack, releases=(lied, *pack.releases[1:])), anchors=world.anchors)
    assert "verdict.alice" in {check.name for check in judgement.failed}


@pytest.mark.parametrize("later", [{"platform.novel.part"}, {"platform.novel."}])
def test_a_check_that_a_later_version_adds_breaks_no_old_pack(folder, monkeypatch, later):
    asks_more(monkeypatch, NOVEL)
    assert {check.name for check in judged(folder).failed} == {"verdict.alice", "verdict.bob"}
    monkeypatch.setattr(verdict, "LATER", frozenset(later))
    assert judged(folder).holds


def test_a_check_that_a_later_version_adds_must_hold_all_the_same(folder, monkeypatch):
    monkeypatch.setattr(verdict, "LATER", frozenset({NOVEL.name}))
    asks_more(monkeypatch, replace(NOVEL, got=2, ok=False))
    failed = {check.name: check.got for check in judged(folder).failed}
    assert failed.keys() == {"verdict.alice", "verdict.bob"}
    assert NOVEL.name in failed["verdict.alice"]


def test_a_claim_that_a_later_version_adds_breaks_no_old_pack(folder, monkeypatch):
    plain = Claims.to_record

    def more(claims):
        said = plain(claims)
        return {**said, "novel": [1], "facts": {**said["facts"], "novel": "x"}}

    monkeypatch.setattr(Claims, "to_record", more)
    assert {check.name for check in judged(folder).failed} == {"verdict.alice", "verdict.bob"}
    monkeypatch.setattr(verdict, "LATER", frozenset({"claims.novel", "claims.facts.novel"}))
    assert judged(folder).holds


def test_what_was_added_later_counts_where_it_is_recorded(folder, monkeypatch):
    """`LATER` excuses what a record lacks, never what it says."""
    monkeypatch.setattr(verdict, "LATER", frozenset({"contract.runs", "claims."}))
    assert judged(folder).holds
    pack, _ = read(folder)
    entry = record.parse(pack.releases[0].ledger.entry)
    lied = with_leaf(entry.body["verdict"], ("claims", "root"), other)
    changed = replace(entry, body={**entry.body, "verdict": lied})
    assert not releases._verdict(pack, pack.releases[0], changed)[0].ok


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_a_verdict_of_another_version_is_told_as_that(folder, version):
    pack, _ = read(folder)
    entry = record.parse(pack.releases[0].ledger.entry)
    changed = replace(entry, body={**entry.body, "verdict": {**entry.body["verdict"], "version": version}})
    check, _ = releases._verdict(pack, pack.releases[0], changed)
    assert not check.ok
    assert "version" in check.got
    assert "later one" in check.hint


@pytest.mark.parametrize("words", [(), ("--help",), ("one", "two")])
@pytest.mark.parametrize("maker", ["hardware_packs", "packs", "evidence_folder", "result_files"])
def test_what_writes_a_folder_takes_no_option_for_one(maker, words, monkeypatch, tmp_path):
    """Recorded packs once stood in a folder called --help."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [maker, *words])
    with pytest.raises(SystemExit, match="the folder to write"):
        runpy.run_path(str(Path(hardware_packs.__file__).with_name(f"{maker}.py")), run_name="__main__")
    assert not list(tmp_path.iterdir())
