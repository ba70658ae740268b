"""Use case: a room waits for what ends its run (`POST /v1/watches`), so that a pause reaches it within seconds.

Authenticated by a token that came with the release or renewal (`Broker.watch_token`): a run's name is public in the ledger, and
places to wait in are few. The answer says nothing secret. A run waits once in each process: whoever comes again for the same run
takes the place of who waited before, and that one is answered at once.

One task looks whether the ledger has grown, once in `POLL_SECONDS` while anybody waits, since whoever pauses a contract is another process;
only then the runs that wait are looked up. A policy or TCB that changed is seen where it is judged: at the next renewal.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from typing import TYPE_CHECKING

from strongroom.errors import Refused, Unavailable
from strongroom.model import watch as watch_model
from strongroom.model.watch import WatchState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Reading
    from strongroom.model.identifiers import RunId

POLL_SECONDS = 1.0
MOST = 256  # places in one process: half of the connections that its server has
MOST_EACH = 96  # of one address, which may have 128 connections


class Watches:
    """The rooms that wait at one process, for its event loop alone."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: dict[RunId, asyncio.Future[WatchState]] = {}
        self._peers: Counter[str] = Counter()
        self._polling: asyncio.Task[None] | None = None
        self._is_closed = False

    async def wait(self, run_id: RunId, *, seconds: float, peer: str = "") -> WatchState:
        """How the run stands once that is something else than `STANDS`, or after `seconds`. Raises `Unavailable`."""
        if run_id in self._waiting:
            _answer(self._waiting[run_id], WatchState.STANDS)
        elif len(self._waiting) >= MOST or self._peers[peer] >= MOST_EACH:
            raise Unavailable(
                "watch: too many rooms wait here already, or too many behind that address",
                code="too-many-watches",
                hint="ask again in a moment; the run goes on until its certificate or verdict ends",
            )
        place: asyncio.Future[WatchState] = asyncio.get_running_loop().create_future()
        self._waiting[run_id] = place
        self._peers[peer] += 1
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        try:
            state = (await self._read((run_id,)))[
                run_id
            ]  # from here on, whatever happens makes the ledger grow
            if state is not WatchState.STANDS or self._is_closed:
                return state
            async with asyncio.timeout(seconds):
                return await place
        except TimeoutError:
            return WatchState.STANDS
        finally:
            self._leave(run_id, place, peer)

    def close(self) -> None:
        """Answer all who wait, and from now on whoever comes at once: the process ends."""
        self._is_closed = True
        for place in self._waiting.values():
            _answer(place, WatchState.STANDS)

    def _leave(self, run_id: RunId, place: asyncio.Future[WatchState], peer: str) -> None:
        if self._waiting.get(run_id) is place:
            del self._waiting[run_id]
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]
        if not self._waiting and self._polling is not None:
            self._polling.cancel()
            self._polling = None

    async def _poll(self) -> None:
        size = -1
        while True:
            try:
                now = await self._broker.workers.run(self._broker.store.ledger.size)
                if now != size:
                    for run_id, state in (await self._read(tuple(self._waiting))).items():
                        if state is not WatchState.STANDS and run_id in self._waiting:
                            _answer(self._waiting[run_id], state)
                    size = now
            except (Unavailable, Refused):
                # A storage that fails ends nobody's run, and neither does a run that an older copy of it does not know, which
                # leaves at once: the next look may succeed.
                pass
            await asyncio.sleep(POLL_SECONDS)

    async def _read(self, run_ids: Iterable[RunId]) -> dict[RunId, WatchState]:
        def states(state: Reading) -> dict[RunId, WatchState]:
            return {run_id: standing(state, run_id) for run_id in run_ids}

        return await self._broker.workers.run(lambda: self._broker.store.read(states))


def _answer(place: asyncio.Future[WatchState], state: WatchState) -> None:
    if not place.done():
        place.set_result(state)


def standing(state: Reading, run_id: RunId) -> WatchState:
    """Whether the run may go on. Raises `Refused` for one that no keys were released to."""
    run = state.runs.find(run_id)
    if run is None:
        raise _unknown()
    if run.receipt is not None:
        return WatchState.ENDED
    series = state.contracts.of_digest(run.contract_digest)
    highest = None if series is None else state.contracts.highest(series)
    if highest is None:
        return WatchState.SUPERSEDED
    if highest.withdrawn:
        return WatchState.WITHDRAWN
    return WatchState.PAUSED if highest.is_paused(run.room) else WatchState.STANDS


async def watch(broker: Broker, watches: Watches, body: bytes, *, peer: str = "") -> watch_model.WatchAnswer:
    """Wait until the run ends, `WAIT_SECONDS` at most. peer: the address that asked, for the budgets.

    Raises `Malformed`, `Refused`, `Unavailable`.
    """
    request = watch_model.parse_request(body)
    if not hmac.compare_digest(request.token, broker.watch_token(request.run_id)):
        broker.failures.failed(broker.clock(), peer=peer)
        raise _unknown()
    state = await watches.wait(request.run_id, seconds=watch_model.WAIT_SECONDS, peer=peer)
    return watch_model.WatchAnswer(state=state, time=broker.clock().replace(microsecond=0))


def _unknown() -> Refused:
    return Refused(
        "watch: not the token of a run that keys were released to here",
        code="unknown-run",
        hint="a room waits at a broker that released to it, with the token that came with the newest answer",
    )
