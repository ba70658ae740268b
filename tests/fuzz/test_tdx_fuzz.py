"""Any bytes in place of a TDX quote, and any signed report: claims, `Malformed` or `EvidenceRefused`, nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.model.evidence import Evidence
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import dcap_evidence as scene

QUOTES = [scene.GOOD["tdx", version].parts["quote"] for version in (4, 5)]
FIELDS = {
    "tee_tcb_svn": 16,
    "tee_tcb_svn2": 16,
    "mr_signer_seam": 48,
    "seam_attributes": 8,
    "td_attributes": 8,
    "xfam": 8,
    "mr_td": 48,
    "mr_config_id": 48,
    "mr_service_td": 48,
}


@often
@given(data=st.data())
def test_rule_15_no_other_quote_verifies(data):
    good = data.draw(st.sampled_from(QUOTES))
    put = data.draw(mutations(good, most=200))
    if put in QUOTES:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="tdx", parts={"quote": put}))


@often
@given(
    version=st.sampled_from((4, 5)),
    body=st.fixed_dictionaries(
        {}, optional={name: st.binary(min_size=size, max_size=size) for name, size in FIELDS.items()}
    ),
)
def test_any_signed_report_is_claims_or_a_refusal(version, body):
    if version == 4:
        body = {name: value for name, value in body.items() if name not in {"tee_tcb_svn2", "mr_service_td"}}
    evidence = scene.INTEL.evidence(scene.BOUND, tee="tdx", version=version, body=body)
    try:
        claims = scene.verified(evidence)
    except (EvidenceRefused, Malformed):
        return
    assert claims.status
    assert claims.tcb
    if "mr_td" in body:
        assert claims.registers["mr_td"] == body["mr_td"].hex()
