"""One meaning of "signed by": a signature counts by the key that verifies it, whatever key id it stands under."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.crypto import digest, sign
from strongroom.encoding import dsse
from strongroom.model import signatures

ALICE, BOB, CAROL = (sign.SigningKey(bytes([at]) * 32) for at in (1, 2, 3))
KEYS = tuple(key.public for key in (ALICE, BOB, CAROL))
EMPTY = dsse.Envelope(payload_type="text/plain", payload=b"agreed", signatures=())


def keyid(key):
    return digest.sha256(key.public.raw)


def by(key, named=None):
    """What `key` signed, under the key id of `named`."""
    return dsse.DsseSignature(keyid=keyid(named or key), sig=key.sign(EMPTY.pae()))


def junk(at, keyid="stranger"):
    return dsse.DsseSignature(keyid=keyid, sig=bytes([at]) * 64)


def envelope(*made):
    """Parsed from its bytes, so that nothing is known of it yet."""
    data = replace(EMPTY, signatures=made).encode()
    return dsse.parse(data, payload_type=EMPTY.payload_type, max_payload=100)


def signers(*made):
    return tuple(signatures.by_key(envelope(*made), KEYS))


@pytest.fixture
def tried(monkeypatch):
    made = []
    verify = sign.VerifyingKey.verify
    monkeypatch.setattr(
        sign.VerifyingKey, "verify", lambda self, *rest: made.append((self, rest[0])) or verify(self, *rest)
    )
    return made


def test_a_key_signed_what_verifies_by_it_and_nothing_else():
    assert signers() == ()
    assert signers(by(BOB), by(ALICE)) == (ALICE.public, BOB.public)
    assert signers(dsse.DsseSignature(keyid=keyid(ALICE), sig=ALICE.sign(b"other bytes"))) == ()
    assert signers(by(BOB, named=ALICE)) == (BOB.public,), "a key id makes nobody a signer"
    assert not signatures.signed_by(envelope(by(BOB, named=ALICE)), ALICE.public)


def test_a_signature_counts_under_whatever_key_id():
    """DSSE: the key id is a hint that nobody signed. Whoever changes it changes nothing."""
    for text in ("0", "stranger", keyid(BOB), keyid(ALICE).upper()):
        assert signers(replace(by(ALICE), keyid=text)) == (ALICE.public,)
    crossed = (by(ALICE, named=BOB), by(BOB, named=ALICE), by(CAROL, named=BOB))
    assert signers(*crossed) == KEYS


def test_of_two_signatures_under_one_key_id_the_one_that_verifies_counts():
    for order in ((junk(0, keyid(ALICE)), by(ALICE)), (by(ALICE), junk(0, keyid(ALICE)))):
        assert signers(*order) == (ALICE.public,)
        assert not signatures.only_by(envelope(*order), ALICE.public)
    assert signers(by(ALICE), by(ALICE)) == (ALICE.public,), "twice is not two"


def test_one_signature_counts_for_one_key():
    """Keys of small order, which nobody holds, have signatures in common: one of these speaks for one of them."""
    small = (sign.VerifyingKey(b"\x01" + bytes(31)), sign.VerifyingKey(b"\xec" + b"\xff" * 30 + b"\x7f"))
    common = b"\x01" + bytes(63)
    assert all(sign.holds(key.verify, common, EMPTY.pae()) for key in small)
    whole = envelope(dsse.DsseSignature(keyid="x", sig=common))
    assert signatures.signed_by(whole, small[1])
    assert tuple(signatures.by_key(whole, small)) == small[1:]


def test_exactly_one_signature_and_it_is_the_keys():
    assert signatures.only_by(envelope(by(ALICE)), ALICE.public)
    assert signatures.only_by(envelope(by(ALICE, named=BOB)), ALICE.public)
    for made in ((), (by(BOB),), (by(ALICE), by(ALICE)), (by(ALICE), by(BOB)), (by(ALICE), junk(0))):
        assert not signatures.only_by(envelope(*made), ALICE.public)


def test_an_envelope_in_its_own_form_has_each_signer_once_under_its_own_key_id():
    good = (by(BOB), by(ALICE))
    assert signatures.own_form(envelope(*good), KEYS).signatures == good
    crossed = (junk(0), by(BOB, named=ALICE), by(ALICE), by(BOB, named=ALICE), by(CAROL))
    assert signatures.own_form(envelope(*crossed), KEYS[:2]).signatures == good
    assert signatures.own_form(envelope(junk(0)), KEYS).signatures == ()


def test_a_right_key_id_costs_one_verification_however_much_stands_beside(tried):
    crowd = [junk(at) for at in range(dsse.MAX_SIGNATURES - 3)]
    assert signers(*crowd, by(CAROL), by(BOB), by(ALICE)) == KEYS
    assert [key for key, _ in tried] == list(KEYS)


def test_too_many_signatures_without_a_hint_cost_a_bounded_number_of_verifications(tried):
    crowd = [junk(at) for at in range(dsse.MAX_SIGNATURES)]
    assert signers(*crowd) == ()
    assert len(tried) == len(KEYS) * signatures.TRIES_EACH
    tried.clear()
    # Nor where all of them pretend to be one party's.
    assert signers(*(replace(one, keyid=keyid(ALICE)) for one in crowd)) == ()
    assert len(tried) == 1 + len(KEYS) * signatures.TRIES_EACH
    assert len(set(tried)) == len(tried), "no pair is tried twice"


def test_many_keys_share_the_bound_of_an_envelope(tried):
    keys = [sign.SigningKey(bytes([at]) * 32).public for at in range(1, 9)]
    assert signatures.by_key(envelope(*(junk(at) for at in range(8))), keys) == {}
    assert len(tried) == signatures.MAX_TRIES


def test_behind_more_junk_than_is_tried_only_a_hint_finds_a_signature():
    crowd = [junk(at) for at in range(signatures.TRIES_EACH)]
    unnamed = replace(by(ALICE), keyid="other")
    assert not signatures.signed_by(envelope(*crowd, unnamed), ALICE.public)
    assert signatures.signed_by(envelope(*crowd[1:], unnamed), ALICE.public)
    assert signatures.signed_by(envelope(*crowd, by(ALICE)), ALICE.public)


def test_four_signatures_of_another_tool_for_four_keys_are_all_seen():
    dave = sign.SigningKey(bytes([4]) * 32)
    keys = (dave, CAROL, BOB, ALICE)
    made = [replace(by(key), keyid=str(at)) for at, key in enumerate((ALICE, BOB, CAROL, dave))]
    assert set(signatures.by_key(envelope(*made), [key.public for key in keys])) == {
        key.public for key in keys
    }


def test_what_was_asked_once_is_not_verified_again(tried):
    whole = envelope(by(ALICE), by(BOB, named=ALICE), junk(0))
    assert signatures.signed_by(whole, ALICE.public)
    assert not signatures.signed_by(whole, CAROL.public)
    before = len(tried)
    assert tuple(signatures.by_key(whole, KEYS)) == (ALICE.public, BOB.public)
    new = tried[before:]
    assert {key for key, _ in new} == {BOB.public}
    assert signatures.signed_by(whole, BOB.public)
    assert len(tried) == before + len(new)


def test_a_signature_over_another_payload_type_does_not_count():
    other = ALICE.sign(dsse.pae("text/html", EMPTY.payload))
    assert signers(dsse.DsseSignature(keyid=keyid(ALICE), sig=other)) == ()
