"""The Merkle tree, checkpoints and tiles, against a second reading of RFC 6962 and against tampering."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import sign
from strongroom.errors import Malformed, NotFound, Refused
from strongroom.ledger import checkpoint, merkle, proof, tiles
from strongroom.model import messages


class Memory:
    def __init__(self):
        self.rows = {}
        self.data = []

    def node(self, level, index):
        return self.rows[level, index]

    def leaves(self, start, count):
        return self.data[start : start + count]

    def add(self, data):
        for level, index, value in merkle.append(self, len(self.data), data):
            assert (level, index) not in self.rows
            self.rows[level, index] = value
        self.data.append(data)


def grown(count):
    memory = Memory()
    for number in range(count):
        memory.add(b"leaf %d" % number)
    return memory


def slow_root(leaves):
    """RFC 6962, section 2.1, written as the RFC writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + slow_root(leaves[:k]) + slow_root(leaves[k:])).digest()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100])
def test_root_is_that_of_the_rfc(size):
    memory = grown(size)
    assert merkle.root(memory, size) == slow_root(memory.data)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data())
def test_inclusion_of_every_leaf_and_of_nothing_else(size, data):
    memory = grown(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion(memory, index, size)
    root = merkle.root(memory, size)
    merkle.verify_inclusion(memory.data[index], index, size, path, root)
    with pytest.raises(Refused):
        merkle.verify_inclusion(b"other", index, size, path, root)
    with pytest.raises(Refused):
        merkle.verify_inclusion(memory.data[index], index, size, (*path, root), root)
    if path:
        with pytest.raises(Refused):
            merkle.verify_inclusion(memory.data[index], index, size, path[:-1], root)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        with pytest.raises(Refused):
            merkle.verify_inclusion(memory.data[index], other, size, path, root)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 70), st.integers(0, 70))
def test_consistency_of_every_pair(a, b):
    first, second = sorted((a, b))
    memory = grown(second)
    old, new = merkle.root(memory, first), merkle.root(memory, second)
    path = merkle.consistency(memory, first, second)
    merkle.verify_consistency(first, old, second, new, path)
    if first:
        with pytest.raises(Refused):
            merkle.verify_consistency(first, b"\1" * 32, second, new, path)
        with pytest.raises(Refused):
            merkle.verify_consistency(first, old, second, b"\1" * 32, path)
    if first != second:
        with pytest.raises(Refused):
            merkle.verify_consistency(second, new, first, old, path)


def test_rule_52_fork_truncation_and_rewrite_are_noticed():
    key = sign.generate()
    honest, forked = grown(20), grown(12)
    for number in range(12, 20):
        forked.add(b"other %d" % number)
    seen = checkpoint.verify(checkpoint.issue(key, size=15, root=merkle.root(honest, 15)), key.public)
    later = checkpoint.verify(checkpoint.issue(key, size=20, root=merkle.root(honest, 20)), key.public)
    proof.verify_growth(seen, later, merkle.consistency(honest, 15, 20))
    fork = checkpoint.verify(checkpoint.issue(key, size=20, root=merkle.root(forked, 20)), key.public)
    with pytest.raises(Refused, match="rewritten"):
        proof.verify_growth(seen, fork, merkle.consistency(forked, 15, 20))
    restored = checkpoint.verify(checkpoint.issue(key, size=9, root=merkle.root(honest, 9)), key.public)
    with pytest.raises(Refused, match="shrank"):
        proof.verify_growth(seen, restored, ())
    same_size = checkpoint.verify(checkpoint.issue(key, size=15, root=merkle.root(forked, 15)), key.public)
    with pytest.raises(Refused, match="rewritten"):
        proof.verify_growth(seen, same_size, ())


def test_checkpoint_is_signed_and_canonical():
    key, other = sign.generate(), sign.generate()
    note = checkpoint.issue(key, size=3, root=b"r" * 32)
    assert checkpoint.verify(note, key.public).size == 3
    with pytest.raises(Refused):
        checkpoint.verify(note, other.public)
    for bad in (
        note.replace("\n3\n", "\n03\n"),
        note.replace("\n3\n", "\n+3\n"),
        note + "\n",
        note[:-1],
        "",
        "\n\n\n",
        note.replace("\u2014", "-"),
    ):
        with pytest.raises(Malformed):
            checkpoint.parse(bad)
    with pytest.raises(Refused):
        checkpoint.verify(note.replace("\n3\n", "\n4\n"), key.public)


def test_cosignature_counts_only_for_its_witness_and_text():
    ledger, witness = sign.generate(), sign.generate()
    note = checkpoint.issue(ledger, size=3, root=b"r" * 32)
    twice = checkpoint.cosign(
        checkpoint.cosign(note, "alice", witness, timestamp=1), "alice", witness, timestamp=9
    )
    parsed = checkpoint.verify(twice, ledger.public)
    assert len(parsed.signatures) == 2
    assert checkpoint.verify_cosignature(parsed, "alice", witness.public) == 9
    with pytest.raises(Refused):
        checkpoint.verify_cosignature(parsed, "bob", witness.public)
    moved = checkpoint.parse(twice.replace("\n3\n", "\n4\n"))
    with pytest.raises(Refused):
        checkpoint.verify_cosignature(moved, "alice", witness.public)


def test_verifier_key_has_the_published_form():
    key = sign.SigningKey(bytes(32))
    name, key_id, body = checkpoint.verifier_key(key.public).split("+", 2)
    assert name == checkpoint.origin_of(key.public)
    assert len(key_id) == 8
    assert body.startswith("AT")


@pytest.mark.parametrize(
    ("index", "text"), [(0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")]
)
def test_tile_index_spelling(index, text):
    assert tiles.format_index(index) == text
    assert tiles.parse_path(f"0/{text}").index == index


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/0",
        "0/x000/000",
        "64/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/../000",
        "00/000",
        "0/000/",
        "0/٠٠٠",
    ],
)
def test_tile_paths_have_one_spelling(path):
    with pytest.raises(Malformed):
        tiles.parse_path(path)


def test_tiles_hold_the_tree():
    memory = grown(600)
    full = tiles.read(memory, 600, tiles.parse_path("0/001"))
    assert full == b"".join(memory.node(0, 256 + at) for at in range(256))
    assert len(tiles.read(memory, 600, tiles.parse_path("0/002.p/88"))) == 88 * 32
    assert len(tiles.read(memory, 600, tiles.parse_path("1/000.p/2"))) == 64
    with pytest.raises(NotFound):
        tiles.read(memory, 600, tiles.parse_path("0/002"))
    entries = tiles.read(memory, 600, tiles.parse_path("entries/002.p/88"))
    assert entries.startswith(b"\0\x08leaf 512")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_checkpoint_or_malformed(text):
    with contextlib.suppress(Malformed):
        assert checkpoint.parse(text).note() == text


def test_proof_of_an_entry():
    key = sign.generate()
    memory = grown(4)
    note = checkpoint.issue(key, size=4, root=merkle.root(memory, 4))
    made = proof.prove(memory, entry=memory.data[2], index=2, note=note)
    # The leaves of this test are no records: the tree part must hold first, then parsing refuses.
    with pytest.raises(Malformed):
        proof.verify(made, key.public)
    moved = messages.LedgerProof(entry=made.entry, index=1, hashes=made.hashes, checkpoint=made.checkpoint)
    with pytest.raises(Refused):
        proof.verify(moved, key.public)
    assert messages.parse_ledger_proof(made.encode()) == made
