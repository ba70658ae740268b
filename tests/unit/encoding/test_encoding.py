"""Wire formats: one encoding per value, and nothing but `Malformed` for the rest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import canonical, dsse, fields, framed
from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_canonical_json_round_trip(value):
    data = canonical.dumps(value)
    assert canonical.loads(data, what="value", max_bytes=1 << 20) == value
    assert canonical.dumps(json.loads(data)) == data


def test_canonical_json_is_that_of_rfc_8785():
    # The sorting example of RFC 8785, section 3.2.3.
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7}
    order = [2, 4, 6, 7, 1, 5, 3]
    assert list(json.loads(canonical.dumps(value)).values()) == order


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1.0",
        b"1e3",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":2}}',
        b'"\\ud800"',
        b"[" * 40 + b"]" * 40,
        b"[" * 100_000,
        b"9007199254740993",
        b"{} {}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"9" * 5000,
    ],
)
def test_rule_16_strict_json(data):
    with pytest.raises(Malformed):
        canonical.loads(data, what="value", max_bytes=1 << 20)


def test_size_is_bounded_before_decoding():
    with pytest.raises(Malformed, match="at most 10"):
        canonical.loads(b"[" + b" " * 10 + b"]", what="value", max_bytes=10)


@pytest.mark.parametrize("value", [1.0, b"x", {1: 2}, float("nan"), 1 << 60, object()])
def test_what_json_must_not_hold(value):
    with pytest.raises(Malformed):
        canonical.dumps(value)


def test_rule_19_framing_is_injective():
    assert framed.join("l", b"ab", b"c") != framed.join("l", b"a", b"bc")
    assert framed.join("l", b"") != framed.join("l")
    assert framed.join("la", b"b") != framed.join("l", b"ab")


@given(st.lists(st.binary(max_size=9), max_size=4), st.lists(st.binary(max_size=9), max_size=4))
def test_rule_19_framing_never_collides(first, second):
    assert (framed.join("l", *first) == framed.join("l", *second)) == (first == second)


def test_reader_bounds():
    reader = Reader(b"\x01\x00\x02\x00\x00\x00\x03", "thing")
    assert (reader.u8(), reader.u16(), reader.u32()) == (1, 2, 3)
    reader.done()
    with pytest.raises(Malformed, match="thing"):
        reader.u8()
    with pytest.raises(Malformed):
        Reader(b"12", "thing").take(-1)
    with pytest.raises(Malformed, match="trailing"):
        Reader(b"12", "thing").done()


def test_dsse_pae_is_that_of_the_specification():
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == expected


def test_dsse_round_trip_and_type():
    one = dsse.Envelope(payload_type="a/b", payload=b"x", signatures=(dsse.Signature(keyid="k", sig=b"s"),))
    assert dsse.parse(one.encode(), payload_type="a/b", max_payload=10) == one
    with pytest.raises(Malformed, match="payloadType"):
        dsse.parse(one.encode(), payload_type="a/c", max_payload=10)
    with pytest.raises(Malformed):
        dsse.parse(one.encode(), payload_type="a/b", max_payload=0)


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "Q Q==", "QQ==\n", "-_==", "QQ====", "é"])
def test_base64_has_one_spelling(text):
    with pytest.raises(Malformed):
        fields.Fields({"a": text}, "x").data("a", max_bytes=10)


def test_fields_refuse_what_nobody_asked_for():
    one = fields.Fields({"a": "x", "b": 1}, "thing")
    assert one.text("a") == "x"
    with pytest.raises(Malformed, match="'b'"):
        one.done()


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", ".a", "a.", "-a", "a\n", "a" * 65, "\u0430"])
def test_rule_45_names_are_plain(name):
    with pytest.raises(Malformed):
        fields.Fields({"a": name}, "x").name("a")
