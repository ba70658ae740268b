"""The fast encoder writes, byte for byte, what the standard library writes; and nothing that is refused."""

from __future__ import annotations

import enum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.encoding import canonical
from strongroom.errors import Malformed
from strongroom.wiring import broker
from tests.effort import examples

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
LEAVES = st.none() | st.booleans() | st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER) | TEXT
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(TEXT, inner, max_size=6)
    ),
    max_leaves=60,
)


class Word(enum.StrEnum):
    YES = "yes"


class Number(enum.IntEnum):
    SEVEN = 7


@pytest.fixture(autouse=True)
def restored():
    before = canonical._encoder
    yield
    canonical.write_with(before)


def both(value):
    canonical.write_with(canonical.by_json)
    plain = canonical.dumps(value)
    canonical.write_with(broker.fast_encoder)
    return plain, canonical.dumps(value)


@examples(300)
@given(VALUES)
@example("".join(map(chr, [*range(0xD800), *range(0xE000, 0x3000 + 0xE000)])))
@example({"\U00010000": 1, "\uffff": 2, "\x7f": "\x00\x1f\x7f\u2028\u2029</script>", "é": '\\"/'})
@example([canonical.MAX_INTEGER, -canonical.MAX_INTEGER, 0, True, False, None, "", [], {}, ()])
@example({Word.YES: Word.YES, "n": Number.SEVEN})
def test_both_encoders_write_the_same_bytes(value):
    plain, fast = both(value)
    assert fast == plain
    assert canonical.dumps(canonical.loads(fast, what="test", max_bytes=len(fast))) == fast


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (1.5, "bad-type"),
        ({"a": [float("nan")]}, "bad-type"),
        (2**53, "integer-range"),
        ([-(2**53)], "integer-range"),
        ("\ud800", "bad-text"),
        ({"\udfff": 1}, "bad-text"),
        ({1: 2}, "bad-key"),
        (nested(canonical.MAX_DEPTH + 1), "too-deep"),
        (b"bytes", "bad-type"),
        ({1, 2}, "bad-type"),
    ],
)
def test_what_the_subset_lacks_is_refused_whoever_writes(value, code):
    for encoder in (canonical.by_json, broker.fast_encoder):
        canonical.write_with(encoder)
        with pytest.raises(Malformed) as caught:
            canonical.dumps(value)
        assert caught.value.code == code


def test_the_deepest_value_that_is_allowed_is_written_by_both():
    plain, fast = both(nested(canonical.MAX_DEPTH))
    assert plain == fast == b"[" * canonical.MAX_DEPTH + b"1" + b"]" * canonical.MAX_DEPTH
