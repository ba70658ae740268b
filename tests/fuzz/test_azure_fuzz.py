"""Any bytes in place of any part: claims never, `Malformed` or `EvidenceRefused` always, nothing else raised."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import azure_hcl
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import azure_evidence as scene

RUNTIME = scene.VMS["snp"]._runtime(None)
# Bytes that nothing signs and nobody reads (see test_azure.UNSIGNED) may be other ones.
HCL = scene.GOOD["snp"].parts["hcl-report"]


@often
@given(data=st.data(), kind=st.sampled_from(scene.KINDS))
def test_rule_15_no_other_part_verifies(data, kind):
    name = data.draw(st.sampled_from(sorted(scene.GOOD[kind].parts)))
    good = scene.GOOD[kind].parts[name]
    spoiled = data.draw(mutations(good, most=200))
    if _same(spoiled, good, kind if name == "hcl-report" else ""):
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(kind, scene.with_part(kind, name, spoiled))


def _same(one: bytes, other: bytes, kind: str) -> bool:
    if not kind:
        return one == other
    unsigned = scene.UNSIGNED[kind]
    bare = [bytes(byte for place, byte in enumerate(data) if place not in unsigned) for data in (one, other)]
    # How many zeros follow an HCL report is nobody's business either.
    return bare[0].rstrip(b"\0") == bare[1].rstrip(b"\0")


@often
@given(data=mutations(HCL, most=100))
def test_rule_15_hcl_reports_parse_or_are_malformed(data):
    try:
        parsed = azure_hcl.parse(data)
    except Malformed:
        return
    assert parsed.tee in scene.KINDS
    assert len(parsed.bound) == len(parsed.carried) == 64


@often
@given(data=mutations(RUNTIME, most=100))
def test_rule_15_runtime_data_parse_or_are_malformed(data):
    try:
        parsed = azure_hcl.parse_runtime(data)
    except Malformed:
        return
    assert parsed.ak.kind == "rsa"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@often
@given(keys=json_values, settings=json_values, user_data=json_values)
def test_rule_15_runtime_data_of_any_shape_parse_or_are_malformed(keys, settings, user_data):
    value = {"keys": keys, "vm-configuration": settings, "user-data": user_data}
    good = json.loads(RUNTIME)
    for name, one in value.items():
        for text in (json.dumps(value), json.dumps({**good, name: one})):
            try:
                azure_hcl.parse_runtime(text.encode())
            except Malformed:
                continue
