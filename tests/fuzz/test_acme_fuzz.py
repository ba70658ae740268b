"""What strangers send as ACME: parsed, or refused by one of our errors, and never anything else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from strongroom.acme import tokens
from strongroom.crypto import jws
from strongroom.errors import Malformed, Refused
from strongroom.model import messages
from tests.effort import examples

TEXT = st.one_of(st.text(max_size=40), st.binary(max_size=40).map(jws.b64), st.sampled_from(["EC", "RSA", "OKP", "P-256", "Ed25519", "AQAB"]))  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "url", "protected", "payload", "signature"]), inner),
    ),
    max_leaves=10,
)  # fmt: skip
MAKER = tokens.TokenMaker(b"k" * 32)


@examples(300)
@given(st.one_of(st.binary(max_size=400), VALUES.map(lambda value: json.dumps(value).encode())))
def test_requests(data):
    for parse in (jws.parse, messages.parse_external_account):
        try:
            parse(data)
        except Malformed:
            pass


@examples(300)
@given(VALUES)
def test_keys(value):
    try:
        jws.read_jwk(value)
    except Malformed:
        pass


@examples(300)
@given(st.text(max_size=200))
def test_tokens(text):
    for read in (MAKER.read_external_account, MAKER.read_account, MAKER.read_order):
        try:
            read(text)
        except Refused:
            pass
        else:
            raise AssertionError(text)
