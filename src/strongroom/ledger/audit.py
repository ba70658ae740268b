"""A ledger held to its word: its entries against its checkpoint, that against what was seen before, and against what others saw.

Where it comes from is an argument (`LedgerSource`): a broker, or a copy of its tiles. What was seen is remembered in a file, and what a forked ledger
showed is kept beside it: both together are the proof.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom import files
from strongroom.encoding import reader
from strongroom.errors import Malformed, Refused, of_file
from strongroom.ledger import checkpoint as checkpoint_format
from strongroom.ledger import tiles, witness
from strongroom.model import record as record_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from strongroom.crypto.sign import VerifyingKey
    from strongroom.ledger.checkpoint import Checkpoint
    from strongroom.model.identity import Identity
    from strongroom.model.record import Record

FORKED = ".forked"


class LedgerSource(witness.Consistency, Protocol):
    """Where a ledger is read."""

    def checkpoint(self) -> str:
        """Its newest checkpoint, a signed note."""

    def tile(self, path: str) -> bytes:
        """A tile, by what follows `tile/` in its C2SP path."""


@dataclass(frozen=True, kw_only=True)
class AuditedEntries:
    """Entries of a ledger that are those of its signed checkpoint, each with its index."""

    checkpoint: Checkpoint
    rows: tuple[tuple[int, Record], ...]


def remembered(party_file: Path) -> Path:
    """Where what was seen of a broker's ledger is kept, unless one says otherwise: beside its owner's party file, one for each."""
    return party_file.with_name(party_file.name + ".checkpoint")


def read_entries(source: LedgerSource, *, key: VerifyingKey, run: str = "") -> AuditedEntries:
    """The entries of `run`, or all, once they are known to be what the checkpoint covers. Raises `Refused`, `Malformed`."""
    checkpoint = checkpoint_format.verify(source.checkpoint(), key)
    rows: list[tuple[int, Record]] = []

    def keep(index: int, entry: bytes) -> None:
        record = record_model.parse(entry)
        if run in ("", record.run_id):
            rows.append((index, record))

    _audit(source, checkpoint, keep)
    return AuditedEntries(checkpoint=checkpoint, rows=tuple(rows))


def verify_ledger(
    source: LedgerSource, *, key: VerifyingKey, state: Path, against: Sequence[Path] = ()
) -> Checkpoint:
    """Check the whole ledger against its checkpoint, against the one that `state` remembers, and against those that others saw.

    `state` remembers it then. Raises `Refused` with code `ledger-forked` where it broke its promise, and `ledger-proof`.
    """
    note, current = _observe(source, key, state)
    _audit(source, current, lambda _index, entry: _parses(entry))
    for path in against:
        theirs = _seen(path, key)
        with _kept_apart(state, note):
            witness.compare(note, theirs, key, source)
    files.write(state, note.encode(), replace=True)
    return current


def witness_ledger(
    source: LedgerSource, *, key: VerifyingKey, state: Path, identity: Identity, timestamp: int
) -> Checkpoint:
    """Check growth since the checkpoint that `state` remembers, and cosign the newest one there. timestamp: seconds since 1970, UTC."""
    note, current = _observe(source, key, state)
    cosigned = checkpoint_format.cosign(note, identity.name, identity.signing, timestamp=timestamp)
    files.write(state, cosigned.encode(), replace=True)
    return current


def _observe(source: LedgerSource, key: VerifyingKey, state: Path) -> tuple[str, Checkpoint]:
    """The ledger's newest checkpoint, once it is shown to extend the one that `state` remembers."""
    remembered = _seen(state, key) if state.exists() else None
    note = source.checkpoint()
    with _kept_apart(state, note):
        return note, witness.observe(remembered, note, key, source)


def _seen(path: Path, key: VerifyingKey) -> str:
    """A checkpoint of this ledger in a file: what is wrong with it is said of the file, not of the broker."""
    with of_file(path):
        note = files.read_text(path, max_bytes=checkpoint_format.MAX_BYTES)
        checkpoint_format.verify(note, key)
    return note


@contextlib.contextmanager
def _kept_apart(state: Path, note: str) -> Iterator[None]:
    """Keep what a forked ledger showed beside what it had shown before: both together are the proof."""
    try:
        yield
    except Refused as cause:
        if cause.code != "ledger-forked":
            raise
        kept = state.with_name(state.name + FORKED)
        files.write(kept, note.encode(), replace=True)
        raise Refused(
            cause.message,
            code=cause.code,
            hint=f"{kept} is what it showed now; with the checkpoint from before it proves the fork. "
            "Stop trusting this broker's record.",
        ) from None


def _audit(source: LedgerSource, checkpoint: Checkpoint, take: Callable[[int, bytes], None]) -> None:
    """Give every entry to `take`. Raises `Refused` at the end when they are not those of the checkpoint.

    So nothing that `take` was given may be used before this returns. Memory does not grow with the ledger.
    """

    def taken() -> Iterator[bytes]:
        for index, entry in enumerate(_entries(source, checkpoint.size)):
            take(index, entry)
            yield entry

    try:
        recomputed = witness.recompute(taken())
    except Malformed as failure:
        failure.hint = (
            failure.hint
            or "an entry of the ledger does not parse: ask its owner which version of Strongroom serves it"
        )
        raise
    if recomputed != (checkpoint.size, checkpoint.root):
        raise Refused(
            "the entries are not those of the checkpoint",
            code="ledger-proof",
            hint="do not trust this ledger; keep the checkpoint and the entries",
        )


def _parses(entry: bytes) -> None:
    record_model.parse(entry)


def _entries(source: LedgerSource, size: int) -> Iterator[bytes]:
    for index in range(-(-size // tiles.WIDTH)):
        width = min(tiles.WIDTH, size - index * tiles.WIDTH)
        partial = "" if width == tiles.WIDTH else f".p/{width}"
        data = source.tile(f"entries/{tiles.format_index(index)}{partial}")
        bundle = reader.Reader(data, "entry bundle")
        for _ in range(width):
            yield bundle.take(bundle.u16())
        bundle.done()
