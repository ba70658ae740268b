"""Any bytes to the CBOR reader and to COSE: a value, or `Malformed`, and soon."""

from __future__ import annotations

import time

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import cbor
from strongroom.errors import Malformed
from strongroom.evidence.formats import cose
from tests.fuzz.mutations import mutations, often

GOOD = cbor2.dumps({"a": [1, -2, b"bytes", "text", None, True], 5: {"b": [[], {}]}, -7: b"x" * 300})
SIGNED = cbor2.dumps([cbor2.dumps({1: -35}), {}, b"payload", b"s" * 96])


@often
@given(data=mutations(GOOD))
def test_rule_15_any_bytes_are_a_value_or_malformed(data):
    try:
        value = cbor.loads(data, "fuzz", tags=frozenset({18}))
    except Malformed:
        return
    assert value is None or isinstance(value, int | bytes | str | tuple | dict | cbor.Tagged)


@often
@given(data=mutations(GOOD))
def test_what_is_read_another_library_reads_alike(data):
    try:
        ours = cbor.loads(data, "fuzz")
    except Malformed:
        return
    theirs = cbor2.loads(data)
    assert repr(ours) == repr(_tuples(theirs))


@often
@given(data=mutations(SIGNED))
def test_rule_15_any_bytes_are_a_sign1_or_malformed(data):
    try:
        one = cose.parse(data, "fuzz")
    except Malformed:
        return
    assert one.signed().startswith(b"\x84\x6aSignature1")


@pytest.mark.parametrize("byte", range(256))
def test_rule_15_a_run_of_any_one_byte_ends_soon(byte):
    began = time.process_time()
    try:
        cbor.loads(bytes([byte]) * cbor.MAX_BYTES, "fuzz", tags=frozenset(range(24)))
    except Malformed:
        pass
    assert time.process_time() - began < 1


@often
@given(head=st.sampled_from([b"\x5b", b"\x7b", b"\x9b", b"\xbb", b"\xdb"]), size=st.integers(0, 2**64 - 1))
def test_rule_15_a_length_that_lies_allocates_nothing(head, size):
    with pytest.raises(Malformed):
        cbor.loads(head + size.to_bytes(8, "big") + b"x", "fuzz")


def _tuples(value):
    if isinstance(value, list | tuple):
        return tuple(_tuples(one) for one in value)
    if hasattr(value, "items"):
        return {key: _tuples(one) for key, one in value.items()}
    return value
