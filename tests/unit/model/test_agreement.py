"""Who signed, and whether it is enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.crypto import sign
from strongroom.encoding import dsse
from strongroom.errors import Malformed, Refused
from strongroom.model import identity
from strongroom.model.contracts import agreement, contract
from tests import samples


def test_both_signatures_make_it_approved():
    one = samples.a_contract()
    half = samples.signed(one, samples.ALICE)
    assert half.signers() == ("alice",)
    assert half.missing() == ("bob",)
    assert not half.approved()
    whole = samples.signed(one)
    assert whole.approved()
    assert agreement.read(whole.encode()).signers() == ("alice", "bob")


def test_unsigned_is_not_approved():
    assert not agreement.draft(samples.a_contract()).approved()


def test_rule_36_signing_twice_counts_once():
    one = samples.a_contract()
    twice = samples.signed(one, samples.ALICE, samples.ALICE)
    assert len(twice.envelope.signatures) == 1
    copied = replace(twice, envelope=replace(twice.envelope, signatures=twice.envelope.signatures * 2))
    assert copied.signers() == ("alice",)  # once, however often it is there
    assert not copied.approved()


def test_rule_36_one_person_signs_for_one_party_and_once():
    one = samples.a_contract()
    half = samples.signed(one, samples.ALICE)
    (own,) = half.envelope.signatures
    as_bob = replace(own, keyid=samples.BOB.party().keyid)
    # Neither twice, nor under somebody else's key id.
    for signatures in ((own, own), (as_bob,), (own, as_bob), (as_bob, own, own)):
        claimed = replace(half, envelope=replace(half.envelope, signatures=signatures))
        assert claimed.signers() == ("alice",)
        assert "bob" in claimed.missing()
        assert not claimed.approved()
    assert agreement.add_signature(half, samples.ALICE.signing) == half
    # Nor by standing in the contract under a second name: the parser refuses a key that two parties have.
    alice, bob = one.members
    for twin in (
        replace(alice.party, name="bob"),
        replace(alice.party, name="bob", recipient=bob.party.recipient, broker=None),
    ):
        with pytest.raises(Malformed, match=r"parties: signing_key 'sha256:.*' appears twice"):
            samples.a_contract(members=(alice, replace(bob, party=twin)))


def test_rule_36_a_threshold_never_leaves_an_owner_out():
    carol = identity.generate("carol")
    one = samples.a_contract(
        members=(
            *samples.a_contract().members,
            contract.Member(party=carol.party(), role=contract.Role.AUDITOR),
        ),
        platforms=tuple(replace(one, simulated=False) for one in samples.a_contract().platforms),
        approvals=contract.Approvals(parties=("alice", "bob", "carol"), threshold=2),
    )
    assert not samples.signed(one, samples.BOB, carol).approved()  # without the dataset's owner
    assert not samples.signed(one, samples.ALICE, carol).approved()  # without the image's
    assert samples.signed(one, samples.ALICE, samples.BOB).approved()


def test_rule_36_a_changed_member_set_voids_the_signatures():
    one = samples.a_contract()
    signed = samples.signed(one)
    carol = identity.generate("carol")
    other = samples.a_contract(
        members=(*one.members, contract.Member(party=carol.party(), role=contract.Role.AUDITOR))
    )
    moved = agreement.draft(other)
    moved = replace(moved, envelope=replace(moved.envelope, signatures=signed.envelope.signatures))
    assert moved.signers() == ()
    assert not moved.approved()


def test_a_stranger_cannot_sign():
    with pytest.raises(Refused, match="not one of its parties"):
        agreement.add_signature(agreement.draft(samples.a_contract()), sign.generate())


def test_a_signature_of_another_payload_type_does_not_count():
    one = samples.a_contract()
    other = dsse.pae("application/other", one.raw)
    forged = dsse.DsseSignature(keyid=samples.ALICE.party().keyid, sig=samples.ALICE.signing.sign(other))
    drafted = agreement.draft(one)
    drafted = replace(drafted, envelope=replace(drafted.envelope, signatures=(forged,)))
    assert drafted.signers() == ()


def test_a_signature_under_another_partys_key_id_is_its_signers_alone():
    signed = samples.signed(samples.a_contract(), samples.BOB)
    lied = replace(signed.envelope.signatures[0], keyid=samples.ALICE.party().keyid)
    lying = replace(signed, envelope=replace(signed.envelope, signatures=(lied,)))
    assert lying.signers() == ("bob",)
    again = agreement.add_signature(agreement.read(lying.encode()), samples.BOB.signing)
    assert again == signed, "who signs again replaces what stands under another key id"
    both = agreement.add_signature(agreement.read(lying.encode()), samples.ALICE.signing)
    assert both.signers() == ("alice", "bob"), "nobody's own signature is lost by another's"


def test_rule_59_each_party_costs_one_verification_however_many_signatures_there_are(monkeypatch):
    whole = samples.signed(samples.a_contract())
    stray = tuple(dsse.DsseSignature(keyid=f"sha256:{at:064x}", sig=bytes(64)) for at in range(30))
    crowded = replace(
        whole, envelope=replace(whole.envelope, signatures=(*stray, *whole.envelope.signatures))
    )
    verified = []
    verify = sign.VerifyingKey.verify

    def counting(self, signature, message):
        verified.append(self)
        return verify(self, signature, message)

    monkeypatch.setattr(sign.VerifyingKey, "verify", counting)
    assert agreement.read(crowded.encode()).signers() == ("alice", "bob")
    assert len(verified) == 2


def test_rule_59_the_signed_bytes_are_put_together_once(monkeypatch):
    whole = samples.signed(samples.a_contract())
    asked = []
    pae = dsse.Envelope.pae
    monkeypatch.setattr(dsse.Envelope, "pae", lambda self: asked.append(self) or pae(self))
    assert whole.signers() == ("alice", "bob")
    assert len(asked) == 1


def test_envelope_is_strict():
    whole = samples.signed(samples.a_contract()).encode()
    for bad, code in (
        (b"", "not-json"),
        (b"{}", "missing-key"),
        (whole[:-5], "not-json"),
        (whole.replace(b"payloadType", b"payloadtype"), "missing-key"),
        (whole.replace(b"contract+json", b"receipt+json"), "wrong-type"),
    ):
        with pytest.raises(Malformed) as refused:
            agreement.read(bad)
        assert refused.value.code == code


def test_a_series_of_contracts_is_known_by_the_keys_of_all_who_own_a_disk():
    one = samples.a_contract()
    assert one.owner_keys() == tuple(sorted((samples.ALICE.party().keyid, samples.BOB.party().keyid)))


def test_rule_36_the_owner_of_the_image_must_have_signed():
    """On hardware; without it everybody has to have signed, whoever owns what."""
    terms = contract.Approvals(parties=("alice", "bob"), threshold=1)
    hardware = tuple(replace(one, simulated=False) for one in samples.a_contract().platforms)
    one = samples.a_contract(approvals=terms, platforms=hardware)
    assert one.rooms[0].image.owner == "bob"
    assert not samples.signed(one, samples.ALICE).approved()
    assert not samples.signed(one, samples.BOB).approved()
    assert samples.signed(one).approved()


def test_an_envelope_full_of_signatures_takes_no_more():
    drafted = agreement.draft(samples.a_contract())
    noise = tuple(dsse.DsseSignature(keyid=f"{at}", sig=b"s") for at in range(dsse.MAX_SIGNATURES))
    full = replace(drafted, envelope=replace(drafted.envelope, signatures=noise))
    with pytest.raises(Malformed, match="32 signatures by others, at most 31 leave room"):
        agreement.add_signature(full, samples.ALICE.signing)
    room = replace(drafted, envelope=replace(drafted.envelope, signatures=noise[1:]))
    assert agreement.add_signature(room, samples.ALICE.signing).signers() == ("alice",)
