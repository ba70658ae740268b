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
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"1.0", "number '1.0' is not an integer"),
        (b"1e3", "number '1e3' is not an integer"),
        (b"NaN", "number 'NaN' is not an integer"),
        (b"Infinity", "number 'Infinity' is not an integer"),
        (b"-Infinity", "number '-Infinity' is not an integer"),
        (b'{"a":1,"a":2}', "duplicate key 'a'"),
        (b'{"a":{"b":1,"b":2}}', "duplicate key 'b'"),
        (b'"\\ud800"', "lone surrogate in text"),
        (b"[" * 40 + b"]" * 40, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9007199254740993", "integer out of range"),
        (b"{} {}", "not JSON"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"9" * 5000, "not JSON"),
    ],
)
def test_rule_16_strict_json(data, why):
    with pytest.raises(Malformed, match=why):
        canonical.loads(data, what="value", max_bytes=1 << 20)


def test_size_is_bounded_before_decoding():
    with pytest.raises(Malformed, match="at most 10"):
        canonical.loads(b"[" + b" " * 10 + b"]", what="value", max_bytes=10)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1.0, "float has no place in canonical JSON"),
        (b"x", "bytes has no place in canonical JSON"),
        ({1: 2}, "object key is not text"),
        (float("nan"), "float has no place in canonical JSON"),
        (1 << 60, "integer out of range"),
        (object(), "object has no place in canonical JSON"),
    ],
)
def test_what_json_must_not_hold(value, why):
    with pytest.raises(Malformed, match=why):
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
    with pytest.raises(Malformed, match="-1 bytes wanted at offset 0, 2 left"):
        Reader(b"12", "thing").take(-1)
    with pytest.raises(Malformed, match="trailing"):
        Reader(b"12", "thing").done()


def test_dsse_pae_is_that_of_the_specification():
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == expected


def test_dsse_round_trip_and_type():
    one = dsse.Envelope(
        payload_type="a/b", payload=b"x", signatures=(dsse.DsseSignature(keyid="k", sig=b"s"),)
    )
    assert dsse.parse(one.encode(), payload_type="a/b", max_payload=10) == one
    with pytest.raises(Malformed, match="payloadType"):
        dsse.parse(one.encode(), payload_type="a/c", max_payload=10)
    with pytest.raises(Malformed, match="payload: expected base64 of at most 0 bytes"):
        dsse.parse(one.encode(), payload_type="a/b", max_payload=0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("QQ", "a: expected base64"),
        ("QQ=", "a: expected base64"),
        ("QR==", "a: expected canonical base64"),
        ("Q Q==", "a: expected base64"),
        ("QQ==\n", "a: expected base64"),
        ("-_==", "a: expected base64"),
        ("QQ====", "a: expected base64"),
        ("é", "a: expected base64"),
    ],
)
def test_base64_has_one_spelling(text, why):
    with pytest.raises(Malformed, match=why):
        fields.Fields({"a": text}, "x").data("a", max_bytes=10)


def test_fields_refuse_what_nobody_asked_for():
    one = fields.Fields({"a": "x", "b": 1}, "thing")
    assert one.text("a") == "x"
    with pytest.raises(Malformed, match="'b'"):
        one.done()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "a: expected a name: at most 64"),
        ("A", "a: expected a name: at most 64"),
        ("a/b", "a: expected a name: at most 64"),
        ("..", "a: expected a name: at most 64"),
        (".a", "a: expected a name: at most 64"),
        ("a.", "a: expected a name: at most 64"),
        ("-a", "a: expected a name: at most 64"),
        ("a\n", "a: expected a name: at most 64"),
        ("a" * 65, "a: expected a name: at most 64"),
        ("\u0430", "a: expected a name: at most 64"),
    ],
)
def test_rule_45_names_are_plain(name, why):
    with pytest.raises(Malformed, match=why):
        fields.Fields({"a": name}, "x").name("a")


def test_what_is_said_of_a_bad_document_does_not_grow_with_it():
    """A broker answers with these words: 100 KB sent were 330 KB to send back."""
    key = "\U000e0001" * 20_000
    with pytest.raises(Malformed) as caught:
        canonical.loads(f'{{"{key}": 1, "{key}": 2}}'.encode(), what="text", max_bytes=1 << 20)
    assert caught.value.code == "duplicate-key"
    assert len(caught.value.message) < 500
