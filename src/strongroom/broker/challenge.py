"""Use case: a room asks for a nonce (`POST /v1/challenges`).

Anybody may ask, so the answer costs little: nothing is read or stored, but for the time, once in ten seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker.nonces import KEPT
from strongroom.model import messages

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker


async def challenge(broker: Broker, body: bytes) -> messages.Challenge:
    """A fresh, single-use nonce. Raises `Malformed` or `Unavailable`."""
    contract = messages.parse_challenge_request(body)
    nonces, now = broker.nonces, broker.clock()
    if now - nonces.reached >= KEPT:
        nonces.reached = (await broker.store.write(lambda transaction: transaction.clock.reach(now))).value
    now = max(now, nonces.reached)
    end = (now + broker.budgets.nonce_lifetime).replace(microsecond=0)
    nonce = nonces.make(contract, end=end, random=broker.random)
    return messages.Challenge(nonce=nonce, time=now, expires=end)
