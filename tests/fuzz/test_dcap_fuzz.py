"""The parsers of DCAP: any bytes give a value or `Malformed`, and documents say what was written or nothing."""

from __future__ import annotations

import copy
import json

from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto.pki import crl
from strongroom.encoding import pem
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import dcap_pck, dcap_quote, dcap_tcb
from strongroom_testing.vendors import intel_pki
from tests.fuzz.mutations import mutations, often
from tests.unit.evidence import dcap_evidence as scene

TCB, _ = dcap_tcb.split(scene.ENDORSED["tdx"].parts["tcb-info"], "tcbInfo", what="tcb-info")
IDENTITY, _ = dcap_tcb.split(scene.ENDORSED["tdx"].parts["qe-identity"], "enclaveIdentity", what="qe")
CHAIN = scene.INTEL.pck.chain
EXTENSION = intel_pki.sgx_extension(components=bytes(range(16)), pce_svn=13, ppid=b"p" * 16)
LIST = scene.ENDORSED["tdx"].parts["pck-crl"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def only_malformed(parse, *values):
    try:
        return parse(*values)
    except Malformed:
        return None


@often
@given(st.sampled_from((3, 4, 5)), st.data())
def test_rule_15_quotes(version, data):
    tee = "sgx" if version == 3 else "tdx"
    quote = data.draw(mutations(scene.GOOD[tee, version].parts["quote"], most=200))
    parsed = only_malformed(dcap_quote.parse, quote)
    if parsed is None:
        return
    assert quote.startswith(parsed.signed)
    assert quote.endswith(parsed.signature + parsed.certified)
    taken = only_malformed(dcap_quote.certification, parsed.version, parsed.certified)
    if taken is not None:
        assert len(taken.attestation_key) == len(taken.qe_signature) == 64
        assert parsed.certified.endswith(taken.data)
    only_malformed(lambda: dcap_quote.describe(quote, line=lambda *_: None))


@often
@given(mutations(TCB), mutations(IDENTITY))
def test_rule_15_documents_of_any_bytes(tcb, identity):
    only_malformed(dcap_tcb.parse_tcb_info, tcb)
    only_malformed(dcap_tcb.parse_identity, identity)


@often
@given(st.data())
def test_rule_15_documents_with_any_value_anywhere(data):
    for good, parse in ((TCB, dcap_tcb.parse_tcb_info), (IDENTITY, dcap_tcb.parse_identity)):
        document = json.loads(good)
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(VALUES)
        only_malformed(parse, json.dumps(document).encode())


@often
@given(st.data())
def test_rule_16_a_key_that_stands_twice_is_never_passed_over(data):
    document = json.loads(TCB)
    text = json.dumps(
        document, separators=data.draw(st.sampled_from(((",", ":"), (", ", " : "), (",", ": "))))
    )
    at = data.draw(st.sampled_from([at for at, letter in enumerate(text) if letter == "{"]))
    key = data.draw(
        st.sampled_from(
            ['"svn":1,', '"svn" : 1,', '"id":":",', '"tcb":{},', '"isvsvn"\n:9,', '"\\u0069d":"x",']
        )
    )
    twice = text[: at + 1] + key + key + text[at + 1 :]
    assert only_malformed(dcap_tcb.parse_tcb_info, twice.encode()) is None


@often
@given(mutations(EXTENSION))
def test_rule_15_platform_extensions(data):
    only_malformed(dcap_pck.parse_extension, data)


@often
@given(mutations(CHAIN, most=200))
def test_rule_15_chains(data):
    try:
        ders = dcap_pck.certificates(data, what="pck", count=3)
    except (Malformed, EvidenceRefused):
        return
    assert len(set(ders)) == 3


@often
@given(mutations(LIST))
def test_rule_15_revocation_lists(data):
    only_malformed(crl.parse, data)
    only_malformed(lambda: dcap_pck.revocation_list(data, what="pck-crl"))


@often
@given(mutations(CHAIN) | st.binary(max_size=300).map(lambda data: pem.encode(data, b"CERTIFICATE")))
def test_pem_has_one_form(data):
    blocks = only_malformed(
        lambda: pem.decode(data, b"CERTIFICATE", what="chain", max_blocks=8, max_bytes=65536)
    )
    if blocks is not None and len(data) % 64 and b"\r" not in data and b"\n\n" not in data:
        again = b"".join(pem.encode(one, b"CERTIFICATE") for one in blocks)
        assert pem.decode(again, b"CERTIFICATE", what="chain", max_blocks=8, max_bytes=65536) == blocks


def test_both_ways_of_reading_documents_agree():
    quick = dcap_tcb.parse_tcb_info(TCB)
    loose = json.dumps(json.loads(TCB), indent=1).replace('":', '" :')
    assert dcap_tcb.parse_tcb_info(loose.encode()) == quick
    escaped = copy.deepcopy(json.loads(TCB))
    assert dcap_tcb.parse_tcb_info(json.dumps(escaped).replace('"SGX"', '"\\u0053GX"').encode()) == quick
