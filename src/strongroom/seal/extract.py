"""A tree written out to a folder of the owner: whole or not at all, and nowhere but in that folder.

Everything goes into a fresh private folder beside the target, which takes the target's name at the end. Every folder
is opened by itself, from its parent's descriptor and never through a link, and symlinks come last, when nothing is
written any more: no content goes through one, whatever the tree says and whoever changes it meanwhile. Owners, extended attributes,
setuid and setgid bits stay in the disk: they would mean something else on this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Misuse
from strongroom.seal import folder
from strongroom.seal.tree import Entry, EntryKind, show, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from strongroom.seal.progress import Progress

_RUN = 1 << 20
_NOT_OURS = (
    "nothing was written: neither `strongroom seal` nor a room makes such a thing; ask whoever made it"
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A private folder that becomes `target` when the block is left without error, and else disappears.

    `target` must not exist, or be an empty folder: `Misuse`. Nothing is ever overwritten.
    """
    if os.path.lexists(target) and (not target.is_dir() or target.is_symlink() or any(target.iterdir())):
        raise Misuse(
            f"{target}: exists and is not an empty folder",
            code="exists",
            hint="name a new folder to unpack into",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        yield stage
        stage.rename(target)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def write(entries: Iterable[Entry], into: Path, *, foreign_links: bool, progress: Progress) -> None:
    """Write a tree into the empty folder `into`. Raises `Malformed` for symlinks that lead outside or in a circle.

    `foreign_links` keeps those instead: in a program's image they mean the image's own root. So may only an image
    have fifos: who reads a folder of data would wait for one for ever.
    """
    checked = validate(entries)
    if not foreign_links:
        _refuse_of_data(checked)
    total = sum(entry.size for entry in checked)
    done = 0
    first: dict[int, Entry] = {}
    with _opened_top(into) as top:
        for entry in checked:
            if entry.kind is EntryKind.FILE and (entry.link_group is None or entry.link_group not in first):
                for count in _write_file(top, entry):
                    done += count
                    progress(done, total)
                if entry.link_group is not None:
                    first[entry.link_group] = entry
            elif entry.kind is EntryKind.FILE and entry.link_group is not None:
                _link(top, first[entry.link_group], entry)
            elif entry.kind is EntryKind.DIRECTORY and entry.path:
                with _opened(top, entry.parent) as parent:
                    os.mkdir(entry.name, 0o700, dir_fd=parent)
        for entry in checked:
            if entry.kind in (EntryKind.SYMLINK, EntryKind.FIFO):
                _write_special(top, entry)
        for entry in reversed(checked):
            if entry.kind is EntryKind.DIRECTORY:
                with _opened(top, entry.path) as fd:
                    os.fchmod(fd, entry.mode & 0o777 | 0o700)
                    _date(entry, fd)


def _refuse_of_data(entries: Sequence[Entry]) -> None:
    fifo = next((entry for entry in entries if entry.kind is EntryKind.FIFO), None)
    if fifo is not None:
        raise Malformed(
            f"{show(fifo.path)} is a fifo, and data has none", code="special-file", hint=_NOT_OURS
        )
    outward = next(folder.outward_links(entries), None)
    if outward is not None:
        raise Malformed(
            f"symlink {show(outward.path)} leads outside its folder, or in a circle",
            code="escaping-symlink",
            hint=_NOT_OURS,
        )


@contextlib.contextmanager
def _opened_top(path: Path) -> Iterator[int]:
    fd = os.open(path, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(top: int, path: bytes) -> Iterator[int]:
    """The folder at `path` below `top`: each part is opened by itself, and none through a link."""
    fd = os.dup(top)
    try:
        for part in path.split(b"/") if path else ():
            below = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _write_file(top: int, entry: Entry) -> Iterator[int]:
    if entry.open is None:
        raise Malformed(f"{show(entry.path)}: a file without content")
    with _opened(top, entry.parent) as parent:
        fd = os.open(
            entry.name,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=parent,
        )
    with os.fdopen(fd, "wb") as out, entry.open() as source:
        left = entry.size
        while left:
            run = source.read(min(left, _RUN))
            if not run:
                raise Malformed(f"{show(entry.path)}: content ends early", code="truncated")
            out.write(run)
            left -= len(run)
            yield len(run)
        out.flush()
        os.fchmod(fd, entry.mode & 0o777 | 0o600)
        _date(entry, fd)


def _write_special(top: int, entry: Entry) -> None:
    with _opened(top, entry.parent) as parent:
        if entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.target, entry.name, dir_fd=parent)
        else:
            os.mkfifo(entry.name, entry.mode & 0o777 | 0o600, dir_fd=parent)
        _date(entry, entry.name, parent)


def _link(top: int, first: Entry, entry: Entry) -> None:
    with _opened(top, first.parent) as source, _opened(top, entry.parent) as parent:
        os.link(first.name, entry.name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)


def _date(entry: Entry, where: int | bytes, parent: int | None = None) -> None:
    """Give `where`, an open file or a name in the folder `parent`, the entry's time."""
    if not 0 < entry.mtime < 1 << 40:
        return
    if parent is None:
        os.utime(where, (entry.mtime, entry.mtime))
    else:
        os.utime(where, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
