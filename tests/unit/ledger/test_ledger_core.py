"""The Merkle tree, checkpoints and tiles, against a second reading of RFC 6962 and against tampering."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto import sign
from strongroom.errors import Malformed, NotFound, Refused
from strongroom.ledger import checkpoint, merkle, proof, tiles, witness
from strongroom.model import messages
from tests.effort import examples
from tests.unit.ledger.memory_tiles import Memory, grown


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


@examples(60)
@given(st.lists(st.integers(1, 40), max_size=6))
def test_leaves_appended_at_once_make_the_nodes_that_they_make_one_by_one(blocks):
    memory, data = Memory(), [b"leaf %d" % number for number in range(sum(blocks))]
    for count in blocks:
        size = len(memory.data)
        rows = merkle.append(memory, size, data[size : size + count])
        memory.rows.update({(level, index): value for level, index, value in rows})
        memory.data += data[size : size + count]
    assert memory.rows == grown(len(data)).rows
    assert witness.recompute(data) == (len(data), slow_root(data))


@examples(60)
@given(st.integers(1, 70), st.data())
def test_inclusion_of_every_leaf_and_of_nothing_else(size, data):
    memory = grown(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion(memory, index, size)
    root = merkle.root(memory, size)
    merkle.verify_inclusion(memory.data[index], index, size, path, root)
    with pytest.raises(Refused, match="does not lead to"):
        merkle.verify_inclusion(b"other", index, size, path, root)
    with pytest.raises(Refused, match="proof is too long"):
        merkle.verify_inclusion(memory.data[index], index, size, (*path, root), root)
    if path:
        with pytest.raises(Refused, match="does not lead to"):
            merkle.verify_inclusion(memory.data[index], index, size, path[:-1], root)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        with pytest.raises(Refused, match=r"does not lead to|proof is too long"):
            merkle.verify_inclusion(memory.data[index], other, size, path, root)


@examples(100)
@given(st.integers(0, 70), st.integers(0, 70))
def test_consistency_of_every_pair(a, b):
    first, second = sorted((a, b))
    memory = grown(second)
    old, new = merkle.root(memory, first), merkle.root(memory, second)
    path = merkle.consistency(memory, first, second)
    merkle.verify_consistency(first, old, second, new, path)
    if first:
        with pytest.raises(Refused, match="the ledger was rewritten"):
            merkle.verify_consistency(first, b"\1" * 32, second, new, path)
        with pytest.raises(Refused, match="the ledger was rewritten"):
            merkle.verify_consistency(first, old, second, b"\1" * 32, path)
    if first != second:
        with pytest.raises(Refused, match="the ledger shrank"):
            merkle.verify_consistency(second, new, first, old, path)


@pytest.mark.parametrize(
    ("index", "size"), [(-1, 4), (4, 4), (5, 4), (0, 0), (1 << 60, 1 << 61), (0, merkle.MAX_SIZE + 1)]
)
def test_a_leaf_index_outside_the_tree_is_refused(index, size):
    with pytest.raises(Refused, match="leaf index outside the tree"):
        merkle.verify_inclusion(b"leaf 0", index, size, (), merkle.leaf_hash(b"leaf 0"))


def test_inclusion_of_every_leaf_of_small_trees_needs_its_whole_path():
    for size in range(1, 18):
        memory = grown(size)
        root = merkle.root(memory, size)
        for index in range(size):
            path = merkle.inclusion(memory, index, size)
            merkle.verify_inclusion(memory.data[index], index, size, path, root)
            for at in range(len(path)):
                changed = (*path[:at], b"\1" * 32, *path[at + 1 :])
                with pytest.raises(Refused, match="does not lead to"):
                    merkle.verify_inclusion(memory.data[index], index, size, changed, root)


def test_a_last_entry_in_a_tree_of_the_largest_size_is_judged():
    path = tuple(b"%032d" % at for at in range(53))
    with pytest.raises(Refused, match="does not lead to"):
        merkle.verify_inclusion(b"x", 0, merkle.MAX_SIZE, path, b"r" * 32)


def test_consistency_proofs_have_their_one_length():
    for second in range(2, 18):
        memory = grown(second)
        new = merkle.root(memory, second)
        for first in range(1, second):
            old = merkle.root(memory, first)
            path = merkle.consistency(memory, first, second)
            merkle.verify_consistency(first, old, second, new, path)
            with pytest.raises(Refused, match="consistency proof is too long"):
                merkle.verify_consistency(first, old, second, new, (*path, new, new))
            for at in range(len(path)):
                changed = (*path[:at], b"\1" * 32, *path[at + 1 :])
                with pytest.raises(Refused, match="does not extend"):
                    merkle.verify_consistency(first, old, second, new, changed)
            with pytest.raises(Refused, match=r"does not extend|is empty"):
                merkle.verify_consistency(first, old, second, new, path[:-1])
    with pytest.raises(Refused, match="consistency proof is empty"):
        merkle.verify_consistency(3, old, 5, new, ())


def test_trees_of_one_size_have_one_root_and_no_path():
    memory = grown(4)
    root, empty = merkle.root(memory, 4), merkle.EMPTY_ROOT
    merkle.verify_consistency(0, empty, 4, root, ())
    for first, old, second, new, path in (
        (4, root, 4, root, (root,)),
        (4, root, 4, b"\1" * 32, ()),
        (0, root, 4, root, ()),
        (0, empty, 4, root, (root,)),
    ):
        with pytest.raises(Refused, match="same size, another root"):
            merkle.verify_consistency(first, old, second, new, path)
    merkle.verify_consistency(merkle.MAX_SIZE, b"r" * 32, merkle.MAX_SIZE, b"r" * 32, ())
    for first, second in ((-1, 4), (5, 4), (1, merkle.MAX_SIZE + 1)):
        with pytest.raises(Refused, match="the ledger shrank"):
            merkle.verify_consistency(first, root, second, root, ())


def test_growth_is_of_one_ledger():
    memory = grown(2)
    ours, theirs = (
        checkpoint.parse(checkpoint.issue(sign.generate(), size=2, root=merkle.root(memory, 2)))
        for _ in range(2)
    )
    with pytest.raises(Refused, match="of different ledgers"):
        proof.verify_growth(ours, theirs, ())


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
    with pytest.raises(Refused, match="checkpoint: origin is strongroom-ledger/"):
        checkpoint.verify(note, other.public)
    with pytest.raises(Refused, match="signature does not verify"):
        checkpoint.verify(note.replace("\n3\n", "\n4\n"), key.public)


KEY = sign.SigningKey(bytes(32))
NOTE = checkpoint.issue(KEY, size=3, root=b"r" * 32)
LINE = NOTE.splitlines(keepends=True)[-1]
ROOT = base64.b64encode(b"r" * 32).decode()


def renamed(old, new):
    assert old in NOTE
    return NOTE.replace(old, new)


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (renamed("\n3\n", "\n03\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", "\n+3\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", "\nthree\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", "\n0x3\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", "\n\u0663\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", "\n\u00b3\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", "\n" + "9" * 17 + "\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", "\n" + "9" * 5000 + "\n"), "its second line: expected a number of entries"),
        (renamed("\n3\n", f"\n{1 << 53}\n"), "not in its one canonical form"),
        (renamed("\n3\n", "\n3\n3\n"), "expected three lines"),
        (renamed("\n3\n", "\n"), "expected three lines"),
        (renamed("\n\n", "\n"), "expected three lines"),
        (NOTE[NOTE.index("\n") :], "expected three lines"),
        (NOTE[:-1], "expected three lines"),
        ("", "expected three lines"),
        ("\n\n\n", "expected three lines"),
        (NOTE + "\n", "a signature's line: expected"),
        (renamed("\u2014", "-"), "a signature's line: expected"),
        (renamed("\u2014 ", "\u2014  "), "a signature's line: expected"),
        (NOTE.replace(LINE, ""), "expected three lines"),
        (NOTE + "\u2014  " + "AAAA" * 3 + "\n", "a signature's line: expected"),
        (NOTE + "\u2014 a+b " + "AAAA" * 3 + "\n", "a signature's line: expected"),
        (NOTE + "\u2014 a AAAAAA==\n", "bytes, expected 5 to 4096"),
        (NOTE + "\u2014 a " + base64.b64encode(bytes(4097)).decode() + "\n", "bytes, expected 5 to 4096"),
        (NOTE + "\u2014 a AAAAAAAA=\n", "not in its one canonical form"),
        (NOTE + "\u2014 a AAAAAAA\n", "expected base64, got"),
        (NOTE + "\u2014 a AAAA_AAA\n", "expected base64, got"),
        (NOTE + "\u2014 a AAAAAAB=\n", "not in its one canonical form"),  # spare bits that are not zero
        (renamed(ROOT, ROOT[:-2] + "J="), "not in its one canonical form"),
        (renamed(ROOT, ROOT[:-1]), "expected base64, got"),
        (renamed(ROOT, base64.b64encode(b"r" * 31).decode()), "expected 32 bytes in base64"),
        (renamed(ROOT, base64.b64encode(b"r" * 33).decode()), "expected 32 bytes in base64"),
        (NOTE + LINE * 64, "more than 64 signatures"),
        (NOTE + LINE * 600, "checkpoint: [0-9]+ characters, expected at most"),
    ],
)
def test_a_checkpoint_has_one_form(note, why):
    with pytest.raises(Malformed, match=why):
        checkpoint.parse(note)


def test_a_checkpoint_may_be_as_large_as_its_bounds():
    assert len(checkpoint.parse(NOTE + LINE * 63).signatures) == 64
    assert checkpoint.parse(renamed("\n3\n", f"\n{merkle.MAX_SIZE}\n")).size == merkle.MAX_SIZE
    assert checkpoint.parse(renamed("\n3\n", "\n0\n")).size == 0
    longest = NOTE + "\u2014 a " + base64.b64encode(bytes(4096)).decode() + "\n"
    assert len(checkpoint.parse(longest).signatures[1].body) == 4092
    shortest = NOTE + "\u2014 a " + base64.b64encode(bytes(5)).decode() + "\n"
    assert checkpoint.parse(shortest).signatures[1].body == b"\0"


def test_a_checkpoint_is_signed_by_its_own_name_and_key():
    origin = NOTE.splitlines()[0]
    for note in (
        NOTE.replace("\u2014 " + origin, "\u2014 " + origin + "x"),  # its key, another name
        NOTE.replace(LINE, checkpoint.NoteSignature(name=origin, key_id=b"abcd", body=b"s" * 64).line()),
    ):
        with pytest.raises(Refused, match="not signed by its ledger"):
            checkpoint.verify(note, KEY.public)


def test_cosignature_counts_only_for_its_witness_and_text():
    ledger, witness = sign.generate(), sign.generate()
    note = checkpoint.issue(ledger, size=3, root=b"r" * 32)
    twice = checkpoint.cosign(
        checkpoint.cosign(note, "alice", witness, timestamp=1), "alice", witness, timestamp=9
    )
    parsed = checkpoint.verify(twice, ledger.public)
    assert len(parsed.signatures) == 2
    assert checkpoint.verify_cosignature(parsed, "alice", witness.public) == 9
    with pytest.raises(Refused, match="no cosignature by bob"):
        checkpoint.verify_cosignature(parsed, "bob", witness.public)
    with pytest.raises(Refused, match="no cosignature by alice"):
        checkpoint.verify_cosignature(parsed, "alice", sign.generate().public)
    moved = checkpoint.parse(twice.replace("\n3\n", "\n4\n"))
    with pytest.raises(Refused, match="signature does not verify"):
        checkpoint.verify_cosignature(moved, "alice", witness.public)
    short = replace(parsed, signatures=tuple(replace(one, body=one.body[:71]) for one in parsed.signatures))
    with pytest.raises(Refused, match="no cosignature by alice"):
        checkpoint.verify_cosignature(short, "alice", witness.public)


def test_a_witness_replaces_only_its_own_cosignature():
    ledger, alice, bob = sign.generate(), sign.generate(), sign.generate()
    note = checkpoint.issue(ledger, size=3, root=b"r" * 32)
    for name, key, seconds in (("alice", alice, 1), ("bob", bob, 2), ("alice", bob, 3), ("alice", alice, 4)):
        note = checkpoint.cosign(note, name, key, timestamp=seconds)
    parsed = checkpoint.verify(note, ledger.public)
    assert [one.name for one in parsed.signatures[1:]] == ["bob", "alice", "alice"]
    assert checkpoint.verify_cosignature(parsed, "bob", bob.public) == 2
    assert checkpoint.verify_cosignature(parsed, "alice", bob.public) == 3
    assert checkpoint.verify_cosignature(parsed, "alice", alice.public) == 4


@pytest.mark.parametrize(
    ("index", "text"), [(0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")]
)
def test_tile_index_spelling(index, text):
    assert tiles.format_index(index) == text
    assert tiles.parse_path(f"0/{text}").index == index


FORM, SPELLING = "expected LEVEL/INDEX", "is not the one spelling of that tile"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", FORM),
        ("0", FORM),
        ("0/0", FORM),
        ("0/x000/000", SPELLING),
        ("64/000", FORM),
        ("0/000.p/0", FORM),
        ("0/000.p/256", SPELLING),
        ("0/000.p/999", SPELLING),
        ("0/../000", FORM),
        ("00/000", FORM),
        ("0/000/", FORM),
        ("0/\u0660\u0660\u0660", FORM),
        ("0/" + "x001/" * 6 + "000", FORM),
        ("0/" + "x001/" * 20 + "000", FORM),
    ],
)
def test_tile_paths_have_one_spelling(path, why):
    with pytest.raises(Malformed, match=why):
        tiles.parse_path(path)


def test_the_widest_tile_paths_are_read():
    assert tiles.parse_path("63/000.p/255") == tiles.TilePath(level=63, index=0, width=255)
    assert tiles.parse_path("0/" + "x001/" * 5 + "000").index == 1_001_001_001_001_000
    assert tiles.parse_path("entries/000.p/1") == tiles.TilePath(level=-1, index=0, width=1)


def whole(*tile):
    return b"".join(tiles.read(*tile))


def test_tiles_hold_the_tree():
    memory = grown(600)
    full = whole(memory, 600, tiles.parse_path("0/001"))
    assert full == b"".join(memory.node(0, 256 + at) for at in range(256))
    assert len(whole(memory, 600, tiles.parse_path("0/002.p/88"))) == 88 * 32
    assert len(whole(memory, 600, tiles.parse_path("1/000.p/2"))) == 64
    with pytest.raises(NotFound, match="beyond the end"):
        whole(memory, 600, tiles.parse_path("0/002"))
    entries = whole(memory, 600, tiles.parse_path("entries/002.p/88"))
    assert entries.startswith(b"\0\x08leaf 512")


@examples(200)
@given(st.text(max_size=200))
def test_any_text_is_a_checkpoint_or_malformed(text):
    with contextlib.suppress(Malformed):
        assert checkpoint.parse(text).note() == text


def test_proof_of_an_entry():
    key = sign.generate()
    memory = grown(4)
    note = checkpoint.issue(key, size=4, root=merkle.root(memory, 4))
    made = messages.LedgerProof(
        entry=memory.data[2], index=2, hashes=merkle.inclusion(memory, 2, 4), checkpoint=note
    )
    # The leaves of this test are no records: the tree part must hold first, then parsing refuses.
    with pytest.raises(Malformed, match="ledger entry: not JSON"):
        proof.verify(made, key.public)
    moved = messages.LedgerProof(entry=made.entry, index=1, hashes=made.hashes, checkpoint=made.checkpoint)
    with pytest.raises(Refused, match="does not lead to"):
        proof.verify(moved, key.public)
    assert messages.parse_ledger_proof(made.encode()) == made
