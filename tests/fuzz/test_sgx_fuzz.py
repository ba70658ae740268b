"""Any bytes in place of an SGX quote or of its endorsements: claims never, only `Malformed` or `EvidenceRefused`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import pem
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import dcap_collateral
from strongroom.model.evidence import Evidence
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import dcap_evidence as scene

QUOTES = [scene.GOOD["sgx", version].parts["quote"] for version in (3, 4, 5)]


@often
@given(data=st.data())
def test_rule_15_no_other_quote_verifies(data):
    good = data.draw(st.sampled_from(QUOTES))
    put = data.draw(mutations(good, most=200))
    if put in QUOTES:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(Evidence(tee="sgx", parts={"quote": put}))


def same_certificates(good, put):
    """Whether only the form of the PEM differs: the last line's end, an empty line between blocks, a NUL after them."""

    def contents(text):
        return pem.decode(text, b"CERTIFICATE", what="chain", max_blocks=2, max_bytes=65536)

    try:
        return set(contents(good)) == set(contents(put))
    except Malformed:
        return False


@pytest.mark.parametrize("part", dcap_collateral.REQUIRED)
@often
@given(data=st.data())
def test_rule_15_no_other_endorsement_verifies(part, data):
    good = scene.ENDORSED["sgx"].parts[part]
    put = data.draw(mutations(good, most=200))
    if put == good or (part.endswith("-chain") and same_certificates(good, put)):
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        scene.verified(scene.GOOD["sgx", 3], scene.with_part("sgx", part, put))
