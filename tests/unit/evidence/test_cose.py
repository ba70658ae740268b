"""COSE_Sign1: what another library would sign is verified; headers, tags and sizes that are not known are refused."""

from __future__ import annotations

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.crypto import public_key
from strongroom.errors import Malformed, Refused
from strongroom.evidence.formats import cose
from strongroom_testing.vendors import certificate_maker as maker
from strongroom_testing.vendors.fake_aws import raw_signature

P384, P256 = maker.new_key(), maker.new_key(ec.SECP256R1())
KEYS = {-35: (P384, 48), -7: (P256, 32)}


def public(key) -> public_key.PublicKey:
    return public_key.key_of_spki(maker.spki(key))


def document(
    algorithm=-35, *, payload=b"payload", protected=None, unprotected=None, tag=b"", signature=None
) -> bytes:
    key, size = KEYS[algorithm]
    header = cbor2.dumps({1: algorithm}) if protected is None else protected
    made = raw_signature(key, cbor2.dumps(["Signature1", header, b"", payload]), size=size)
    body = [header, unprotected or {}, payload, made if signature is None else signature]
    return tag + cbor2.dumps(body)


@pytest.mark.parametrize("algorithm", [-35, -7])
@pytest.mark.parametrize("tag", [b"", b"\xd2"])
@pytest.mark.parametrize("size", [1, 23, 24, 255, 256, 50_000])
def test_a_sound_signature_verifies(algorithm, tag, size):
    one = cose.parse(document(algorithm, payload=b"x" * size, tag=tag), "test")
    cose.check(one, public(KEYS[algorithm][0]))
    with pytest.raises(Refused, match="signature does not verify"):
        cose.check(one, public(maker.new_key(KEYS[algorithm][0].curve)))


def test_the_signed_bytes_are_those_of_another_library():
    for size in (1, 23, 24, 255, 256, 65_535, 65_536):
        one = cose.Sign1(protected=b"\xa1\x01\x38\x22", algorithm=-35, payload=b"x" * size, signature=b"")
        assert one.signed() == cbor2.dumps(["Signature1", one.protected, b"", one.payload])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (document(protected=b""), "expected a protected header with the algorithm ES256 or"),
        (document(protected=b"\xa0"), "expected a protected header with the algorithm ES256 or"),
        (
            document(protected=cbor2.dumps({1: -36})),
            "expected a protected header with the algorithm ES256 or",
        ),
        (
            document(protected=cbor2.dumps({1: -35, 4: b"kid"})),
            "expected a protected header with the algorithm ES256 or",
        ),
        (
            document(protected=b"\xa1\x01\x39\x00\x22"),
            "expected a protected header with the algorithm ES256 or",
        ),
        (document(unprotected={4: b"kid"}), "expected an empty unprotected header"),
        (document(unprotected={1: -35}), "expected an empty unprotected header"),
        (document(signature=bytes(95)), "expected a signature of 96 bytes"),
        (document(signature=bytes(97)), "expected a signature of 96 bytes"),
        (document(-7, signature=bytes(96)), "expected a signature of 64 bytes"),
        (document(payload=b""), "expected a payload"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", {}, None, bytes(96)]), "expected a payload"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", {}, "text", bytes(96)]), "expected a payload"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", {}, b"x"]), "expected a COSE_Sign1, an array of four"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", [], b"x", bytes(96)]), "expected an empty unprotected header"),
        (
            cbor2.dumps([{1: -35}, {}, b"x", bytes(96)]),
            "expected a protected header with the algorithm ES256 or",
        ),
        (cbor2.dumps({}), "expected a COSE_Sign1, an array of four"),
        (document(tag=b"\xd1"), "tag 17, which has no place here"),
        (document(tag=b"\xd2\xd2"), "expected a COSE_Sign1, an array of four"),
        (document() + b"\0", "1 trailing bytes"),
    ],
)
def test_what_is_not_a_sign1_of_ours_is_malformed(data, why):
    with pytest.raises(Malformed, match=why):
        cose.parse(data, "test")


def test_rule_16_r_and_s_are_in_range():
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
    good = cose.parse(document(), "test").signature
    r, s = good[:48], good[48:]
    for signature in (
        bytes(48) + s,
        r + bytes(48),
        order.to_bytes(48, "big") + s,
        r + order.to_bytes(48, "big"),
        b"\xff" * 96,
        bytes(96),
    ):
        with pytest.raises(Refused, match="order"):
            cose.check(cose.parse(document(signature=signature), "test"), public(P384))


def test_algorithm_and_key_have_to_fit():
    """An ES256 header does not make a P-384 key sign with SHA-256, nor the other way round."""
    with pytest.raises(Refused, match="key"):
        cose.check(cose.parse(document(-7), "test"), public(P384))
    with pytest.raises(Refused, match="key"):
        cose.check(cose.parse(document(-35), "test"), public(P256))
