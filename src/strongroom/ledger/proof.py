"""Offline checks of what a ledger showed: an entry is in it, one view extends another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Refused
from strongroom.ledger import checkpoint as checkpoint_format
from strongroom.ledger import merkle
from strongroom.model import messages, record

if TYPE_CHECKING:
    from strongroom.crypto import sign


def verify(
    proof: messages.LedgerProof, ledger_key: sign.VerifyingKey
) -> tuple[record.Record, checkpoint_format.Checkpoint]:
    """The record that the proof proves, and the checkpoint. Raises `Malformed` or `Refused`."""
    checkpoint = checkpoint_format.verify(proof.checkpoint, ledger_key)
    merkle.verify_inclusion(proof.entry, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return record.parse(proof.entry), checkpoint


def verify_growth(
    old: checkpoint_format.Checkpoint,
    new: checkpoint_format.Checkpoint,
    path: tuple[bytes, ...],
) -> None:
    """Raise `Refused` unless `new` extends `old`: no fork, no truncation, no restored backup."""
    if old.origin != new.origin:
        raise Refused(
            f"the two checkpoints are of different ledgers: {old.origin[:80]} and {new.origin[:80]}",
            code="wrong-ledger",
            hint="compare checkpoints of one broker; one that was made anew has another ledger",
        )
    merkle.verify_consistency(old.size, old.root, new.size, new.root, path)
