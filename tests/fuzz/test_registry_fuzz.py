"""Whatever a registry, a credentials file or a person writes: a value, or the one error that says so."""

from __future__ import annotations

import contextlib
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto import pinned_key
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.fetch.oci import login, names
from strongroom.images import artifact, signatures
from strongroom.images.limits import LIMITS

TEXTS = st.text(max_size=60) | st.text(alphabet="ab/:@.-_[]0sha256", max_size=120)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 50) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["auths", "a.example", "auth", "identitytoken", "schemaVersion", "mediaType", "config", "layers",
             "manifests", "digest", "size", "annotations", "subject", "artifactType", "token", "credsStore"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=24,
)  # fmt: skip
DOCUMENTS = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)

KEY = pinned_key.load(
    ed25519.Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)


@given(TEXTS)
def test_names(text):
    with contextlib.suppress(Misuse):
        made = names.parse(text)
        assert names.parse(str(made)) == made
        assert ".." not in made.repository.split("/")
    names.is_name(text)


@given(DOCUMENTS)
def test_credentials(data):
    with contextlib.suppress(Malformed, Refused):
        login.parse(data, host="r.example")


@given(TEXTS | st.text(max_size=40).map(lambda inner: f'Bearer realm="{inner}"'))
def test_challenges(text):
    with contextlib.suppress(Malformed):
        login.parse_challenge([text, text])


@given(DOCUMENTS)
def test_tokens(data):
    with contextlib.suppress(Malformed):
        assert login.parse_token(data).isascii()


@given(DOCUMENTS)
def test_artifacts(data):
    with contextlib.suppress(Malformed):
        artifact.parse(data, what="it", limits=LIMITS)
    with contextlib.suppress(Malformed):
        artifact.parse_list(data, what="it", limits=LIMITS)


@given(
    DOCUMENTS
    | st.sampled_from(
        [b'{"mediaType":"%s","verificationMaterial":{"publicKey":{}},"dsseEnvelope":%s}']
    ).flatmap(
        lambda frame: JSON.map(
            lambda inner: frame % (signatures.BUNDLE_TYPE.encode(), json.dumps(inner).encode())
        )
    )
)
def test_signatures_of_images(data):
    trust = signatures.Trust(keys=(KEY,))
    for candidate in (
        signatures.Bundle(data=data),
        signatures.Simple(payload=data, signature=data),
    ):
        with pytest.raises(Refused):
            signatures.verify(["sha256:" + "1" * 64], [candidate], trust=trust)
    for parse in (signatures.parse_simple, signatures.parse_statement):
        with contextlib.suppress(Malformed, Refused):
            parse(data)
    with contextlib.suppress(Malformed):
        pinned_key.load(data)
