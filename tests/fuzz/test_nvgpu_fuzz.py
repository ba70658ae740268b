"""Any bytes in place of any part: claims never, `Malformed` or `EvidenceRefused` always, nothing else raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import nvgpu_dice, nvgpu_spdm
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import nvgpu_evidence as scene

GOOD = scene.GPU.evidence(scene.BOUND).parts
OPAQUE = GOOD["report"][GOOD["report"].index(b"570.86.10") - 80 : -96]


@pytest.mark.parametrize("part", ["report", "certificates"])
@often
@given(data=st.data())
def test_rule_15_no_other_part_verifies(part, data):
    put = data.draw(mutations(GOOD[part], most=200))
    if put == GOOD[part]:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="nvgpu", parts={**GOOD, part: put}))


@often
@given(data=mutations(OPAQUE) | st.builds(lambda rest: b"NVDAOD" + rest, mutations(OPAQUE)))
def test_rule_15_any_opaque_data_are_fields_or_malformed(data):
    try:
        fields = nvgpu_spdm.parse_opaque(data)
    except Malformed:
        return
    assert sum(len(value) for value in fields.values()) <= len(data)


@often
@given(data=mutations(b"\x30\x41" + b"\xa6\x3f" + scene.FWID))
def test_rule_15_any_dice_extension_is_read_or_malformed(data):
    try:
        dice = nvgpu_dice.parse(data)
    except Malformed:
        return
    assert len(dice.fwid) in {0, 48}


EVIDENCE = scene.GPU.evidence(scene.BOUND)
ANSWERS = scene.GPU.endorsements(EVIDENCE).parts


@often
@given(data=mutations(ANSWERS["ocsp-1"], most=200))
def test_rule_15_any_answer_is_read_or_malformed_and_no_other_counts(data):
    if data == ANSWERS["ocsp-1"]:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(EVIDENCE, endorsements=Endorsements(parts={**ANSWERS, "ocsp-1": data}))
