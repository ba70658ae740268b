"""New files that appear whole or not at all, even when the process is killed with no chance to clean up.

The file has no name while it is written (O_TMPFILE); it is linked into its folder after fsync, and never over another.
Where the file system has no nameless files, a hidden `.NAME.PID.part` beside it is used and removed on any failure.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}


@contextlib.contextmanager
def create(path: Path, *, mode: int = 0o644, expected_bytes: int = 0) -> Iterator[int]:
    """A descriptor to write (and read) the future `path` through. It exists once the block is left without error.

    Raises `Misuse` when `path` exists, and `Unavailable` at once when `expected_bytes` cannot fit.
    """
    _refuse_existing(path, mode)
    folder = path.parent
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < expected_bytes:
        raise Unavailable(
            f"{folder}: {expected_bytes} bytes needed, {free} free", code="disk-full", hint="make room there"
        )
    fd, part = _open(path, mode)
    try:
        try:
            yield fd
        except OSError as cause:
            if cause.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise Unavailable(
                f"{folder}: the disk is full", code="disk-full", hint="make room there"
            ) from None
        os.fsync(fd)
        _name(fd, part, path, mode)
    finally:
        os.close(fd)
        if part is not None:
            part.unlink(missing_ok=True)


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Create `path` with these bytes, on the same terms."""
    with create(path, mode=mode, expected_bytes=len(data)) as fd:
        done = 0
        while done < len(data):
            done += os.write(fd, data[done:])


def _refuse_existing(path: Path, mode: int) -> None:
    if os.path.lexists(path):
        raise files.taken(path, private=not mode & 0o077)


def _open(path: Path, mode: int) -> tuple[int, Path | None]:
    try:
        return os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode), None
    except OSError as cause:
        if cause.errno not in _NO_TMPFILE or not path.parent.is_dir():
            raise
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    return os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), part


def _name(fd: int, part: Path | None, path: Path, mode: int) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # With a folder's descriptor this is linkat(…, AT_SYMLINK_FOLLOW), which gives the nameless file its name.
        source = f"/proc/self/fd/{fd}" if part is None else os.fspath(part)
        os.link(source, path.name, dst_dir_fd=folder, follow_symlinks=True)
        os.fsync(folder)
    except FileExistsError:
        _refuse_existing(path, mode)
        raise
    finally:
        os.close(folder)
