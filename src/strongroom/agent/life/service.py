"""What a service does beside its program: attest again, wait for what ends it, take the node's stop.

What ends it, and how:
  the node's stop (`{"kind": "stop"}`), the contract's end   the program is asked to end, and killed after `GRACE_SECONDS`
  a pause, a withdrawal, a later version, by any broker      it is killed at once
  a renewal that a broker refuses                            so is it: what was said of this room holds no longer
  no renewal until the first verdict ends, or a clock that drifted, also killed: the room fails closed

Outputs leave only where the program ended by itself (`finish`), so that of what was killed nothing does.
`step` is called by whoever waits for the program, within the room's one loop. A renewal blocks it, for as long as brokers take, while streams
flow; what is said meanwhile is taken in, and makes the renewal give up (`must_hurry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from strongroom.agent.program import Ending
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, PolicyDenied, Refused, Unavailable
from strongroom.model import check_names
from strongroom.model.room import channel as wire
from strongroom.model.verdict import Check
from strongroom.model.watch import WatchState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strongroom.agent.life.schedule import Renewals, VerdictSpan

GRACE_SECONDS = 10.0
LONGEST_STEP = 30.0  # seconds between two steps, so that a watchdog can tell a loop that stands still
STOPPED, PAUSED, RENEWAL_REFUSED, RENEWAL_OVERDUE, CLOCK_DRIFT = (
    *("stopped", "paused", "renewal-refused", "renewal-overdue", "clock-drift"),
)
_OF_STATE = {
    WatchState.PAUSED: PAUSED,
    WatchState.WITHDRAWN: PAUSED,
    WatchState.SUPERSEDED: PAUSED,
    WatchState.ENDED: RENEWAL_REFUSED,
}


class BrokerWatch(Protocol):
    """A watch at one broker."""

    def step(self, now: float) -> float:
        """Go on; when to be called again."""

    def close(self) -> None:
        """Ask no more."""


class ServiceLife:
    """The life of one service, from its program's start. Times are monotonic seconds.

    not_after: the contract's end. renew: attests at every broker and reports it; raises as `attest.attest`. controls: what the node said
    since it was last asked. note: called with a line for the node, once for each failed renewal in a row.
    """

    def __init__(
        self,
        renewals: Renewals,
        *,
        not_after: float,
        renew: Callable[[], VerdictSpan],
        watches: Sequence[BrokerWatch],
        controls: Callable[[], list[bytes]],
        clock: Callable[[], float],
        on_failure: Callable[[], None] = lambda: None,
        watchdog: Callable[[], None] = lambda: None,
    ) -> None:
        self._renewals = renewals
        self._not_after = not_after
        self._renew = renew
        self._watches = watches
        self._controls = controls
        self._clock = clock
        self._on_failure = on_failure
        self._watchdog = watchdog
        self._is_failing = False
        self.ending: Ending | None = None

    def step(self) -> float:
        """Do what is due. Returns after how many seconds this is to be called again, at the latest; sooner when anything comes."""
        self._watchdog()
        self._hear()
        now = self._clock()
        if self.ending is None and now >= self._not_after:
            self.ending = Ending(detail=STOPPED, grace=GRACE_SECONDS)
        if self.ending is None and now >= self._renewals.end:
            self.ending = Ending(detail=RENEWAL_OVERDUE)
        if self.ending is None and now >= self._renewals.due:
            self._attest(now)
            self._hear()
        if self.ending is not None:
            for watch in self._watches:
                watch.close()
            return LONGEST_STEP
        now = self._clock()
        wanted = [watch.step(now) for watch in self._watches]
        until = min(*wanted, self._renewals.due, self._renewals.end, self._not_after, now + LONGEST_STEP)
        return max(0.0, until - now)

    def must_hurry(self) -> bool:
        """Whether something has come that ends the room, or its time is over: a renewal that waits is to give up."""
        self._hear()
        if self.ending is None:
            for watch in self._watches:
                watch.step(self._clock())
        return self.ending is not None or self._clock() >= min(self._renewals.end, self._not_after)

    def hear_state(self, state: WatchState) -> None:
        """A broker says that the run may not go on."""
        detail = _OF_STATE.get(state)
        if detail is not None and (self.ending is None or self.ending.grace):
            self.ending = Ending(detail=detail)

    def _hear(self) -> None:
        for payload in self._controls():
            top = fields.Fields(
                canonical.loads(payload, what="node's message", max_bytes=wire.MAX_TEXT), "node's message"
            )
            top.constant("kind", wire.STOP)
            top.done()
            if self.ending is None:
                self.ending = Ending(detail=STOPPED, grace=GRACE_SECONDS)

    def _attest(self, now: float) -> None:
        try:
            span = self._renew()
        except Refused as cause:
            if _may_pass(cause):
                self._failed(now)
            elif self.ending is None:
                self.ending = Ending(detail=_detail(cause))
        except (Unavailable, Malformed):
            self._failed(now)
        else:
            self._is_failing = False
            self._renewals.renewed(span)

    def _failed(self, now: float) -> None:
        self._renewals.failed(max(now, self._clock()))
        if not self._is_failing:
            self._is_failing = True
            self._on_failure()


def _may_pass(cause: Refused) -> bool:
    """Whether a broker's no is of this try alone: its nonce ended on the way."""
    checks = cause.verdict if isinstance(cause, PolicyDenied) and isinstance(cause.verdict, tuple) else ()
    failed = [check.name for check in checks if isinstance(check, Check) and not check.ok]
    return bool(failed) and failed[0] == check_names.NONCE_FRESH


def _detail(cause: Refused) -> str:
    if cause.code in ("clock-drift", "clocks-differ"):
        return CLOCK_DRIFT
    checks = cause.verdict if isinstance(cause, PolicyDenied) and isinstance(cause.verdict, tuple) else ()
    failed = {check.name for check in checks if isinstance(check, Check) and not check.ok}
    ended = {check_names.CONTRACT_PAUSED, check_names.CONTRACT_WITHDRAWN, check_names.CONTRACT_VERSION}
    return PAUSED if failed & ended else RENEWAL_REFUSED
