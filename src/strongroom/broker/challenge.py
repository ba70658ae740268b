"""Use case: a room asks for a nonce (`POST /v1/challenges`).

Anybody may ask, so the answer costs little and the number of open nonces is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Unavailable
from strongroom.model import messages

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.storage import Transaction


async def challenge(broker: Broker, body: bytes) -> messages.Challenge:
    """A fresh, stored, single-use nonce. Raises `Malformed` or `Unavailable`."""
    contract = messages.parse_challenge_request(body)

    def store(transaction: Transaction) -> messages.Challenge:
        now = broker.clock()
        nonces = transaction.nonces
        nonces.purge(now)
        if nonces.open_count() >= broker.budgets.open_challenges:
            raise Unavailable(
                "challenge: too many challenges are open",
                code="too-many-challenges",
                hint=f"try again after {broker.budgets.nonce_lifetime.seconds} seconds",
            )
        fresh = messages.Challenge(
            nonce=broker.random(messages.NONCE_BYTES), time=now, expires=now + broker.budgets.nonce_lifetime
        )
        nonces.add(fresh.nonce, contract=contract, expires=fresh.expires)
        return fresh

    return (await broker.store.write(store)).value
