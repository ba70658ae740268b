"""What strangers send to an authority, and what a contract says of a certificate: any bytes are read, or refused by `Malformed`."""

from __future__ import annotations

import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto.pki import certificates, ocsp_answers
from strongroom.encoding import fields
from strongroom.errors import Malformed, Misuse
from strongroom.model.contracts import certificate_terms
from strongroom.model.contracts.certificate_terms import CertificateTerms, Delivery, KeyKind, Usage
from strongroom.wiring import token_key
from tests.effort import examples
from tests.unit.agent import tls_material

_LEAF, _ISSUER, _ROOT = tls_material.generation("alice").chains["alice"]
WHOLE = CertificateTerms(
    names=("room.flights.example",),
    lifetime_seconds=600,
    key=KeyKind.RSA_3072,
    usages=(Usage.CLIENT,),
    trust_domain="a.example",
    delivery=Delivery(uid=101, gid=102),
)
QUESTION = (
    ocsp.OCSPRequestBuilder()
    .add_certificate(*(x509.load_der_x509_certificate(der) for der in (_LEAF, _ISSUER)), hashes.SHA256())
    .add_extension(x509.OCSPNonce(b"n" * 16), critical=False)
    .build()
    .public_bytes(serialization.Encoding.DER)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def read(parse, *given_, allowed=Malformed):
    try:
        return parse(*given_)
    except allowed:
        return None


@examples(2000)
@given(st.integers(0, len(QUESTION) - 1), st.integers(0, 255), st.integers(0, len(QUESTION)))
def test_a_question_with_a_byte_changed_or_cut_is_read_or_malformed(at, value, end):
    changed = bytearray(QUESTION)
    changed[at] = value
    for data in (bytes(changed), QUESTION[:end]):
        question = read(ocsp_answers.read, data)
        if question is not None:
            assert ocsp_answers.is_about(question, _ISSUER) in (True, False)


@examples(500)
@given(st.binary(max_size=200))
def test_any_bytes_are_no_question_or_a_key_of_a_known_kind(data):
    read(ocsp_answers.read, data)
    assert certificates.key_kind(data) in ("", "ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072")


@examples(1000)
@given(st.sampled_from([*WHOLE.to_json(), *(f"delivery.{key}" for key in WHOLE.delivery.to_json())]), VALUES)
def test_terms_with_any_value_anywhere_are_read_or_malformed(key, value):
    document = json.loads(json.dumps(WHOLE.to_json()))
    *within, last = key.split(".")
    (document["delivery"] if within else document)[last] = value
    terms = read(lambda: certificate_terms.read(fields.Fields(document, "certificate")))
    if terms is not None:
        assert terms.to_json() == document


@examples(500)
@given(st.text(max_size=80))
def test_any_text_is_a_uri_or_misuse(text):
    for uri in (text, f"pkcs11:{text}", f"pkcs11:token=a;object=b?module-path=/x{text}"):
        parsed = read(token_key.parse, uri, allowed=Misuse)
        if parsed is not None:
            assert token_key.parse(parsed.encode()) == parsed
