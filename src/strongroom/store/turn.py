"""Whose turn it is to write, among all processes that share one database.

SQLite makes writers wait by letting them sleep for up to a tenth of a second at a time, while the lock changes hands
every few milliseconds: two busy processes got less done than one. A file lock wakes the next one at once, and the
kernel gives it back for a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SUFFIX = "-turn"
"""What the lock's file is called, after the database's name."""


class Turn:
    """A lock on a file of its own. One thread of a process uses it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, then have it until the context ends."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
