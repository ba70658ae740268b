"""Any bytes in place of any part: claims never, `Malformed` or `EvidenceRefused` always, nothing else raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.model.evidence import Evidence
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import nitro_evidence as scene

GOOD = scene.AWS.evidence(scene.BOUND, indefinite=True).parts["document"]


@often
@given(data=mutations(GOOD, most=200))
def test_rule_15_no_other_document_verifies(data):
    if data == GOOD:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="nitro", parts={"document": data}))


@often
@given(data=st.data())
def test_rule_15_no_payload_makes_the_verifier_fall_over(data):
    """The payload is parsed before anything is known of who signed it."""
    import cbor2

    whole = cbor2.loads(GOOD)
    whole[2] = data.draw(mutations(whole[2], most=200))
    spoiled = cbor2.dumps(whole)
    if spoiled == GOOD:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="nitro", parts={"document": spoiled}))
