"""A request to stop becomes an exception, so that half-made files are removed on the way out."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def orderly(ask: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Within, SIGTERM and SIGHUP unwind like Ctrl-C does; the exit codes are 143 and 129.

    ask: called at the first of these signals; where it says that it has asked what runs to end by itself, only the next one unwinds.
    """
    asked = False

    def has_asked() -> bool:
        nonlocal asked
        if asked:
            return False
        asked = True
        return ask()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not has_asked():
            signal.default_int_handler(number, frame)

    def leave(number: int, _frame: FrameType | None) -> None:
        if has_asked():
            return
        # Once is enough: a second signal must not interrupt the tidying up.
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)  # what a shell reports of a process that a signal ended

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
