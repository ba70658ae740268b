"""What a process that serves a broker makes of itself: no core dumps, many open files, a plain log."""

from __future__ import annotations

import ctypes
import logging
import resource

MOST_FILES = 65_536
_PR_SET_DUMPABLE = 4


def shield_process() -> None:
    """Close core dumps and, to other users' debuggers, this process's memory (rule 51)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_many_connections() -> None:
    """As many open files as the system grants, up to `MOST_FILES`: silent connections must not use them all up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def log_plainly() -> None:
    """Warnings and errors to standard error, one line each, without tracebacks."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # Whatever strangers send to the port is no event: handshakes that fail.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.exc_info, record.exc_text, record.stack_info = None, None, None
        return super().format(record).replace("\n", " ")
