"""Any bytes to every parser of evidence: a value, or `Malformed`; the verifier adds `EvidenceRefused`."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from strongroom.appraisal.judge import judge
from strongroom.appraisal.wording.sentences import explain
from strongroom.crypto.pki import x509
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import tpm, verify
from strongroom.evidence.formats import eventlog, tpm_quote
from strongroom.model import endorsements as endorsements_model
from strongroom.model import evidence as evidence_model
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom.model.room import launch
from strongroom.model.verdict import Denied
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm
from tests.effort import examples
from tests.unit.appraisal.a_judgement import AGREEMENT, GATES, binding
from tests.unit.evidence.tpm_evidence import BINDING, GOOD, NOW, TPM

often = examples(400, suppress_health_check=[HealthCheck.too_slow])
PARSERS = {
    "quote": tpm_quote.parse_quote,
    "signature": tpm_quote.parse_signature,
    "event-log": eventlog.parse,
    "launch-record": launch.parse,
    "ak-certificate": x509.parse,
    "issuers": x509.split,
}


def mutations(good: bytes) -> st.SearchStrategy[bytes]:
    """Good bytes with a run cut out, put in or overwritten; or any bytes."""

    def mutate(start: int, length: int, put: bytes) -> bytes:
        return good[:start] + put + good[start + length :]

    place = st.integers(0, len(good))
    return st.binary(max_size=200) | st.builds(mutate, place, st.integers(0, 64), st.binary(max_size=64))


@pytest.mark.parametrize("name", sorted(PARSERS))
@often
@given(data=st.data())
def test_rule_15_parsers_return_or_say_malformed(name, data):
    given_bytes = data.draw(mutations(GOOD.parts[name]))
    message = "x"
    try:
        PARSERS[name](given_bytes)
    except Malformed as cause:
        message = cause.message
    assert 0 < len(message) < 1000


@often
@given(data=st.data())
def test_rule_15_the_verifier_refuses_or_says_malformed(data):
    name = data.draw(st.sampled_from(sorted(tpm.PARTS)))
    mutated = data.draw(mutations(GOOD.parts[name]))
    evidence = Evidence(tee="tpm", parts={**GOOD.parts, name: mutated})
    if mutated == GOOD.parts[name]:
        return
    with pytest.raises((EvidenceRefused, Malformed)):
        verify.verify(evidence, NONE, binding=BINDING, roots=frozenset({TPM.root}), now=NOW)


@often
@given(
    tee=st.text(max_size=80),
    parts=st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=5),
    extra=st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=2),
)
def test_a_judge_always_answers(tee, parts, extra):
    verdict = judge(
        AGREEMENT,
        Evidence(tee=tee, parts=parts),
        Endorsements(parts=extra),
        binding=binding(),
        gates=GATES,
        runs_used=0,
        now=contracts.NOW,
        lifetime=contracts.NOW - contracts.NOW.replace(hour=0),
    )
    assert isinstance(verdict, Denied)
    assert all(explain(check).hint for check in verdict.failed)


@often
@given(data=st.data())
def test_rule_15_evidence_files_parse_or_are_malformed(data):
    given_bytes = data.draw(mutations(GOOD.encode()))
    try:
        parsed = evidence_model.parse(given_bytes)
    except Malformed:
        return
    assert evidence_model.parse(parsed.encode()) == parsed


@often
@given(data=st.data())
def test_rule_15_endorsement_files_parse_or_are_malformed(data):
    good = Endorsements(parts={"crl": b"list", "tcb-info": b"{}"})
    assert endorsements_model.parse(good.encode()) == good
    given_bytes = data.draw(mutations(good.encode()))
    try:
        parsed = endorsements_model.parse(given_bytes)
    except Malformed:
        return
    assert endorsements_model.parse(parsed.encode()) == parsed


@often
@given(
    st.lists(
        st.tuples(
            st.integers(0, 23),
            st.sampled_from((eventlog.SEPARATOR, eventlog.ACTION, eventlog.EVENT_TAG)),
            st.binary(max_size=30),
        ),
        max_size=12,
    )
)
def test_logs_that_are_understood_are_read_as_they_were_written(entries):
    events = []
    for pcr, kind, data in entries:
        if kind == eventlog.SEPARATOR:
            sound = b"\0\0\0\0" if len(data) % 2 else b"\xff\xff\xff\xff"
        elif kind == eventlog.ACTION:
            sound = b"x" + data.hex().encode()
        else:
            sound = struct.pack("<II", 7, len(data)) + data
        events.append((pcr, kind, sound))
    parsed = eventlog.parse(fake_tpm.encode_log(events))
    assert [(event.pcr, event.type, event.data) for event in parsed] == events


@often
@given(r=st.integers(), s=st.integers(), message=st.binary(max_size=40))
def test_rule_16_no_pair_of_integers_is_a_signature_by_luck(r, s, message):
    key = x509.parse(GOOD.parts["ak-certificate"]).key
    with pytest.raises(Refused):
        key.verify_rs(r=r, s=s, message=message, hash="sha256")
