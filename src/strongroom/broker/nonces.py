"""Nonces that prove themselves: given out without being stored, recorded when they are used (docs/decisions/0027-nonces-prove-themselves.md).

A nonce is 32 bytes: when it ends (6, seconds since 1970, big-endian) ‖ random (10) ‖ tag (16), where the tag is the
start of HMAC-SHA256(key, frame(LABEL, end ‖ random, contract digest)). The key is derived from the folder's master
key, so that every replica knows the nonces of the others, and nobody else can make one.

That a nonce counts once, and not after its end, is for the storage to hold (`ports.Nonces`): it remembers used
ones until they end, and the latest time that anybody has known. `reached` is what this process has heard of that
time. It is written at least every `KEPT` while nonces are given out; so a clock that is set back and a broker that
starts anew make no nonce last longer than by `KEPT`.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from strongroom.encoding import framed

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.identifiers import ContractDigest

PURPOSE = "challenge"
BYTES = 32
KEPT = timedelta(seconds=10)
_LABEL = "strongroom/nonce/1"
_END, _RANDOM, _TAG = 6, 10, 16


class NonceMaker:
    """Makes nonces and knows its own. Never shows the key."""

    __slots__ = ("_keyed", "reached")

    def __init__(self, key: bytes) -> None:
        # Each tag is made from a copy: to look the hash up and put the key in takes as long as the rest.
        self._keyed = hmac.new(key, digestmod="sha256")
        self.reached = datetime.fromtimestamp(0, UTC)

    def make(
        self, contract_digest: ContractDigest, *, end: datetime, random: Callable[[int], bytes]
    ) -> bytes:
        """A nonce for the contract of that digest, good before `end` (whole seconds)."""
        head = int(end.timestamp()).to_bytes(_END, "big") + random(_RANDOM)
        return head + self._tag(head, contract_digest)

    def end(self, nonce: bytes, contract_digest: ContractDigest) -> datetime | None:
        """When the nonce ends; None when it was not made here for that contract."""
        head, tag = nonce[: _END + _RANDOM], nonce[_END + _RANDOM :]
        if len(nonce) != BYTES or not hmac.compare_digest(tag, self._tag(head, contract_digest)):
            return None
        return datetime.fromtimestamp(int.from_bytes(head[:_END], "big"), UTC)

    def _tag(self, head: bytes, contract_digest: ContractDigest) -> bytes:
        tag = self._keyed.copy()
        tag.update(framed.join(_LABEL, head, contract_digest.encode()))
        return tag.digest()[:_TAG]
