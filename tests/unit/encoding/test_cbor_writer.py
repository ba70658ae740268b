"""CBOR as it is written: read back by our reader and by another library; and COSE_Sign1 with a header."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import cbor, cbor_writer, sign1
from strongroom.errors import Malformed

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.binary(max_size=300)
    | st.text(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.integers(-(1 << 32), 1 << 32) | st.text(max_size=10), inner, max_size=5)
    ),
    max_leaves=12,
)


def lists(value):
    if isinstance(value, tuple | list):
        return [lists(one) for one in value]
    if isinstance(value, dict):
        return {key: lists(one) for key, one in value.items()}
    return value


@given(VALUES)
def test_what_is_written_is_read(value):
    data = cbor_writer.dumps(value)
    assert lists(cbor2.loads(data)) == lists(value)
    assert cbor.loads(data, "x", max_depth=32, max_items=4096) == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1 << 64, "an integer of more than 64 bits"),
        (-(1 << 64) - 1, "an integer of more than 64 bits"),
        (1.5, "float has no place in it"),
        (object(), "object has no place in it"),
        ({b"x": 1.0}, "float has no place in it"),
    ],
)
def test_what_has_no_place_is_refused(value, why):
    with pytest.raises(Malformed, match=why):
        cbor_writer.dumps(value)


def test_nesting_is_bounded():
    value: object = ()
    for _ in range(40):
        value = (value,)
    with pytest.raises(Malformed, match="nested too deeply"):
        cbor_writer.dumps(value)


def test_limits_of_the_reader_are_the_callers():
    value: object = 1
    for _ in range(10):
        value = (value,)
    deep = cbor_writer.dumps(value)
    with pytest.raises(Malformed, match="nested deeper than 8"):
        cbor.loads(deep, "x")
    assert cbor.loads(deep, "x", max_depth=16)
    many = cbor_writer.dumps(tuple(range(600)))
    with pytest.raises(Malformed, match="items allowed"):
        cbor.loads(many, "x")
    assert len(cbor.loads(many, "x", max_items=700)) == 600


def test_a_message_is_read_as_it_was_made():
    made = sign1.make({1: sign1.EDDSA, 3: "text/plain"}, b"payload")
    whole = sign1.Message(
        protected=made.protected, header=made.header, payload=made.payload, signature=b"s" * 64
    )
    assert sign1.parse(whole.encode(), "x", max_bytes=1024) == whole
    assert cbor2.loads(whole.signed()) == ["Signature1", made.protected, b"", b"payload"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ((b"\xa0", {}, b"p", b"s"), "expected a COSE_Sign1, tag 18 over an array of four"),
        (cbor.Tagged(17, (b"\xa0", {}, b"p", b"s")), "tag 17, which has no place here"),
        (cbor.Tagged(18, (b"", {}, b"p", b"s")), "expected a protected header"),
        (cbor.Tagged(18, (b"\xa0", {4: b"k"}, b"p", b"s")), "expected an empty unprotected header"),
        (cbor.Tagged(18, (b"\xa0", {}, b"", b"s")), "expected a payload"),
        (cbor.Tagged(18, (b"\xa0", {}, None, b"s")), "expected a payload"),
        (cbor.Tagged(18, (b"\xa0", {}, b"p", b"")), "expected a signature"),
        (cbor.Tagged(18, (b"\xa0", {}, b"p", b"s" * 1025)), "expected a signature"),
        (cbor.Tagged(18, (b"\x80", {}, b"p", b"s")), "expected a header without critical entries"),
        (cbor.Tagged(18, (b"\xa1\x02\x80", {}, b"p", b"s")), "expected a header without critical entries"),
        (cbor.Tagged(18, (b"\xa0", {}, b"p")), "expected a COSE_Sign1, tag 18 over an array of four"),
    ],
)
def test_other_messages_are_refused(value, why):
    with pytest.raises(Malformed, match=why):
        sign1.parse(cbor_writer.dumps(value), "x", max_bytes=4096)
