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
    "bad",
    [
        [{"é": 1}, "\ud800"],
        [1, 2.5],
        {"é": 1, "a": 2.5},
        {"a": "x", "b": ["\ud800"]},
        {"\udfff": 1},
        {"a": True, "b": 2**53},
        [[], {"é": []}, {1: 2}],
    ],
)
def test_nothing_is_skipped_after_a_key_that_is_not_ascii(bad):
    with pytest.raises(Malformed):
        canonical.dumps(bad)
