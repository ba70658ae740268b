"""Processes beside the agent that have no key of the room's: forked before there is any, of a user that owns nothing."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from strongroom.agent import kernel

if TYPE_CHECKING:
    from collections.abc import Callable


def fork(main: Callable[[], None], *, keep: int) -> int:
    """Run `main` in a process of its own, which has this one descriptor beside 0 to 2 and ends with it; its process id. Before there is any key."""
    pid = os.fork()
    if pid == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            kernel.close_all(3, but=(keep,))
            main()
        finally:
            os._exit(1)
    return pid


def drop_rights(user: int) -> None:
    """Become that user, who owns nothing: no way to another, no look into the process from others of that user."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
