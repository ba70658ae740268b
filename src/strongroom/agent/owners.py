"""Whose files are whose: the image's ids and the kernel's are two numbers, in a user namespace of the program's own.

The program's id N is the kernel's FIRST + N. So an image with USER 0 does not run as the kernel's uid 0, which owns
what the kernel shows of itself: files under /proc that uid 0 may write by owning them, with no capability at all.
Images and datasets are mounted with their owners mapped (`kernel.bind_mapped`); what the agent makes for the program in
memory belongs to `kernel_id`. Files of an id from COUNT on are nobody's.
"""

from __future__ import annotations

import errno
import os
import signal

from strongroom.agent import kernel
from strongroom.model.manifest import MAX_USER

FIRST = 1 << 31
COUNT = MAX_USER + 1


def kernel_id(number: int) -> int:
    """The kernel's number for an id of the image, 0 to `MAX_USER`."""
    return FIRST + number


def make_namespace() -> int:
    """A user namespace with this mapping, in which no process is yet; its descriptor. Raises `OSError`."""
    ready, done = os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(done, b"1")
            signal.pause()  # until it is killed: a namespace lives as long as a process or a descriptor holds it
        finally:
            os._exit(1)
    os.close(done)
    try:
        if not os.read(ready, 1):
            raise OSError(errno.EPERM, "making a user namespace: the kernel refuses")
        for kind in ("uid", "gid"):
            with open(f"/proc/{holder}/{kind}_map", "wb", buffering=0) as file:
                file.write(b"0 %d %d" % (FIRST, COUNT))
        return os.open(f"/proc/{holder}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
