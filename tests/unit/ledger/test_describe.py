"""Entries in words: each kind has its sentence, and no entry, however odd, stops a reader."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from strongroom.errors import Malformed
from strongroom.ledger import describe
from strongroom.model import record
from tests import samples

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def entry(kind, body, *, contract=samples.DIGEST):
    contract = "" if kind in record.OF_NO_CONTRACT else contract
    made = record.Record(kind=kind, time=NOW, broker="alice", contract_digest=contract, run_id="", body=body)
    assert record.parse(made.encode()) == made
    return made


def denial(*checks):
    recorded = [
        {"name": name, "expected": expected, "got": got, "ok": ok} for name, expected, got, ok in checks
    ]
    return entry(record.RecordKind.DENIAL, {"verdict": {"checks": recorded}})


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (record.RecordKind.RELEASE, {"disks": [samples.DIGEST]}, "released, with the keys of 1 disk(s)"),
        (
            record.RecordKind.CONTRACT,
            {"id": "a", "version": 2},
            "version 2 of a admitted, lower ones withdrawn",
        ),
        (
            record.RecordKind.WITHDRAWAL,
            {"id": "a", "version": 2},
            "a withdrawn, every version (the last one known: 2)",
        ),
        (
            record.RecordKind.DISK_REMOVAL,
            {"disk": samples.DIGEST},
            f"disk {samples.DIGEST} taken from the broker, with its key",
        ),
    ],
)
def test_each_kind_has_its_sentence(kind, body, said):
    assert describe.describe(entry(kind, body)) == said


def test_a_denial_is_told_with_its_reason():
    made = denial(("a", 1, 1, True), ("run.unique", None, "run-1", False), ("x", 1, 2, False))
    assert describe.describe(made) == (
        "denied: run.unique: expected a room that got no keys before, got run-1, released before (and 1 more); "
        "a room gets its keys once; start another room"
    )
    assert describe.reason(made).name == "run.unique"


@pytest.mark.parametrize("kind", record.RecordKind)
def test_what_nobody_knows_is_said_to_be_so(kind):
    for body in ({}, {"verdict": 1, "disks": 1, "envelope": "!", "id": 3, "version": "x", "disk": "x"}):
        assert describe.describe(entry(kind, body)) == describe.UNKNOWN
        assert describe.reason(entry(kind, body)) is None
    assert describe.describe(denial()) == describe.UNKNOWN
    assert describe.reason(denial()) is None


def test_a_sentence_has_an_end():
    assert len(describe.describe(denial(("x" * 400, "y" * 4000, "z" * 4000, False)))) <= describe.MOST + 1


def test_only_entries_about_a_contract_name_one():
    for kind in (record.RecordKind.DISK_REMOVAL, record.RecordKind.ROTATION):
        named = record.Record(
            kind=kind, time=NOW, broker="a", contract_digest=samples.DIGEST, run_id="", body={}
        )
        with pytest.raises(
            Malformed, match=f"contract: expected an empty text, as a {kind.value} is of no contract"
        ):
            record.parse(named.encode())
        assert record.parse(replace(named, contract_digest="").encode()).contract_digest == ""
    nameless = record.Record(
        kind=record.RecordKind.WITHDRAWAL, time=NOW, broker="a", contract_digest="", run_id="", body={}
    )
    with pytest.raises(Malformed, match="contract: expected sha256: and 64"):
        record.parse(nameless.encode())


def test_the_heading_of_an_entry_is_all_but_its_body():
    hiding = {
        "verdict": {"checks": [], "of": '"broker":"x","contract":"y"'},
        "zz": {"broker": "no", "kind": "no"},
    }
    made = entry(record.RecordKind.DENIAL, hiding)
    assert record.heading(made.encode()) == replace(made, body={})
