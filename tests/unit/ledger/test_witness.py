"""A witness notices a ledger that forks, shrinks or shows two histories (rules 47 and 52)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.crypto import sign
from strongroom.errors import Malformed, Refused
from strongroom.ledger import checkpoint, merkle, witness
from tests.unit.ledger.memory_tiles import grown


class Shown:
    """A ledger as a client sees it."""

    def __init__(self, key, memory):
        self.key, self.memory = key, memory

    def note(self, size=None):
        size = len(self.memory.data) if size is None else size
        return checkpoint.issue(self.key, size=size, root=merkle.root(self.memory, size))

    def consistency(self, first, second):
        return merkle.consistency(self.memory, first, second)


@pytest.fixture
def key():
    return sign.generate()


def test_first_sight_and_growth_are_accepted(key):
    ledger = Shown(key, grown(5))
    first = ledger.note()
    assert witness.observe(None, first, key.public, ledger).size == 5
    assert witness.observe(first, first, key.public, ledger).size == 5
    ledger.memory.add(b"next")
    assert witness.observe(first, ledger.note(), key.public, ledger).size == 6


def test_growth_from_an_empty_ledger(key):
    ledger = Shown(key, grown(0))
    empty = ledger.note()
    ledger.memory.add(b"first")
    assert witness.observe(empty, ledger.note(), key.public, ledger).size == 1


def test_rule_47_yesterdays_backup_is_noticed(key):
    ledger = Shown(key, grown(9))
    seen = ledger.note()
    restored = Shown(key, grown(7))
    with pytest.raises(Refused, match="it had 9 entries and now shows 7") as refusal:
        witness.observe(seen, restored.note(), key.public, restored)
    assert refusal.value.code == "ledger-forked"
    for _ in range(5):
        restored.memory.add(b"rewritten")
    with pytest.raises(Refused) as refusal:
        witness.observe(seen, restored.note(), key.public, restored)
    assert refusal.value.code == "ledger-forked"


def test_rule_52_split_view_between_two_parties_is_noticed(key):
    honest, other = Shown(key, grown(6)), Shown(key, grown(5))
    for number in range(3):
        other.memory.add(b"for bob only %d" % number)
    witness.compare(honest.note(), honest.note(4), key.public, honest)
    for ours, theirs in ((honest.note(), other.note()), (other.note(), honest.note())):
        with pytest.raises(Refused) as refusal:
            witness.compare(ours, theirs, key.public, other)
        assert refusal.value.code == "ledger-forked"


def test_a_stranger_cannot_speak_for_the_ledger(key):
    stranger = Shown(sign.generate(), grown(5))
    with pytest.raises(Refused, match="origin is"):
        witness.observe(None, stranger.note(), key.public, stranger)


def test_recompute_matches_the_tree():
    for size in (0, 1, 2, 3, 7, 8, 100):
        memory = grown(size)
        assert witness.recompute(memory.data) == (size, merkle.root(memory, size))


@pytest.mark.parametrize("length", [5, 900])
def test_what_a_witness_remembers_can_be_read_again(key, length):
    """A broker fills its note with signatures of nobody: once cosigned, the witness could not read it any more."""
    ledger, own = Shown(key, grown(5)), sign.generate()
    parsed = checkpoint.parse(ledger.note())
    remembered = 0
    for count in range(checkpoint.MAX_SIGNATURES + 1):
        junk = tuple(
            checkpoint.NoteSignature(name=f"nobody-{at}", key_id=bytes(4), body=bytes(length))
            for at in range(count)
        )
        note = replace(parsed, signatures=(*parsed.signatures, *junk)).note()
        try:
            witness.observe(None, note, key.public, ledger)
            cosigned = checkpoint.cosign(note, "alice", own, timestamp=1)
        except Malformed:
            continue
        assert witness.observe(cosigned, ledger.note(), key.public, ledger).size == 5
        remembered += 1
    assert 0 < remembered < checkpoint.MAX_SIGNATURES
