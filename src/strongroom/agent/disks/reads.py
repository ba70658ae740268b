"""Whether a read below any disk has failed since before the base was mounted. A read that failed is data that was corrupted.

dm-verity remembers blocks that are wrong and not reads that fail. A device error reaches the program as EIO, which globs and
pipes tolerate: the host would choose which rows count. So the initrd (`bases/initramfs`) has the kernel's tracepoint
block_bio_complete record every request to a device mapper device that ends with an error: of the base and of each
sealed disk, read-ahead included, whatever the reason and whatever lies below (virtio, NBD, a disk that shrinks or goes).
The record's buffer is not empty from the first of them on, and nobody reads from it: that makes it sticky.

Not seen here: a block that is wrong (`open.complain_if_corrupted`; the base's is a panic), a read that never ends
(the wall limit), and the prefetch of a hash block that fails where no request depended on it.
"""

from __future__ import annotations

import os
import select

from strongroom.errors import Refused, Unavailable

DESCRIPTOR = 3
_NAME = "/trace_pipe"


class ReadWatch:
    """The record of failed reads: a descriptor that is readable once there is one, and for ever after."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """For `select`."""
        return self._fd

    def failed(self) -> bool:
        """Whether any read has failed so far."""
        return bool(select.select([self._fd], [], [], 0)[0])

    def complain(self) -> None:
        """Raise `Refused` (`data-corrupted`) when a read has failed."""
        if self.failed():
            raise Refused(
                "a read below a sealed disk or the base failed",
                code="data-corrupted",
                hint="the machine could not read its own disks, or would not; look at the node's storage",
            )


def inherited(fd: int = DESCRIPTOR) -> ReadWatch:
    """The record that the initrd handed on. Raises `Unavailable` where there is none: no room goes on blind."""
    try:
        os.set_inheritable(fd, False)
        name = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        name = ""
    if not name.endswith(_NAME):
        raise Unavailable(
            f"descriptor {fd} is no record of failed reads",
            code="no-read-watch",
            hint="the base's initrd is of another version than its agent, or its kernel lacks CONFIG_EVENT_TRACING",
        )
    return ReadWatch(fd)
