"""The strict CBOR profile: what cbor2 writes is read alike; whatever is ambiguous, unknown or too much is refused."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import cbor
from strongroom.errors import Malformed

KEYS = st.one_of(st.integers(-(2**64), 2**64 - 1), st.text(max_size=20))
LEAVES = st.one_of(
    st.integers(-(2**64), 2**64 - 1), st.binary(max_size=300), st.text(max_size=300), st.booleans(), st.none()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def plain(value):
    """As cbor2 is given it: arrays as lists."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


@given(VALUES)
def test_what_another_library_writes_is_read_alike(value):
    data = cbor2.dumps(value)
    try:
        read = cbor.loads(data, "test")
    except Malformed as cause:
        assert cause.code == "too-deep"  # noqa: PT017 - the one limit that these values may meet
        return
    assert plain(read) == value
    assert repr(plain(read)) == repr(value), "types too: true is not 1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9f010203ff", (1, 2, 3)),
        ("bf616101ff", {"a": 1}),
        ("5f42010243030405ff", b"\1\2\3\4\5"),
        ("7f61616162ff", "ab"),
        ("5fff", b""),
        ("9fff", ()),
        ("bfff", {}),
        ("9f9f01ffbf0102ffff", ((1,), {1: 2})),
    ],
)
def test_indefinite_lengths(text, value):
    assert cbor.loads(bytes.fromhex(text), "test") == value


@pytest.mark.parametrize(
    ("text", "what", "why"),
    [
        ("", "nothing", "ends too soon"),
        ("1801", "an integer that has a shorter form", "not in its shortest form"),
        ("190017", "an integer in two bytes that fits the first", "not in its shortest form"),
        ("1900ff", "an integer in two bytes that fits one", "not in its shortest form"),
        ("1a0000ffff", "four bytes for two", "not in its shortest form"),
        ("1b00000000ffffffff", "eight bytes for four", "not in its shortest form"),
        ("3817", "a negative integer that has a shorter form", "not in its shortest form"),
        ("5801aa", "a length that has a shorter form", "not in its shortest form"),
        ("980101", "an array's length that has a shorter form", "not in its shortest form"),
        ("b8010101", "a map's length that has a shorter form", "not in its shortest form"),
        ("1c", "a reserved length", "a reserved length"),
        ("1f", "an integer of indefinite length", "integer or tag of indefinite length"),
        ("3f", "a negative integer of indefinite length", "integer or tag of indefinite length"),
        ("df00", "a tag of indefinite length", "integer or tag of indefinite length"),
        ("ff", "a break alone", "a break outside of an item"),
        ("81ff", "a break in a definite array", "a break outside of an item"),
        ("a1ff", "a break in a definite map", "a map's key that is neither"),
        ("bf01ff", "a key without its value", "a break for a value"),
        ("a101ff", "a break for a value", "a break for a value"),
        ("f93c00", "a half float", "a float, or a simple value"),
        ("fa3f800000", "a float", "a float, or a simple value"),
        ("fb3ff0000000000000", "a double", "a float, or a simple value"),
        ("f7", "undefined", "a float, or a simple value"),
        ("f0", "an unassigned simple value", "a float, or a simple value"),
        ("f8ff", "a simple value in two bytes", "a float, or a simple value"),
        ("a201020103", "a key twice", "a key given twice"),
        ("bf01020103ff", "a key twice, of indefinite length", "a key given twice"),
        ("a1f501", "true for a key", "a map's key that is neither"),
        ("a14001", "bytes for a key", "a map's key that is neither"),
        ("a18001", "an array for a key", "a map's key that is neither"),
        ("61ff", "text that is not UTF-8", "text that is not UTF-8"),
        ("7f61c361a9ff", "a character across two pieces", "text that is not UTF-8"),
        ("62eda0", "half a surrogate", "text that is not UTF-8"),
        ("63eda080", "a surrogate", "text that is not UTF-8"),
        ("5f6161ff", "text among bytes", "a string with a piece of another kind"),
        ("7f4161ff", "bytes among text", "a string with a piece of another kind"),
        ("5f5f4101ffff", "pieces in pieces", "a string with a piece of another kind"),
        ("5f41", "pieces that end too soon", "ends too soon"),
        ("0000", "a byte after the item", "1 trailing bytes"),
        ("d2f6", "a tag that nobody named", "tag 18, which has no place here"),
        ("5affffffff00", "a length beyond the data", "ends too soon"),
        ("9bffffffffffffffff", "an array beyond the data", "items announced"),
        ("bb00000001ffffffff", "a map beyond the data", "items announced"),
        ("9f", "an array without an end", "ends too soon"),
        ("19ff", "an integer that ends too soon", "ends too soon"),
    ],
)
def test_what_is_refused(text, what, why):
    with pytest.raises(Malformed, match=f"^{what}: .*{why}"):
        cbor.loads(bytes.fromhex(text), what)


def test_rule_16_true_and_one_are_two_things():
    assert cbor.loads(b"\x82\xf5\x01", "test") == (True, 1)
    with pytest.raises(Malformed, match="1: expected an integer from 0 to 5"):
        cbor.Map({1: True}, "test").integer(1, low=0, high=5)


def test_tags_are_read_only_when_named():
    assert cbor.loads(b"\xd2\x01", "test", tags=frozenset({18})) == cbor.Tagged(18, 1)
    with pytest.raises(Malformed, match="tag 18, which has no place here"):
        cbor.loads(b"\xd2\x01", "test", tags=frozenset({399}))


def test_rule_15_depth_items_and_bytes_are_bounded():
    deepest = b"\x81" * cbor.MAX_DEPTH + b"\x01"
    assert cbor.loads(deepest, "test")
    for data, why in (
        (b"\x81" + deepest, "nested deeper than 8"),
        (b"\x9f" * 100_000, "nested deeper than 8"),
        (b"\xd2" * 50_000, "nested deeper than 8"),
        (b"\x9f" + b"\x01" * cbor.MAX_ITEMS + b"\xff", "more than 512 items"),
        (b"\x5f" + b"\x40" * cbor.MAX_ITEMS + b"\xff", "more than 512 items"),
        (
            b"\x99" + (cbor.MAX_ITEMS + 1).to_bytes(2, "big") + b"\x01" * 600,
            "items allowed",
        ),
    ):
        with pytest.raises(Malformed, match=why):
            cbor.loads(data, "test", tags=frozenset({18}), max_bytes=100_000)
    with pytest.raises(Malformed, match="65537 bytes, at most 65536 allowed"):
        cbor.loads(bytes(cbor.MAX_BYTES + 1), "test")
    many = b"\x59\xff\xfd" + bytes(0xFFFD)
    assert len(many) == cbor.MAX_BYTES
    assert cbor.loads(many, "test") == bytes(0xFFFD)


def test_a_map_is_consumed_whole():
    source = cbor.Map({"a": 1, "b": b"xy", "c": "text", "d": (1,), "e": {}, "n": None}, "test")
    assert source.integer("a", low=1, high=1) == 1
    assert source.data("b", low=2, high=2) == b"xy"
    assert source.text("c", high=4) == "text"
    assert source.items("d", low=1, high=1) == (1,)
    assert source.mapping("e", low=0, high=0) == {}
    assert source.data_or_null("n", low=1, high=1) is None
    assert source.data_or_null("absent", low=1, high=1) is None
    source.done()


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda source: source.integer("a", low=2, high=3), "a: expected an integer from 2 to 3"),
        (lambda source: source.data("a", low=0, high=9), "a: expected 0 to 9 bytes"),
        (lambda source: source.data("b", low=3, high=9), "b: expected 3 to 9 bytes"),
        (lambda source: source.data("b", low=0, high=1), "b: expected 0 to 1 bytes"),
        (lambda source: source.data_or_null("a", low=0, high=9), "a: expected 0 to 9 bytes"),
        (lambda source: source.text("c", high=3), "c: expected printable text of 1 to 3 characters"),
        (lambda source: source.text("b", high=3), "b: expected printable text of 1 to 3 characters"),
        (lambda source: source.text("line", high=9), "line: expected printable text of 1 to 9 characters"),
        (lambda source: source.text("empty", high=9), "empty: expected printable text of 1 to 9 characters"),
        (lambda source: source.items("d", low=2, high=3), "d: expected an array of 2 to 3 items"),
        (lambda source: source.items("e", low=0, high=3), "e: expected an array of 0 to 3 items"),
        (lambda source: source.mapping("d", low=0, high=3), "d: expected a map of 0 to 3 entries"),
        (lambda source: source.value("absent"), "key 'absent' is missing"),
        (lambda source: source.done(), "unknown key 'a', 'b', 'c', 'd', 'e'"),
    ],
)
def test_a_map_refuses_what_was_not_asked_for(ask, why):
    values = {"a": 1, "b": b"xy", "c": "text", "d": (1,), "e": {}, "line": "a\nb", "empty": ""}
    with pytest.raises(Malformed, match=why):
        ask(cbor.Map(values, "test"))
    with pytest.raises(Malformed, match="expected a map"):
        cbor.Map([values], "test")
