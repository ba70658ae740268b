"""EAR tokens: what a verdict becomes for others, and every token that a relying party must refuse."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.appraisal import ear, ear_token
from strongroom.appraisal.ear_token import Expected
from strongroom.appraisal.evaluate import Appraisal
from strongroom.crypto import sign
from strongroom.errors import Malformed, Refused
from strongroom.model.evidence import Evidence
from strongroom.model.verdict import Check
from tests.effort import examples
from tests.unit.appraisal.snp_claims import SNP

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEY, OTHER = sign.SigningKey(b"\x01" * 32), sign.SigningKey(b"\x02" * 32)
POLICY = "sha256:" + "33" * 32
NONCE = b"n" * 32
EVIDENCE = Evidence(tee="snp", parts={"report": b"x"})
CHECKS = tuple(
    Check(name=name, expected="a", got="a", ok=True)
    for name in (
        "evidence.verified",
        "platform.tee",
        "platform.simulated",
        "platform.debug",
        "platform.root",
        "platform.machine",
        "platform.reference.measurement",
        "platform.tcb.committed.snp",
    )
)
EXPECTED = Expected(key=KEY.public, issuer="verifier", audience="database", policy=POLICY, nonce=NONCE)


def appraisal(*bad, claims=SNP):
    checks = tuple(replace(one, ok=one.name not in bad) for one in CHECKS)
    return Appraisal(policy=POLICY, claims=claims, checks=checks, decided=NOW)


def result(verdict=None, **changes):
    made = ear.result(
        verdict or appraisal(),
        evidence=EVIDENCE,
        nonce=NONCE,
        issuer="verifier",
        audience="database",
        verifier="strongroom",
        expires=NOW + timedelta(hours=1),
    )
    return replace(made, **changes)


JWT, CWT = ear_token.to_jwt(result(), KEY), ear_token.to_cwt(result(), KEY)


def b64(value) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims_of(token=JWT):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def jwt(header=None, change=None, key=KEY):
    claims = claims_of()
    if change is not None:
        change(claims)
    head = {"alg": "EdDSA", "typ": "eat+jwt"} if header is None else header
    signed = f"{b64(head)}.{b64(claims)}"
    return f"{signed}.{b64(key.sign(signed.encode()))}"


def cwt(header=None, change=None, key=KEY, unprotected=None):
    protected, _, payload, _ = cbor2.loads(CWT).value
    claims = cbor2.loads(payload)
    if change is not None:
        change(claims)
    payload = cbor2.dumps(claims)
    protected = protected if header is None else cbor2.dumps(header)
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    return cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected or {}, payload, key.sign(signed)]))


def read_jwt(token, expected=EXPECTED, now=NOW):
    return ear_token.read_jwt(token, expected, now=now)


def read_cwt(token, expected=EXPECTED, now=NOW):
    return ear_token.read_cwt(token, expected, now=now)


def test_both_forms_say_the_same_and_are_read():
    assert read_jwt(JWT) == read_cwt(CWT) == result()
    assert read_jwt(jwt()) == result()
    assert read_cwt(cwt()) == result()
    told = claims_of()
    assert told["eat_profile"] == ear.PROFILE
    assert told["submods"]["snp"]["ear.status"] == "affirming"
    assert told["submods"]["snp"]["ear.trustworthiness-vector"] == {
        "instance-identity": 2,
        "configuration": 2,
        "executables": 3,
        "hardware": 2,
        "runtime-opaque": 2,
    }
    labels = cbor2.loads(cbor2.loads(CWT).value[2])
    assert {1, 3, 4, 6, 10, 265, 266, 1004} == labels.keys()
    assert labels[266]["snp"][1001] == {0: 2, 1: 2, 2: 3, 4: 2, 5: 2}


@pytest.mark.parametrize("last", [0x0A, 0x0D])
def test_a_token_is_read_whatever_its_last_byte_and_line_ends_around_text_do_not_count(last):
    keys = (sign.SigningKey(seed.to_bytes(32)) for seed in range(1, 9999))
    key, made = next((key, token) for key in keys if (token := ear_token.to_cwt(result(), key))[-1] == last)
    assert ear_token.read(made, replace(EXPECTED, key=key.public), now=NOW) == result()
    assert ear_token.read(JWT.encode() + b"\r\n", EXPECTED, now=NOW) == result()


def test_the_cbor_is_the_deterministic_one_of_another_library():
    payload = cbor2.loads(CWT).value[2]
    assert cbor2.dumps(cbor2.loads(payload), canonical=True) == payload


def test_key_ids_are_hints_that_nothing_looks_at():
    assert read_jwt(jwt({"alg": "EdDSA", "typ": "eat+jwt", "kid": "other"})) == result()
    assert read_cwt(cwt({1: -8, 16: "application/eat+cwt", 4: b"other"})) == result()


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "typ": "eat+jwt"},
        {"alg": "None", "typ": "eat+jwt"},
        {"alg": "HS256", "typ": "eat+jwt"},
        {"alg": "ES256", "typ": "eat+jwt"},
        {"alg": "eddsa", "typ": "eat+jwt"},
        {"alg": "EdDSA"},
        {"typ": "eat+jwt"},
        {"alg": "EdDSA", "typ": "JWT"},
        {"alg": "EdDSA", "typ": "eat+jwt", "jku": "https://example.com"},
        {"alg": "EdDSA", "typ": "eat+jwt", "x5u": "https://example.com"},
        {
            "alg": "EdDSA",
            "typ": "eat+jwt",
            "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(OTHER.public.raw)},
        },
        {"alg": "EdDSA", "typ": "eat+jwt", "x5c": []},
        {"alg": "EdDSA", "typ": "eat+jwt", "crit": []},
        {"alg": ["EdDSA"], "typ": "eat+jwt"},
        [],
    ],
)
def test_rule_24_the_algorithm_is_pinned_and_headers_bring_no_keys(header):
    for key in (KEY, OTHER):
        with pytest.raises(Refused) as caught:
            read_jwt(jwt(header, key=key))
        assert caught.value.code == "token-header"


def test_rule_24_no_signature_and_hmac_by_the_public_key_count_for_nothing():
    signed = f"{b64({'alg': 'none', 'typ': 'eat+jwt'})}.{JWT.split('.')[1]}"
    for token, why in (
        (f"{signed}.", "expected alg: EdDSA, typ: eat.jwt and no"),
        (f"{JWT.rsplit('.', 1)[0]}.", "not signed by the verifier's key"),
    ):
        with pytest.raises(Refused, match=why):
            read_jwt(token)
    signed = f"{b64({'alg': 'HS256', 'typ': 'eat+jwt'})}.{JWT.split('.')[1]}"
    tag = hmac.new(KEY.public.raw, signed.encode(), hashlib.sha256).digest()
    with pytest.raises(Refused, match=r"expected alg: EdDSA, typ: eat.jwt and no"):
        read_jwt(f"{signed}.{b64(tag)}")


@pytest.mark.parametrize(
    "header",
    [
        {1: -7, 16: "application/eat+cwt"},
        {1: 5, 16: "application/eat+cwt"},
        {1: -8},
        {16: "application/eat+cwt"},
        {1: -8, 16: "application/cwt"},
        {1: -8, 16: "application/eat+cwt", 33: b"x5chain"},
        {1: -8, 16: "application/eat+cwt", 35: "x5u"},
        {1: -8, 16: "application/eat+cwt", "jwk": "x"},
        {1: True, 16: "application/eat+cwt"},
    ],
)
def test_rule_24_the_same_for_cwt(header):
    with pytest.raises(Refused) as caught:
        read_cwt(cwt(header))
    assert caught.value.code == "token-header"


def test_rule_24_nothing_stands_in_a_header_that_is_not_signed():
    with pytest.raises(Malformed, match="expected an empty unprotected header"):
        read_cwt(cwt(unprotected={4: b"kid"}))
    with pytest.raises(Malformed, match="expected a header without critical entries"):
        read_cwt(cwt({1: -8, 2: [1], 16: "application/eat+cwt"}))


@pytest.mark.parametrize("read", [lambda: read_jwt(jwt(key=OTHER)), lambda: read_cwt(cwt(key=OTHER))])
def test_another_key_is_refused(read):
    with pytest.raises(Refused) as caught:
        read()
    assert caught.value.code == "token-signature"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": "other"}, "token-issuer"),
        ({"audience": "other"}, "token-audience"),
        ({"policy": "sha256:" + "44" * 32}, "token-policy"),
        ({"nonce": b"m" * 32}, "token-nonce"),
        ({"issuer": ""}, "token-issuer"),
        ({"audience": ""}, "token-audience"),
        ({"policy": ""}, "token-policy"),
    ],
)
def test_rule_24_issuer_audience_policy_and_nonce_are_the_expected_ones(changes, code):
    for read, token in ((read_jwt, JWT), (read_cwt, CWT)):
        with pytest.raises(Refused) as caught:
            read(token, replace(EXPECTED, **changes))
        assert caught.value.code == code


def test_rule_17_a_short_nonce_is_no_nonce():
    for nonce, why in (
        (b"", "0 bytes, expected 8 to 64"),
        (b"short", "5 bytes, expected 8 to 64"),
        (b"x" * 65, "65 bytes, expected 8 to 64"),
    ):
        with pytest.raises(Malformed, match=why):
            read_jwt(JWT, replace(EXPECTED, nonce=nonce))
        with pytest.raises(Malformed, match=why):
            ear_token.to_jwt(result(nonce=nonce), KEY)


def test_rule_24_tokens_end():
    late = NOW + timedelta(hours=1)
    assert read_jwt(JWT, now=late - timedelta(seconds=1)) == result()
    for now in (late, NOW - timedelta(seconds=1)):
        for read, token in ((read_jwt, JWT), (read_cwt, CWT)):
            with pytest.raises(Refused) as caught:
                read(token, now=now)
            assert caught.value.code == "token-time"
    eternal = ear_token.to_jwt(result(expires=NOW + timedelta(days=2)), KEY)
    with pytest.raises(Refused, match="from 2026-11-24T12:00:00Z to 2026-11-26T12:00:00Z, used"):
        read_jwt(eternal)


@pytest.mark.parametrize(
    "vector",
    [
        {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 0},
        {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 1},
        {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": -1},
        {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 32},
        {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 96},
        {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": -2},
        {"instance-identity": 2, "configuration": 2, "executables": 3},
        {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 2, "file-system": 0},
        {},
    ],
)
def test_rule_35_no_claim_and_zero_affirm_nothing(vector):
    for read, token in (
        (read_jwt, ear_token.to_jwt(result(vector=vector), KEY)),
        (read_cwt, ear_token.to_cwt(result(vector=vector), KEY)),
    ):
        with pytest.raises(Refused) as caught:
            read(token)
        assert caught.value.code == "token-not-affirming"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (0, "none; not affirmed: the whole"),
        (32, "warning; not affirmed: the whole"),
        (96, "contraindicated; not affirmed: the whole"),
    ],
)
def test_rule_35_only_affirming_is_affirming(status, why):
    with pytest.raises(Refused, match=why):
        read_jwt(ear_token.to_jwt(result(status=status), KEY))
    with pytest.raises(Refused, match=why):
        read_cwt(ear_token.to_cwt(result(status=status), KEY))


@pytest.mark.parametrize(
    ("bad", "claim", "value", "why"),
    [
        ("evidence.verified", "instance-identity", 97, "contraindicated; not affirmed: instance-identity"),
        ("platform.root", "instance-identity", 97, "contraindicated; not affirmed: instance-identity"),
        ("platform.machine", "instance-identity", 97, "contraindicated; not affirmed: instance-identity"),
        ("platform.reference.measurement", "executables", 33, "contraindicated; not affirmed: executables"),
        ("platform.tcb.committed.snp", "hardware", 32, "contraindicated; not affirmed: hardware"),
        ("platform.debug", "configuration", 96, "contraindicated; not affirmed: configuration"),
    ],
)
def test_each_failed_check_shows_in_its_claim_and_the_whole_is_contraindicated(bad, claim, value, why):
    made = result(appraisal(bad))
    assert made.vector[claim] == value
    assert made.status == ear.CONTRAINDICATED
    with pytest.raises(Refused, match=why):
        read_jwt(ear_token.to_jwt(made, KEY))


def test_rule_33_software_standing_in_is_contraindicated_though_a_contract_accepts_it():
    made = result(appraisal(claims=replace(SNP, simulated=True)))
    assert made.vector["hardware"] == 97
    assert "runtime-opaque" not in made.vector
    assert made.status == ear.CONTRAINDICATED
    debug = result(appraisal(claims=replace(SNP, debug=True)))
    assert debug.vector["configuration"] == 96
    assert debug.vector["runtime-opaque"] == 96


def test_evidence_that_did_not_verify_affirms_nothing():
    refused = Appraisal(policy=POLICY, claims=None, checks=(replace(CHECKS[0], ok=False),), decided=NOW)
    made = result(refused)
    assert made.vector == {"instance-identity": 97}
    assert made.status == ear.CONTRAINDICATED
    assert result(Appraisal(policy=POLICY, claims=SNP, checks=(), decided=NOW)).status == ear.CONTRAINDICATED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda claims: claims.pop("exp"), "key 'exp' is missing"),
        (lambda claims: claims.pop("submods"), "key 'submods' is missing"),
        (lambda claims: claims.update(extra=1), "unknown key 'extra'"),
        (lambda claims: claims.update(exp="soon"), "exp: expected an integer from 0 to"),
        (lambda claims: claims.update(aud=["database"]), "aud: expected text of 1 to 256 characters"),
        (
            lambda claims: claims["submods"].update(second=claims["submods"]["snp"]),
            "expected exactly one attester",
        ),
        (
            lambda claims: claims["submods"]["snp"].update({"ear.status": 2}),
            "status: expected text of 1 to 16 characters",
        ),
        (
            lambda claims: claims["submods"]["snp"].update({"ear.status": "fine"}),
            "expected a status among .* and claims of AR4SI alone, got",
        ),
        (
            lambda claims: claims["submods"]["snp"]["ear.trustworthiness-vector"].update(mood=2),
            "expected a status among .* and claims of AR4SI alone, got",
        ),
        (
            lambda claims: claims["submods"]["snp"]["ear.trustworthiness-vector"].update(hardware=True),
            "hardware: expected an integer from -128 to 127",
        ),
    ],
)
def test_claims_that_are_unknown_missing_or_odd_are_refused(change, why):
    with pytest.raises(Malformed, match=why):
        read_jwt(jwt(change=change))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda claims: claims.pop(4), "key 4 is missing"),
        (lambda claims: claims.update({7: b"id"}), "unknown key 7"),
        (
            lambda claims: claims[266].update(second=claims[266]["snp"]),
            "266: expected a map of 1 to 1 entries",
        ),
        (lambda claims: claims[266]["snp"].update({1000: 3}), "expected a status among .*, got"),
        (lambda claims: claims[266]["snp"].update({1000: True}), "1000: expected an integer from 0 to 127"),
        (
            lambda claims: claims[266]["snp"][1001].update({8: 2}),
            "expected claims of AR4SI, 0 to 7, with integers, got claim",
        ),
        (
            lambda claims: claims[266]["snp"][1001].update({4: "2"}),
            "expected claims of AR4SI, 0 to 7, with integers, got claim",
        ),
        (lambda claims: claims[266]["snp"].update({1003: "policy"}), "1003: expected sha256: and 64"),
    ],
)
def test_the_same_for_cwt_claims(change, why):
    with pytest.raises(Malformed, match=why):
        read_cwt(cwt(change=change))


def test_another_profile_is_refused():
    with pytest.raises(Refused, match=r"expected the profile .* by .*, got"):
        read_jwt(jwt(change=lambda claims: claims.update(eat_profile="tag:example.com,2026:mine")))
    with pytest.raises(Refused, match=r"expected the profile .* by .*, got"):
        read_cwt(cwt(change=lambda claims: claims.update({265: "tag:example.com,2026:mine"})))


def test_every_changed_byte_of_a_token_is_refused():
    for index in range(len(CWT)):
        flipped = bytearray(CWT)
        flipped[index] ^= 1
        with pytest.raises((Refused, Malformed)):
            read_cwt(bytes(flipped))
    for index in range(len(JWT)):
        letter = "A" if JWT[index] != "A" else "B"
        with pytest.raises((Refused, Malformed)):
            read_jwt(JWT[:index] + letter + JWT[index + 1 :])


@examples(200)
@given(
    st.one_of(st.text(max_size=200), st.text(alphabet=".eyJhbGciOi_-=", max_size=200)),
    st.binary(max_size=200),
)
def test_any_bytes_are_refused_in_words(text, data):
    with pytest.raises((Malformed, Refused)):
        read_jwt(text)
    with pytest.raises((Malformed, Refused)):
        read_cwt(data)
