"""Whatever a registry, a credentials file or a person writes: a value, or the one error that says so."""

from __future__ import annotations

import contextlib
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from strongroom.convert import artifact, image_signatures
from strongroom.convert.limits import LIMITS
from strongroom.crypto import pinned_key
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.fetch import registry_login, registry_names

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
        made = registry_names.parse(text)
        assert registry_names.parse(str(made)) == made
        assert ".." not in made.repository.split("/")
    registry_names.is_name(text)


@given(DOCUMENTS)
def test_credentials(data):
    with contextlib.suppress(Malformed, Refused):
        registry_login.parse(data, host="r.example")


@given(TEXTS | st.text(max_size=40).map(lambda inner: f'Bearer realm="{inner}"'))
def test_challenges(text):
    with contextlib.suppress(Malformed):
        registry_login.parse_challenge([text, text])


@given(DOCUMENTS)
def test_tokens(data):
    with contextlib.suppress(Malformed):
        assert registry_login.parse_token(data).isascii()


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
            lambda inner: frame % (image_signatures.BUNDLE_TYPE.encode(), json.dumps(inner).encode())
        )
    )
)
def test_signatures_of_images(data):
    trust = image_signatures.Trust(keys=(KEY,))
    for candidate in (
        image_signatures.Bundle(data=data),
        image_signatures.Simple(payload=data, signature=data),
    ):
        with pytest.raises(Refused):
            image_signatures.verify(["sha256:" + "1" * 64], [candidate], trust=trust)
    for parse in (image_signatures.parse_simple, image_signatures.parse_statement):
        with contextlib.suppress(Malformed, Refused):
            parse(data)
    with contextlib.suppress(Malformed):
        pinned_key.load(data)
