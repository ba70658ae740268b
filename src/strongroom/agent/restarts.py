"""Whether and when a program that ended is started again, by the contract's word. Pure."""

from __future__ import annotations

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 300.0  # a program that ran so long begins with the shortest pause again
MOST = 100  # starts in a row that did not run so long
NEVER, ON_FAILURE = "never", "on-failure"


class Restarts:
    """policy: `never`, `on-failure` or `always`."""

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self._pause = FIRST_PAUSE
        self._count = 0

    def after(self, *, succeeded: bool, ran_seconds: float) -> float | None:
        """Seconds to wait before the next start; None where there is none."""
        if self._policy == NEVER or (self._policy == ON_FAILURE and succeeded):
            return None
        if ran_seconds >= STEADY_SECONDS:
            self._pause, self._count = FIRST_PAUSE, 0
        if self._count >= MOST:
            return None
        self._count += 1
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        return pause
