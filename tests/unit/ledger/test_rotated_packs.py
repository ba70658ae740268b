"""A run from before a party's rotation, judged by who has only the party's new file."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from strongroom.ledger import inspect
from strongroom.model import identity, rotation

NEW, NEWEST, MALLORY = (identity.generate("alice") for _ in range(3))


def old(world):
    return next(one for one in world.anchors if one.name == "alice")


def signing(world):
    return world.owners["alice"].identity.signing


def judged(world, pack, anchor, *rotations):
    bob = next(one for one in world.anchors if one.name == "bob")
    return inspect.inspect(pack, anchors=(anchor, bob), rotations=rotations)


def statement(before, after, *keys, time):
    return rotation.make(before, after, time=time, keys=keys)


def names(judgement):
    return [one.name for one in judgement.failed]


def test_a_pack_from_before_a_rotation_holds_by_the_statement(world, pack):
    held, later = old(world), world.scene.now + timedelta(days=1)
    new = NEW.party(held.broker)
    assert names(judged(world, pack, new)) == ["parties.alice"]
    made = statement(held, new, signing(world), NEW.signing, time=later)
    judgement = judged(world, pack, new, made)
    assert judgement.holds
    assert [one.name for one in judgement.checks][:3] == ["rotated.alice", "parties.alice", "parties.bob"]
    # Two rotations, one after the other, in whatever order they are given.
    moved = replace(held.broker, pin="sha256:" + "7" * 64)
    newest = NEWEST.party(moved)
    again = statement(new, newest, NEW.signing, NEWEST.signing, time=later)
    assert judged(world, pack, newest, again, made).holds
    assert judged(world, pack, newest, made, again).holds
    assert names(judged(world, pack, newest, again)) == ["parties.alice"]
    # Signed by the old key once it was replaced: whoever did that is not alice.
    early = statement(held, new, signing(world), NEW.signing, time=world.scene.now - timedelta(seconds=1))
    assert names(judged(world, pack, new, early)) == ["rotated.alice"]


def test_a_statement_that_both_keys_did_not_sign_leads_nowhere(world, pack):
    held, later = old(world), world.scene.now + timedelta(days=1)
    new = NEW.party(held.broker)
    for keys in ((NEW.signing,), (signing(world),), (MALLORY.signing, NEW.signing)):
        assert names(judged(world, pack, new, statement(held, new, *keys, time=later))) == ["parties.alice"]
    another = statement(held, MALLORY.party(held.broker), signing(world), MALLORY.signing, time=later)
    assert names(judged(world, pack, new, another)) == ["parties.alice"]


def test_a_rotation_that_is_not_needed_changes_nothing(world, pack):
    held, later = old(world), world.scene.now + timedelta(days=1)
    made = statement(held, NEW.party(held.broker), signing(world), NEW.signing, time=later)
    judgement = judged(world, pack, held, made)
    assert judgement.holds
    assert judgement.checks[0].name == "parties.alice"


def test_an_entry_that_is_none_is_no_release_of_before(world, pack):
    held, later = old(world), world.scene.now + timedelta(days=1)
    new = NEW.party(held.broker)
    made = statement(held, new, signing(world), NEW.signing, time=later)
    ledger = replace(pack.releases[0].ledger, entry=b"{}")
    spoilt = replace(pack, releases=(replace(pack.releases[0], ledger=ledger), *pack.releases[1:]))
    assert names(judged(world, spoilt, new, made))[0] == "rotated.alice"


def test_when_an_old_key_signed_is_said_by_the_ledger_of_its_own_party_alone(world, pack):
    """A thief of the old key signs a contract of today with a broker of theirs, whose clock says yesterday."""
    held, later = old(world), world.scene.now + timedelta(days=1)
    bare, new = replace(held, broker=None), NEW.party(None)
    made = statement(bare, new, signing(world), NEW.signing, time=later)
    # Whose broker alice's is, the reader does not know: any ledger would pass for it.
    assert names(judged(world, pack, new, made)) == ["rotated.alice"]
    assert judged(world, pack, bare).holds
    # And there is none of hers, where she has no disk in it.
    known = NEW.party(held.broker)
    made = statement(held, known, signing(world), NEW.signing, time=later)
    others = replace(pack, releases=tuple(one for one in pack.releases if one.party != "alice"))
    assert "rotated.alice" in names(judged(world, others, known, made))
