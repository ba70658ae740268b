"""The fast way and the UTF-16 way of sorting give one encoding, and neither skips a check."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import canonical
from strongroom.errors import Malformed

KEYS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_both_ways_of_sorting_agree(value):
    slow = json.dumps(canonical._sorted(value), ensure_ascii=False, separators=(",", ":")).encode()
    assert canonical.dumps(value) == slow


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([{"é": 1}, "\ud800"], "lone surrogate in text"),
        ([1, 2.5], "float has no place in canonical JSON"),
        ({"é": 1, "a": 2.5}, "float has no place in canonical JSON"),
        ({"a": "x", "b": ["\ud800"]}, "lone surrogate in text"),
        ({"\udfff": 1}, "lone surrogate in text"),
        ({"a": True, "b": 2**53}, "integer out of range"),
        ([[], {"é": []}, {1: 2}], "object key is not text"),
    ],
)
def test_nothing_is_skipped_after_a_key_that_is_not_ascii(bad, why):
    with pytest.raises(Malformed, match=why):
        canonical.dumps(bad)
