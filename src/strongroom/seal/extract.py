"""A tree written out to a folder of the owner: whole or not at all, and nowhere but in that folder.

Everything goes into a fresh private folder beside the target, which takes the target's name at the end. Symlinks
come last, when nothing is written any more, so that no content ever goes through one. Owners, extended attributes,
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
from strongroom.seal.tree import Entry, Kind, show, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from strongroom.seal.disk import Progress

_RUN = 1 << 20


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
    """Write a tree into the empty folder `into`. Raises `Malformed` for symlinks that lead outside.

    `foreign_links` keeps those instead: in a program's image they mean the image's own root.
    """
    checked = validate(entries)
    root = os.fsencode(into)
    total = sum(entry.size for entry in checked)
    done = 0
    first: dict[int, bytes] = {}
    for entry in checked:
        where = root + b"/" + entry.path
        if entry.kind is Kind.DIRECTORY:
            if entry.path:
                os.mkdir(where, 0o700)  # noqa: PTH102 - bytes paths
        elif entry.kind is Kind.FILE:
            if entry.link_group is not None and entry.link_group in first:
                os.link(first[entry.link_group], where, follow_symlinks=False)
                continue
            for count in _content(entry, where):
                done += count
                progress(done, total)
            if entry.link_group is not None:
                first[entry.link_group] = where
        elif not foreign_links and folder.escapes(entry.path, entry.target):
            raise Malformed(f"symlink {show(entry.path)} leads outside its folder", code="escaping-symlink")
    for entry in checked:
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, root + b"/" + entry.path)  # noqa: PTH211 - bytes paths
    for entry in reversed(checked):
        _finish(entry, root + b"/" + entry.path)


def _content(entry: Entry, where: bytes) -> Iterator[int]:
    if entry.open is None:
        raise Malformed(f"{show(entry.path)}: a file without content")
    fd = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out, entry.open() as source:
        left = entry.size
        while left:
            run = source.read(min(left, _RUN))
            if not run:
                raise Malformed(f"{show(entry.path)}: content ends early", code="truncated")
            out.write(run)
            left -= len(run)
            yield len(run)


def _finish(entry: Entry, where: bytes) -> None:
    if entry.kind is not Kind.SYMLINK:
        readable = 0o700 if entry.kind is Kind.DIRECTORY else 0o600
        os.chmod(where, entry.mode & 0o777 | readable, follow_symlinks=True)  # noqa: PTH101 - bytes paths
    if entry.mtime and entry.mtime < 1 << 40:
        os.utime(where, (entry.mtime, entry.mtime), follow_symlinks=False)
