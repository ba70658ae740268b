"""A dataset's files from the owner's own disk, as a tree that depends on names and contents alone.

Same input, same bytes: owners, times and access control lists are left behind, modes become 0644 or
0755. Who may read the data is decided by the contract; inside the room every user of the program may.
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, cast

from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Conflict, Misuse, Refused
from strongroom.seal.tree import Entry, EntryKind, show, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

_DIRECTORY_MODE = 0o755


def from_paths(paths: Sequence[Path]) -> tuple[Entry, ...]:
    """The tree of what `paths` name, validated.

    One folder: its contents are the tree. Otherwise each path becomes an entry of the root, under its own name.
    Symlinks are kept when they lead somewhere inside, else `Refused`, like devices, fifos and sockets.
    Content is not read here; an entry's `open` raises `Conflict` when the file is no longer the one listed.
    """
    if not paths:
        raise Misuse(
            "seal: no file or folder given", hint="name what is to be sealed: `strongroom seal FOLDER …`"
        )
    roots = [os.fsencode(os.path.realpath(path, strict=True)) for path in paths]
    entries = [Entry(path=b"", kind=EntryKind.DIRECTORY, mode=_DIRECTORY_MODE)]
    links: dict[tuple[int, int], int] = {}
    if len(roots) == 1 and stat.S_ISDIR(os.stat(roots[0]).st_mode):  # noqa: PTH116 - bytes paths
        entries.extend(_inside(roots[0], b"", links))
    else:
        names = [os.path.basename(root) for root in roots]  # noqa: PTH119 - bytes paths
        if len(set(names)) != len(names) or b"" in names:
            raise Misuse(
                f"seal: two things would have the same name on the disk: {_alike(paths, names)}",
                code="duplicate-path",
                hint="put them into one folder, under names of their own, and seal that folder",
            )
        for root, name in sorted(zip(roots, names, strict=True), key=lambda pair: pair[1]):
            entries.extend(_entries(root, name, links))
    outward = next(outward_links(entries), None)
    if outward is not None:
        raise Refused(
            f"symlink {show(outward.path)} leads outside the sealed folder, or in a circle: to {show(outward.target)}",
            code="escaping-symlink",
            hint="replace it by what it points to, or leave it out",
        )
    return validate(entries)


def _alike(paths: Sequence[Path], names: Sequence[bytes]) -> str:
    """Those of `paths`, as they were typed, that would get a name that another has, or none."""
    return ", ".join(
        str(path) for path, name in zip(paths, names, strict=True) if not name or names.count(name) > 1
    )


def outward_links(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The symlinks of a tree that lead out of it or in a circle, each followed through the tree's other links."""
    links = {entry.path: entry for entry in entries if entry.kind is EntryKind.SYMLINK}
    targets = {path: entry.target for path, entry in links.items()}
    symlinks = Symlinks(targets.get, chroot=False)
    return (entry for path, entry in links.items() if symlinks.resolve(path) is None)


def _inside(folder: bytes, prefix: bytes, links: dict[tuple[int, int], int]) -> Iterator[Entry]:
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - bytes paths
        yield from _entries(folder + b"/" + name, prefix + b"/" + name if prefix else name, links)


def _entries(source: bytes, path: bytes, links: dict[tuple[int, int], int]) -> Iterator[Entry]:
    status = os.lstat(source)
    if stat.S_ISDIR(status.st_mode):
        yield Entry(path=path, kind=EntryKind.DIRECTORY, mode=_DIRECTORY_MODE)
        yield from _inside(source, path, links)
    elif stat.S_ISLNK(status.st_mode):
        target = os.readlink(source)  # noqa: PTH115 - bytes paths
        yield Entry(path=path, kind=EntryKind.SYMLINK, mode=0o777, target=target)
    elif stat.S_ISREG(status.st_mode):
        group = None
        if status.st_nlink > 1:
            group = links.setdefault((status.st_dev, status.st_ino), len(links))
        yield Entry(
            path=path,
            kind=EntryKind.FILE,
            mode=0o755 if status.st_mode & stat.S_IXUSR else 0o644,
            size=status.st_size,
            link_group=group,
            open=_Source(source, path, status).open,
        )
    else:
        raise Refused(
            f"{show(path)} is a device, fifo or socket",
            code="special-file",
            hint="remove it, or leave it out: a sealed disk holds files, folders and symbolic links only",
        )


class _Source:
    """Where a file's content comes from, and how it looked when it was listed."""

    __slots__ = ("_path", "_shape", "_source")

    def __init__(self, source: bytes, path: bytes, status: os.stat_result) -> None:
        self._source = source
        self._path = path
        self._shape = _shape(status)

    def open(self) -> BinaryIO:
        """The content. Raises `Conflict` when the file was replaced or changed since."""
        try:
            fd = os.open(self._source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as cause:
            raise Conflict(
                f"reading {show(self._path)}: {cause.strerror}",
                code="source-changed",
                hint="leave the files alone while they are sealed, and seal again",
            ) from None
        raw = _Watched(fd, self.check)
        try:
            self.check(fd)
        except Conflict:
            raw.close()
            raise
        return cast("BinaryIO", raw)

    def check(self, fd: int) -> None:
        """Raise `Conflict` unless `fd` is the file that was listed, unchanged."""
        if _shape(os.fstat(fd)) != self._shape:
            raise Conflict(
                f"reading {show(self._path)}: it changed while it was being sealed",
                code="source-changed",
                hint="leave the files alone while they are sealed, and seal again",
            )


class _Watched(io.RawIOBase):
    """A file that is looked at once more when its end is reached: a torn read never passes for the content."""

    def __init__(self, fd: int, check: Callable[[int], None]) -> None:
        self._fd = fd
        self._check = check

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        count = os.readv(self._fd, [buffer])
        if not count:
            self._check(self._fd)
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def _shape(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns)
