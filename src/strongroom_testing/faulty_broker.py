"""A broker that kills itself: `python -m strongroom_testing.faulty_broker DIR`, with the moment in KILL_AT.

`in-transaction`: after the decision was written, before its commit. `after-commit`: the decision is
durable, nothing was answered. Only releases count; challenges pass. Never in the product.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.wiring import broker, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.broker.ports import Committed, Store
    from strongroom.wiring.serving import ServingBroker

KILL_AT = "STRONGROOM_TEST_KILL_AT"


class Killing:
    """A store whose process dies at the moment that was asked for."""

    def __init__(self, store: Store, moment: str) -> None:
        self._store = store
        self._moment = moment
        self.ledger = store.ledger
        self.read = store.read

    async def write(self, work: Callable[[Any], Any]) -> Committed[Any]:
        before = self.ledger.size()

        def killing(transaction: Any) -> Any:
            value = work(transaction)
            if self._moment == "in-transaction" and transaction.ledger.size() > before:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        done = await self._store.write(killing)
        if self._moment == "after-commit" and done.size > before:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def main() -> None:
    directory = Path(sys.argv[1])
    secret = os.environ["STRONGROOM_PASSPHRASE"].encode()
    with broker.open_broker(directory, secret) as opened:
        store = Killing(opened.store, os.environ[KILL_AT])
        faulty = replace(opened, broker=replace(opened.broker, store=store))
        settings = opened.settings
        serving.serve_opened(faulty, host=settings.host, port=settings.port, on_ready=_say)


def _say(ready: ServingBroker) -> None:
    """As `strongroom broker serve` says it."""
    line = f"broker of {ready.party}: ready on {ready.listening}, ledger of {ready.entries} entries\n"
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
