"""A room's question whether its run may still go on (`POST /v1/watches`), and the answer, as bytes of strict JSON.

POST /v1/watches      {"run": name, "token": 32 bytes}        → {"state": WatchState, "time": time}

The answer comes when something has ended the run, else after at most `WAIT_SECONDS`. It says no more than the public ledger does.
The token came with the release, so that nobody takes the place of a room that waits.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.model import messages
from strongroom.model.identifiers import RunId

if TYPE_CHECKING:
    from datetime import datetime

MAX_BYTES = 4096
WAIT_SECONDS = 25


class WatchState(enum.StrEnum):
    """Whether a run may go on, by its broker's storage."""

    STANDS = "stands"
    PAUSED = "paused"  # the owner paused its contract, or its room: `RecordKind.PAUSE`
    WITHDRAWN = "withdrawn"  # its contract was
    SUPERSEDED = "superseded"  # a later version of its contract is known
    ENDED = "ended"  # its last receipt is recorded


@dataclass(frozen=True, kw_only=True)
class WatchRequest:
    """Which run asks, and its token."""

    run_id: RunId
    token: bytes = field(repr=False)

    def encode(self) -> bytes:
        """JSON bytes."""
        return canonical.dumps({"run": self.run_id, "token": fields.format_data(self.token)})


def parse_request(data: bytes) -> WatchRequest:
    """Parse such a question. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="watch request", max_bytes=MAX_BYTES), "watch request")
    request = WatchRequest(
        run_id=RunId(top.name("run")),
        token=top.data("token", max_bytes=messages.WATCH_BYTES, exactly=messages.WATCH_BYTES),
    )
    top.done()
    return request


@dataclass(frozen=True, kw_only=True)
class WatchAnswer:
    """How the run stands at `time`, by the broker's clock."""

    state: WatchState
    time: datetime

    def encode(self) -> bytes:
        """JSON bytes."""
        return canonical.dumps({"state": self.state.value, "time": fields.format_time(self.time)})


def parse_answer(data: bytes) -> WatchAnswer:
    """Parse the answer. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="watch answer", max_bytes=MAX_BYTES), "watch answer")
    answer = WatchAnswer(state=WatchState(top.choice("state", WatchState)), time=top.time("time"))
    top.done()
    return answer
