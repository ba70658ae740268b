"""Any bytes as a file of reference values: refused in words, or read; and never believed for a changed byte."""

from __future__ import annotations

import contextlib
import functools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.appraisal import intoto
from strongroom.appraisal.intoto import InTotoStatement, InTotoSubject
from strongroom.appraisal.reference import values
from strongroom.appraisal.reference.values import Reference, ReferenceRelease
from strongroom.bases import release_file
from strongroom.crypto import digest, sign
from strongroom.errors import Malformed, Refused
from tests.fuzz.mutations import mutations, often

NOW = datetime(2026, 11, 24, tzinfo=UTC)
KEY = sign.SigningKey(b"\x01" * 32)
TRUSTED = {digest.sha256(KEY.public.raw): KEY.public}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 53) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["format", "name", "version", "issued", "expires", "platforms", "profile", "tee", "references", "tcb",
             "_type", "subject", "predicate", "predicateType", "digest", "sha256"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


@functools.cache
def good():
    told = {"name": "it", "issued": NOW, "expires": NOW + timedelta(days=1)}
    one = Reference(**told, profile="snp", tee="snp", references=({"measurement": "aa" * 48},), tcb={})
    about = (InTotoSubject(name="snp/bzImage", digest="sha256:" + "1" * 64),)
    made = ReferenceRelease(**told, version=1, subjects=about, platforms=(one,))
    other = InTotoStatement(subjects=about, predicate_type=release_file.PROVENANCE, predicate={})
    return (
        b"\n".join(each.sign(KEY, keyid=digest.sha256(KEY.public.raw)) for each in (made.statement(), other))
        + b"\n"
    )


def test_the_good_one_is_good():
    assert release_file.verify(good(), trusted=TRUSTED, now=NOW).release.name == "it"


@often
@given(st.data())
def test_mutations_are_refused(data):
    changed = data.draw(mutations(good()))
    if changed in (good(), good()[:-1]):
        return
    try:
        made = release_file.verify(changed, trusted=TRUSTED, now=NOW)
    except (Malformed, Refused):
        return
    # What is left says what was signed: ids of keys are hints that nothing looks at.
    assert said(changed) <= said(good())
    assert made.release.name == "it"


def said(data):
    return {intoto.unverified(line).encode() for line in intoto.lines(data)}


@given(JSON)
def test_signed_nonsense_is_malformed(value):
    payload = json.dumps(value).encode()
    with pytest.raises(Malformed):
        values.read(intoto.parse(payload))
    whole = InTotoStatement(
        subjects=(InTotoSubject(name="x", digest="sha256:" + "1" * 64),),
        predicate_type=values.PREDICATE,
        predicate=value if isinstance(value, dict) else {},
    )
    with pytest.raises(Malformed):
        values.read(whole)


@given(st.binary(max_size=300))
def test_any_bytes(data):
    with contextlib.suppress(Malformed):
        for line in intoto.lines(data):
            intoto.unverified(line)
