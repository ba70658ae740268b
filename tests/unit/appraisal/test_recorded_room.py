"""A real room, recorded: judged again it is accepted; whatever is changed about it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.appraisal.judge import judge
from strongroom.encoding import fields
from strongroom.model import binding as binding_model
from strongroom.model import evidence as evidence_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence
from strongroom.model.verdict import Accepted, Check, Denied

ROOM = Path(__file__).parents[2] / "vectors" / "tpm" / "room"
AGREEMENT = agreement_model.read((ROOM / "agreement.json").read_bytes())
EVIDENCE = evidence_model.parse((ROOM / "evidence.json").read_bytes())
BINDING = binding_model.read(fields.Fields(json.loads((ROOM / "binding.json").read_text()), "binding"))
DECIDED = datetime(2026, 12, 1, 15, 4, 9, tzinfo=UTC)
GATES = (Check(name="nonce", expected="fresh", got="fresh", ok=True),)


def again(evidence=EVIDENCE, *, binding=BINDING, now=DECIDED, agreement=AGREEMENT):
    return judge(
        agreement,
        evidence,
        NONE,
        binding=binding,
        gates=GATES,
        runs_used=0,
        now=now,
        lifetime=timedelta(hours=1),
    )


def test_a_recorded_room_is_accepted():
    verdict = again()
    assert isinstance(verdict, Accepted), verdict.failed
    platform = AGREEMENT.contract.platforms[0]
    assert verdict.claims.registers == platform.references[0]
    assert verdict.claims.machine == platform.machines[0]
    assert verdict.claims.simulated
    assert verdict.claims.memory_guard
    assert "SIMULATED" in str(verdict.claims.facts["root_subject"])


@pytest.mark.parametrize("name", sorted(EVIDENCE.parts))
def test_every_single_byte_flip_of_it_is_refused(name):
    good = EVIDENCE.parts[name]
    for place in range(len(good)):
        flipped = good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :]
        assert isinstance(again(Evidence(tee="tpm", parts={**EVIDENCE.parts, name: flipped})), Denied), place


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"binding": replace(BINDING, nonce=bytes(32))}, "evidence.binding"),
        ({"binding": replace(BINDING, keys=replace(BINDING.keys, kem=bytes(1216)))}, "evidence.binding"),
        ({"now": AGREEMENT.contract.limits.not_after}, "contract.validity"),
        ({"now": DECIDED - timedelta(days=365)}, "contract.validity"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_at_another_time_or_for_another_request_it_is_refused(change, name):
    verdict = again(**change)
    assert isinstance(verdict, Denied)
    assert verdict.failed[0].name == name
