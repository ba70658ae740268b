"""The kernel's wall clock, which the program sees."""

from __future__ import annotations

import time

from strongroom.agent import kernel


class KernelClock:
    """Implements `clock.SystemClock`."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def set(self, seconds: float) -> None:
        """By `clock_settime`."""
        time.clock_settime(time.CLOCK_REALTIME, seconds)

    def slew(self, seconds: float) -> None:
        """By the kernel, half a millisecond in each second."""
        kernel.adjust_time(-seconds)
