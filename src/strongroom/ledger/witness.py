"""A witness: any party that remembers the last checkpoint it saw, and cosigns only what extends it.

A ledger that forks, loses its end or comes back from yesterday's backup cannot show a consistent
checkpoint to somebody who remembers a later one.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Refused
from strongroom.ledger import checkpoint as checkpoint_format
from strongroom.ledger import merkle, proof

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.crypto import sign


BLOCK = 16


class Consistency(Protocol):
    """Where a consistency proof comes from."""

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """The hashes that prove growth from `first` to `second` entries."""


def observe(
    remembered: str | None, note: str, ledger_key: sign.VerifyingKey, source: Consistency
) -> checkpoint_format.Checkpoint:
    """Check that `note` is the ledger's and extends `remembered` (None the first time).

    Raises `Refused` with code `ledger-forked` for a fork, a truncation or a restored backup; then
    the two notes together are the proof, for anybody, that the ledger broke its promise.
    """
    current = checkpoint_format.verify(note, ledger_key)
    if remembered is None:
        return current
    previous = checkpoint_format.verify(remembered, ledger_key)
    if current.size < previous.size:
        raise _forked(f"it had {previous.size} entries and now shows {current.size}")
    path: tuple[bytes, ...] = ()
    if 0 < previous.size < current.size:
        path = source.consistency(previous.size, current.size)
    try:
        proof.verify_growth(previous, current, path)
    except Refused as cause:
        raise _forked(cause.message) from None
    return current


def compare(ours: str, theirs: str, ledger_key: sign.VerifyingKey, source: Consistency) -> None:
    """Raise `Refused` when two parties were shown two histories (a split view)."""
    first = checkpoint_format.verify(ours, ledger_key)
    second = checkpoint_format.verify(theirs, ledger_key)
    if first.size <= second.size:
        observe(ours, theirs, ledger_key, source)
    else:
        observe(theirs, ours, ledger_key, source)


class _Frontier:
    """The nodes that appending needs: the last complete one of each level."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, bytes]] = {}

    def node(self, level: int, index: int) -> bytes:
        at, value = self._last[level]
        if at != index:
            raise Refused(
                "ledger audit: the entries came out of order",
                code="ledger-proof",
                hint="do not trust this ledger; keep what it showed you",
            )
        return value

    def put(self, level: int, index: int, value: bytes) -> None:
        self._last[level] = (index, value)


def recompute(entries: Iterable[bytes]) -> tuple[int, bytes]:
    """Size and root of the tree over `entries`, in memory for `BLOCK` of them and the tree's height."""
    frontier = _Frontier()
    size, rest = 0, iter(entries)
    while block := list(itertools.islice(rest, BLOCK)):
        for level, index, value in merkle.append(frontier, size, block):
            frontier.put(level, index, value)
        size += len(block)
    return size, merkle.root(frontier, size)


def _forked(what: str) -> Refused:
    return Refused(
        f"the ledger was forked, truncated or restored from a backup: {what}",
        code="ledger-forked",
        hint="keep both checkpoints: together they prove it; stop trusting this broker's record",
    )
