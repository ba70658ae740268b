"""Use case: a room attests again while it runs (`POST /v1/renewals`; docs/decisions/0049-rooms-that-live.md).

The request is that of a release, of a run that keys were released to: same signing key, contract and room, with a fresh nonce
and fresh evidence; the TLS key may be a new one. It takes the steps of a release, all of them and in their order (`broker.release`),
but for these:
  4 `run.released` stands in the place of `run.unique`: this broker released to this very run, and its last receipt is not here.
    No key is sealed: the room has them. A certificate is issued where the contract has one
  6 the run itself is not among the runs that were used, so that the last run of a contract can be renewed
  7 the entry is a `renewal`, and no run is counted
Whatever ends a contract refuses its renewals: its time, its withdrawal, a later version, a pause; a disk that was taken away; and what the vendor
says of the platform now (its revocations, its TCB), since endorsements are those of the day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker.release import release

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.release import OwnNonce
    from strongroom.model import messages


async def renewal(
    broker: Broker, body: bytes, *, peer: str = "", passed: OwnNonce | None = None
) -> messages.ReleaseAnswer | messages.DenialAnswer:
    """Decide, record, then answer; the answer has no disk keys. As `release`, also in what it raises."""
    return await release(broker, body, peer=peer, passed=passed, renews=True)
