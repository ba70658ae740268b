"""RFC 6962 Merkle trees over a store of node hashes.

Leaf hash: SHA-256(00 ‖ data). Node hash: SHA-256(01 ‖ left ‖ right). Only complete subtrees are stored,
by (level, index): the node that covers leaves [index·2^level, (index+1)·2^level). Nothing stored is
ever changed, so a store is append-only by construction.

Verification (RFC 9162, sections 2.1.3.2 and 2.1.4.2) raises `Refused`; it never returns false.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_SIZE = 2**53 - 1  # leaves: the largest whole number that every reader of JSON keeps exactly


class Nodes(Protocol):
    """Where node hashes are read from."""

    def node(self, level: int, index: int) -> bytes:
        """The stored hash of a complete subtree, 32 bytes. It exists for every complete subtree."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf's bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(nodes: Nodes, size: int, leaves: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """The (level, index, hash) rows to store when `leaves` are appended to the first `size`: level by level, in order."""
    rows: list[tuple[int, int, bytes]] = []
    level, first, fresh = 0, size, [leaf_hash(data) for data in leaves]
    while fresh:
        rows += [(level, at, value) for at, value in enumerate(fresh, first)]
        if first & 1:  # a right child, whose sibling was there before
            first -= 1
            fresh.insert(0, nodes.node(level, first))
        level, first = level + 1, first >> 1
        fresh = [node_hash(fresh[at], fresh[at + 1]) for at in range(0, len(fresh) - 1, 2)]
    return rows


def root(nodes: Nodes, size: int) -> bytes:
    """The root hash of the first `size` leaves."""
    return EMPTY_ROOT if size == 0 else _range(nodes, 0, size)


def inclusion(nodes: Nodes, index: int, size: int) -> tuple[bytes, ...]:
    """The audit path of leaf `index` in the tree of `size`, leaf to root. Needs index < size."""
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range(nodes, middle, high))
            high = middle
        else:
            path.append(_range(nodes, low, middle))
            low = middle
    return tuple(reversed(path))


def consistency(nodes: Nodes, first: int, second: int) -> tuple[bytes, ...]:
    """The proof that the tree of `second` leaves extends that of `first`. Needs first ≤ second."""
    if first in (0, second):
        return ()
    path: list[bytes] = []
    # whole: [low, high) begins at leaf 0, so that its root is `first`'s, which who verifies has already.
    low, high, whole = 0, second, True
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            path.append(_range(nodes, middle, high))
            high = middle
        else:
            path.append(_range(nodes, low, middle))
            low, whole = middle, False
    if not whole:
        path.append(_range(nodes, low, high))
    return tuple(reversed(path))


def verify_inclusion(
    data: bytes, index: int, size: int, path: tuple[bytes, ...], expected_root: bytes
) -> None:
    """Raise `Refused` unless `path` leads from leaf `data` at `index` to `expected_root`."""
    if not 0 <= index < size <= MAX_SIZE:
        raise _refused("leaf index outside the tree")
    position, last, current = index, size - 1, leaf_hash(data)
    for sibling in path:
        if last == 0:
            raise _refused("inclusion proof is too long")
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        position, last = position >> 1, last >> 1
    if last or current != expected_root:
        raise _refused("inclusion proof does not lead to the checkpoint's root")


def verify_consistency(
    first: int, first_root: bytes, second: int, second_root: bytes, path: tuple[bytes, ...]
) -> None:
    """Raise `Refused` unless the tree of `second` leaves extends the tree of `first` leaves."""
    if not 0 <= first <= second <= MAX_SIZE:
        raise _refused(f"the ledger shrank from {first} to {second} entries")
    if first in (0, second):
        same = first == 0 or first_root == second_root
        if path or not same or (first == 0 and first_root != EMPTY_ROOT):
            raise _refused("the ledger was rewritten: same size, another root")
        return
    steps = list(path)
    if (
        first & (first - 1) == 0
    ):  # a power of two: the old root is a node of the new tree, and left out of the path
        steps.insert(0, first_root)
    if not steps:
        raise _refused("consistency proof is empty")
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise _refused("consistency proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise _refused("the ledger was rewritten: the new tree does not extend the old one")


def _split(count: int) -> int:
    # The largest power of two below `count`.
    return 1 << ((count - 1).bit_length() - 1)


def _range(nodes: Nodes, low: int, high: int) -> bytes:
    """The root hash of leaves [low, high), read where that is a stored node, else made of two halves."""
    count = high - low
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return nodes.node(level, low >> level)
    middle = low + _split(count)
    return node_hash(_range(nodes, low, middle), _range(nodes, middle, high))


def _refused(message: str) -> Refused:
    return Refused(message, code="ledger-proof", hint="do not trust this ledger; keep what it showed you")
