"""Looks for a secret in another process's memory, by what the guard is to prevent."""

from __future__ import annotations

import ctypes
import os

from . import victims

LIBC = ctypes.CDLL(None, use_errno=True)


def stolen(pid):
    """Copies of all descriptors of a process, by pidfd_getfd(2)."""
    target = os.pidfd_open(pid)
    for name in victims.names(f"/proc/{pid}/fd"):
        fd = LIBC.syscall(438, target, int(name), 0)
        if fd >= 0:
            yield fd
            os.close(fd)
    os.close(target)
