"""What a room's program left in its output folder, out of the tar in which it travelled: a checked tree.

The program that wrote the files is somebody else's: the tar is read by the strict reader, twice the same name is
refused, and only files, folders and symlinks are known (`extract` asks where they lead). Owners and extended attributes are dropped.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO, cast

from strongroom.errors import Malformed
from strongroom.images import tar
from strongroom.images.limits import LIMITS, ImageLimits
from strongroom.seal.tree import Entry, EntryKind, show, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KINDS = {
    tar.Type.FILE: EntryKind.FILE,
    tar.Type.DIRECTORY: EntryKind.DIRECTORY,
    tar.Type.SYMLINK: EntryKind.SYMLINK,
}
_BUFFER = 1 << 20
_NOT_OURS = "no room of this version writes such a result: ask whoever ran it which version that was, and do not rely on it"


def is_tar(fd: int, size: int, *, name: str) -> bool:
    """Whether the content of `fd` is to be read as a tar: by its magic, or by its name when it is empty."""
    magic = os.pread(fd, 5, 257)
    return magic == b"ustar" or (size > 0 and ".tar" in name and not any(os.pread(fd, tar.BLOCK, 0)))


def tree(fd: int, size: int, *, what: str, limits: ImageLimits = LIMITS) -> tuple[Entry, ...]:
    """The tree in a tar of `size` bytes. Its entries read from `fd` when they are opened. Raises `Malformed`."""
    entries: dict[bytes, Entry] = {}
    for member in _members(fd, size, what, limits):
        kind = _KINDS.get(member.type)
        if kind is None:
            raise Malformed(
                f"{what}: {show(member.path)} is a {member.type}", code="special-file", hint=_NOT_OURS
            )
        if member.path in entries:
            raise Malformed(
                f"{what}: {show(member.path)} is there twice", code="duplicate-path", hint=_NOT_OURS
            )
        if len(entries) >= limits.entries:
            raise Malformed(f"{what}: more than {limits.entries} entries", code="too-large", hint=_NOT_OURS)
        is_file = kind is EntryKind.FILE
        entries[member.path] = Entry(
            path=member.path,
            kind=kind,
            mode=member.mode & 0o777,
            mtime=member.mtime,
            size=member.size if is_file else 0,
            target=member.target,
            open=_opener(fd, member.offset, member.size) if is_file else None,
        )
    for path in list(entries):
        _add_parents(path, entries)
    _add_parents(b"x", entries)
    return validate(entries.values())


def _members(fd: int, size: int, what: str, limits: ImageLimits) -> Iterator[tar.TarMember]:
    """The members, as `tar` reads them. Its advice on how to rebuild a layer is left out: nobody rebuilds a result."""
    try:
        yield from tar.members(lambda at, count: _pread(fd, count, at), size, what=what, limits=limits)
    except Malformed as failure:
        failure.hint = _NOT_OURS
        raise


def _add_parents(path: bytes, entries: dict[bytes, Entry]) -> None:
    while path:
        path = path.rpartition(b"/")[0]
        if path in entries:
            return
        entries[path] = Entry(path=path, kind=EntryKind.DIRECTORY, mode=0o755)


def _pread(fd: int, count: int, at: int) -> bytes:
    out = b""
    while len(out) < count:
        run = os.pread(fd, count - len(out), at + len(out))
        if not run:
            break
        out += run
    return out


def _opener(fd: int, offset: int, size: int) -> Callable[[], BinaryIO]:
    return lambda: cast("BinaryIO", io.BufferedReader(_Part(fd, offset, size), _BUFFER))


class _Part(io.RawIOBase):
    """A run of a file, read in order."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._at = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = os.preadv(self._fd, [view[: self._end - self._at]], self._at) if self._at < self._end else 0
        self._at += count
        return count
