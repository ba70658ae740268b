"""The ledger's own signature: checkpoints over what is durable, proofs that lead to them, results of its entries.

A checkpoint is signed only for a size that the store has committed, so that no crash can make the
ledger deny what it has signed. One key signs both kinds of things, and none is the other: a checkpoint is text
of several lines; a result is one line without a space, or CBOR, which is no text (a test holds that).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal import ear_token
from strongroom.ledger import checkpoint, merkle
from strongroom.model import messages

if TYPE_CHECKING:
    from strongroom.appraisal.ear import AttestationResult
    from strongroom.crypto import sign

_KEPT = 64


class Notary:
    """Signs checkpoints. Remembers the newest ones, since many answers share one."""

    __slots__ = ("_key", "_notes")

    def __init__(self, key: sign.SigningKey) -> None:
        self._key = key
        self._notes: dict[int, str] = {}

    @property
    def public(self) -> sign.VerifyingKey:
        """The key of the ledger, as contracts name it."""
        return self._key.public

    def checkpoint(self, nodes: merkle.Nodes, size: int) -> str:
        """The signed note over the first `size` leaves. They must be durable."""
        note = self._notes.get(size)
        if note is None:
            note = checkpoint.issue(self._key, size=size, root=merkle.root(nodes, size))
            while len(self._notes) >= _KEPT:
                self._notes.pop(next(iter(self._notes)), None)
            self._notes[size] = note
        return note

    def prove(self, nodes: merkle.Nodes, *, entry: bytes, index: int, size: int) -> messages.LedgerProof:
        """The proof that `entry` stands at `index` among the first `size` leaves."""
        return messages.LedgerProof(
            entry=entry,
            index=index,
            hashes=merkle.inclusion(nodes, index, size),
            checkpoint=self.checkpoint(nodes, size),
        )

    def sign_result(self, result: AttestationResult, *, cwt: bool) -> bytes:
        """The result as a token: a CWT, or else a JWT."""
        return ear_token.to_cwt(result, self._key) if cwt else ear_token.to_jwt(result, self._key).encode()
