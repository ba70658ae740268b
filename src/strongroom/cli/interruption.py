"""A request to stop becomes an exception, so that half-made files are removed on the way out."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP unwind like Ctrl-C does; the exit codes are 143 and 129."""

    def leave(number: int, _frame: FrameType | None) -> None:
        # Once is enough: a second signal must not interrupt the tidying up.
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)  # what a shell reports of a process that a signal ended

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
