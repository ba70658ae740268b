"""Any bytes in place of any part: claims never, `Malformed` or `EvidenceRefused` always, nothing else raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import cca_evidence as scene

GOOD = scene.PLATFORM.evidence(scene.BOUND).parts["token"]
KEY = scene.PLATFORM.endorsements().parts["platform-key"]


@often
@given(data=mutations(GOOD, most=200))
def test_rule_15_no_other_token_verifies(data):
    if data == GOOD:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="cca", parts={"token": data}))


@often
@given(data=mutations(KEY))
def test_rule_15_no_other_platform_key_verifies(data):
    if data == KEY:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(
            Evidence(tee="cca", parts={"token": GOOD}),
            endorsements=Endorsements(parts={"platform-key": data}),
        )


@often
@given(data=st.data())
def test_rule_15_no_payload_makes_the_verifier_fall_over(data):
    """Both payloads are parsed before anything is known of who signed them."""
    import cbor2

    tokens = dict(cbor2.loads(GOOD).value)
    which = data.draw(st.sampled_from([44234, 44241]))
    inner = list(cbor2.loads(tokens[which]).value)
    inner[2] = data.draw(mutations(inner[2], most=200))
    tokens[which] = cbor2.dumps(cbor2.CBORTag(18, inner))
    spoiled = cbor2.dumps(cbor2.CBORTag(399, tokens))
    if spoiled == GOOD:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="cca", parts={"token": spoiled}))
