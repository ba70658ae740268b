"""What checks say to people: made of name and data, total over whatever a stranger made up, and by no name lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.appraisal.wording import sentences
from strongroom.appraisal.wording.form import MAX_TEXT
from strongroom.appraisal.wording.sentences import explain
from strongroom.appraisal.wording.table import TABLE
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model.verdict import Check, Words, read_checks, read_words

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=40)
DATA = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["of", "failed", "first", "one_of", "it", "name", "threshold", "wide", "differ", "0", "{"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([f"{name}some.thing" if name.endswith(".") else name for name in TABLE]) | st.text(
    max_size=30
)


@given(name=NAMES, expected=DATA, got=DATA, ok=st.booleans())
def test_rule_15_whatever_a_check_holds_it_is_told(name, expected, got, ok):
    told = explain(Check(name=name, expected=expected, got=got, ok=ok))
    assert (told.name, told.ok) == (name, ok)
    assert told.expected
    assert told.got
    assert max(len(told.expected), len(told.got)) <= MAX_TEXT
    assert bool(told.hint) is not ok


SAID = [
    ("nonce.fresh", "unused", {"expired": "T"}, "a nonce of this broker, unused and in time", "a nonce that expired at T"),
    ("nonce.contract", "sha256:1", None, "sha256:1", "no nonce"),
    ("contract.version", None, {"version": 1, "digest": "d", "from": 1}, "version 1, as nothing of it is known here, or a later one with all before it", "version 1, d, with all from version 1 on"),
    ("contract.version", {"version": 3, "digest": "e"}, {"version": 1}, "version 3, e, or a later one with all between", "version 1"),
    ("run.unique", None, "run-1", "a room that got no keys before", "run-1, released before"),
    ("certificate.names", [], ["a"], "no names, as no certificate is agreed", "a"),
    ("keys.present", "all", {"missing": ["m", "n"]}, "every disk of this owner known here, with its key", "not known: m, n"),
    ("contract.approvals", {"threshold": 2, "of": ["a", "b"]}, [], "signatures of at least 2 of a, b", "nobody's"),
    ("contract.approvals.bob", "owner", "unsigned", "the signature of bob, who owns a disk", "not signed, or the signature does not verify"),
    ("contract.runs", 3, 3, "fewer than 3 runs so far", "3 runs so far"),
    ("platform.debug", False, True, "debug off", "debug on"),
    ("device-0.debug", False, True, "debug off", "debug on"),
    ("platform.simulated", "hardware", "software", "hardware", "software standing in for hardware"),
    ("platform.machine", {"one_of": 9, "first": ["a", "b"]}, None, "one of 9: a, b", "nothing"),
    ("platform.reference.kernel", None, "aa", "a reference value in the contract", "aa"),
    ("platform.status", {"UpToDate": None, "Old": {"until": "T"}}, None, "UpToDate, Old until T", "no such claim"),
    ("platform.vmpl", 0, 2, "0", "2"),
    ("platform.vmpl", {"policy": 1, "strict": 0}, 1, "1, and 0 by the profile `strict`", "1"),
    ("platform.age", {"seconds": 300, "at": "T"}, None, "at most 300 s old at T", "no such claim"),
    ("platform.default.nitrotpm", False, True, "false", "true"),
    ("platform.default.nitrotpm", {"waived": False}, True, "any value: the parties signed that they waive false", "true"),
    ("platform.profile.machines", "single-machines", {"wide": "any"}, "a list of single machines", "any, which is no single one"),
    ("platform.tcb.committed.snp", 5, None, "at least 5", "no such claim"),
    ("platform.devices.reference", {"references": 1, "lists": 0}, {"of": 2, "failed": 0}, "every register as in one of 1 reference(s) and 0 list(s)", "all 2"),
    ("platform.devices.debug", False, {"of": 2, "failed": 1, "first": {"1": "debug-on"}}, "debug off", "1 of 2: device 1: debug on"),
    ("evidence.chain.root", None, None, "evidence that passes this check of its verifier", "evidence that does not: whoever brought it was told why"),
    ("later.check", {"a": [1, True]}, "x", "a 1, true", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected", "got", "first", "second"), SAID)
def test_data_become_sentences(name, expected, got, first, second):
    told = explain(Check(name=name, expected=expected, got=got, ok=False))
    assert (told.expected, told.got) == (first, second)


def test_hints_name_who_and_what():
    def hint(name, expected, got):
        return explain(Check(name=name, expected=expected, got=got, ok=False)).hint

    assert "still to sign: bob" in hint(
        "contract.approvals", {"threshold": 2, "of": ["alice", "bob"]}, ["alice"]
    )
    assert hint("contract.approvals.bob", "owner", "unsigned").startswith("bob signs")
    assert hint("platform.tcb.committed.microcode", 5, 4) == "update microcode, and commit it"
    assert hint("platform.tcb.launch.snp", 5, 4) == "update snp, and start the room again"
    assert "Battering RAM" in hint("platform.profile.product", "not-broken", ["Milan"])
    assert "no such fact" in hint("platform.fact.x", 1, None)
    assert hint("later.check", 1, 2) == sentences.UNKNOWN


def test_a_verifiers_own_words_are_told_and_never_recorded():
    words = Words(expected="x" * 9000, got="what a stranger wrote", hint="h", source="RFC 5280")
    check = Check(name="evidence.chain.root", expected=None, got=None, ok=False, words=words)
    told = explain(check)
    assert (told.expected, told.got, told.hint, told.source) == ("x" * MAX_TEXT, words.got, "h", "RFC 5280")
    assert "stranger" not in str(check.to_json())
    assert read_checks(fields.Fields({"checks": [check.to_message()]}, "message")) == (check,)
    assert read_words(fields.Fields({check.name: words.texts()}, "words")) == {check.name: words}


@given(expected=DATA, got=DATA)
def test_the_record_form_reads_back(expected, got):
    check = Check(name="a.b", expected=expected, got=got, ok=True)
    try:
        data = canonical.dumps({"checks": [check.to_json()]})
        read = read_checks(fields.Fields(canonical.loads(data, what="record", max_bytes=1 << 20), "record"))
    except Malformed:
        return  # too large a number, or too deep
    assert read == (check,)


DATA = "expected text of at most 4096 characters, an integer"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"expected": "x" * 4097}, f"expected: {DATA}"),
        ({"got": [1.5]}, f"got: {DATA}"),
        ({"got": [0] * 257}, f"got: {DATA}"),
        ({"got": {str(n): 0 for n in range(257)}}, f"got: {DATA}"),
        ({"got": [[[[[[]]]]]]}, f"got: {DATA}"),
        ({"ok": 1}, "ok: expected true or false"),
        ({"name": 7}, "name: expected text of at most"),
        ({"hint": "h"}, "unknown key 'hint'"),
        ({"words": {}}, "key 'expected' is missing"),
        ({"words": "w"}, "words: expected an object"),
        (
            {"words": {"expected": "a", "got": "b", "hint": "c", "source": "d", "more": "e"}},
            "unknown key 'more'",
        ),
    ],
    ids=str,
)
def test_what_is_no_check_is_refused(change, why):
    good = Check(name="a", expected=1, got=1, ok=True).to_json()
    assert read_checks(fields.Fields({"checks": [good]}, "record"))
    with pytest.raises(Malformed, match=why):
        read_checks(fields.Fields({"checks": [{**good, **change}]}, "record"))


def test_a_check_says_nothing_of_what_to_do_where_it_held():
    bad = Check(name="contract.runs", expected=3, got=3, ok=False)
    assert explain(bad).hint
    assert explain(replace(bad, ok=True)).hint == ""
