"""A statement of new keys: what it may say, and who must have signed it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.encoding import canonical, dsse
from strongroom.errors import Malformed, Refused
from strongroom.model import identity, rotation
from tests import samples

OLD, NEW, MALLORY = (identity.generate(name) for name in ("alice", "alice", "mallory"))
ADDRESS = samples.broker()
HELD, NEXT = OLD.party(ADDRESS), NEW.party(ADDRESS)


def made(old=HELD, new=NEXT, keys=(OLD.signing, NEW.signing)):
    return rotation.make(old, new, time=samples.NOW, keys=keys)


def test_whoever_holds_the_old_party_file_gets_the_new_one():
    one = rotation.read(made().encode())
    assert one == made()
    assert one.of_identity
    assert rotation.verify(one, HELD) == NEXT
    moved = replace(HELD, broker=replace(ADDRESS, url="https://elsewhere:1"))
    assert rotation.verify(one, moved) == NEXT  # where a broker listens is no key


def test_whoever_holds_the_new_party_file_gets_the_old_one():
    assert rotation.former(made(), NEXT) == HELD
    with pytest.raises(Refused, match="does not end at the keys that are held of alice"):
        rotation.former(made(), HELD)
    with pytest.raises(Refused, match="expected a signature by the old key"):
        rotation.former(made(keys=(NEW.signing,)), NEXT)


def test_new_keys_of_a_broker_are_signed_by_its_partys_key_alone():
    renewed = replace(HELD, broker=replace(ADDRESS, pin="sha256:" + "7" * 64))
    one = made(new=renewed, keys=(OLD.signing,))
    assert not one.of_identity
    assert len(one.envelope.signatures) == 1
    assert rotation.verify(one, HELD) == renewed


@pytest.mark.parametrize("keys", [(), (OLD.signing,), (NEW.signing,), (MALLORY.signing, NEW.signing)])
def test_both_keys_must_have_signed(keys):
    with pytest.raises(Refused, match=r"expected a signature by the (old|new) key sha256:") as caught:
        rotation.verify(made(keys=keys), HELD)
    assert caught.value.code == "bad-signature"


def test_a_signature_over_another_statement_counts_for_nothing():
    other = made(new=MALLORY_AS_ALICE, keys=(OLD.signing, MALLORY.signing)).envelope.signatures
    one = made()
    with pytest.raises(Refused, match="expected a signature by the old key"):
        rotation.verify(replace(one, envelope=replace(one.envelope, signatures=other)), HELD)


MALLORY_AS_ALICE = replace(MALLORY.party(ADDRESS), name="alice")


def test_it_begins_at_the_keys_that_are_held():
    for held in (NEXT, replace(HELD, recipient=NEXT.recipient), replace(HELD, broker=None)):
        with pytest.raises(Refused, match="does not begin at the keys that are held of alice") as caught:
            rotation.verify(made(), held)
        assert caught.value.code == "other-party"


def raw(before, after, **changes):
    top = {
        "format": rotation.FORMAT,
        "time": "2026-12-01T00:00:00Z",
        "old": before.to_json(),
        "new": after.to_json(),
    }
    payload = canonical.dumps({**top, **changes})
    return dsse.Envelope(payload_type=rotation.PAYLOAD_TYPE, payload=payload, signatures=()).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (raw(HELD, MALLORY.party(ADDRESS)), "a party keeps its name"),
        (raw(HELD, HELD), "new: expected another key than in rotation.old"),
        (
            raw(HELD, replace(HELD, broker=replace(ADDRESS, url="https://elsewhere:1"))),
            "new: expected another key than in rotation.old",
        ),
        (raw(HELD, NEW.party(replace(ADDRESS, ledger_key=b"l" * 32))), "a ledger keeps its key"),
        (raw(HELD, NEW.party()), "a ledger keeps its key"),
        (raw(HELD, NEXT, more=1), "unknown key 'more'"),
        (raw(HELD, NEXT, format="x"), "format: expected"),
        (raw(HELD, NEXT, new={**NEXT.to_json(), "more": 1}), "unknown key 'more'"),
        (b"{}", "envelope"),
    ],
)
def test_what_is_no_rotation_is_refused(data, why):
    with pytest.raises(Malformed, match=why):
        rotation.read(data)


def test_a_key_that_is_both_signs_once():
    renewed = replace(HELD, broker=replace(ADDRESS, authority="sha256:" + "7" * 64))
    assert len(made(new=renewed, keys=(OLD.signing, OLD.signing)).envelope.signatures) == 1
