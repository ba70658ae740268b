"""The files of a disk, before they are a file system: one flat, checked list of entries.

`validate` is the gate in front of the file system writer: whoever makes entries (a dataset's folder,
an image's layers), nothing leaves here that could step outside the tree or mean two things at once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_RENAME = "give it a shorter, plain name, or leave it out"
MAX_ENTRIES = 1 << 22
MAX_PATH = 4095  # Linux PATH_MAX without its NUL; also the longest symlink target
MAX_NAME = 255
MAX_FILE = 1 << 48
MAX_MTIME = (1 << 63) - 1
MAX_ID = (1 << 32) - 2  # 2**32 - 1 means "leave it" to chown, and is nobody's id
MAX_XATTR_VALUE = (1 << 16) - 1
MAX_XATTRS_BYTES = 1 << 16  # all names and values of one entry together, as Linux limits a listing

# The names that Linux knows how to serve from EROFS.
XATTR_PREFIXES = (b"user.", b"trusted.", b"security.")
XATTR_NAMES = (b"system.posix_acl_access", b"system.posix_acl_default")


class EntryKind(enum.Enum):
    """What an entry is. Device nodes and sockets are refused above this layer, and fifos where data is sealed."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in the tree.

    `path` is relative to the root, components joined by "/"; b"" is the root directory itself.
    `mode` holds the permission bits with setuid, setgid and sticky (0o7777); `mtime` is in seconds
    since 1970 and not negative. `size` (bytes) and `open` (the content, from its start) are for files,
    `target` for symlinks. Files with the same `link_group` are one inode under several names; they
    agree in everything but `path`, and the content is read from the first in order of path.
    """

    path: bytes
    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    link_group: int | None = None
    open: Callable[[], BinaryIO] | None = None

    @property
    def name(self) -> bytes:
        """The last component; empty for the root."""
        return self.path.rpartition(b"/")[2]

    @property
    def parent(self) -> bytes:
        """The path of the folder that holds this entry."""
        return self.path.rpartition(b"/")[0]


def validate(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries sorted by path. Raises `Malformed` unless they are one sound tree.

    Sound: there is a root directory; every parent is a directory that is listed too; no path is listed twice; paths
    are plain (no leading slash, ".", "..", empty component or NUL); every field is in range and belongs to its kind.
    """
    by_path: dict[bytes, Entry] = {}
    groups: dict[int, Entry] = {}
    for entry in entries:
        _check_path(entry.path)
        if entry.path in by_path:
            raise Malformed(f"tree: {show(entry.path)} is listed twice", code="duplicate-path")
        if len(by_path) >= MAX_ENTRIES:
            raise Malformed(
                f"tree: more than {MAX_ENTRIES} entries",
                code="too-large",
                hint="seal fewer files at once, or pack small ones together",
            )
        _check_fields(entry)
        by_path[entry.path] = entry
        if entry.link_group is not None:
            first = groups.setdefault(entry.link_group, entry)
            if _shared(first) != _shared(entry):
                raise Malformed(
                    f"tree: hard links {show(first.path)} and {show(entry.path)} differ in mode, owner, time or size",
                    code="bad-link",
                )
    root = by_path.get(b"")
    if root is None or root.kind is not EntryKind.DIRECTORY:
        raise Malformed("tree: there is no root directory", code="no-root")
    for path, entry in by_path.items():
        parent = by_path.get(entry.parent)
        if path and (parent is None or parent.kind is not EntryKind.DIRECTORY):
            raise Malformed(f"tree: {show(path)} is in no listed folder", code="no-parent")
    return tuple(by_path[path] for path in sorted(by_path))


def show(path: bytes) -> str:
    """A path for messages: readable, bounded, without control characters."""
    text = path.decode("utf-8", "backslashreplace") or "/"
    return repr(text if len(text) <= 200 else text[:100] + "…" + text[-100:])


def _check_path(path: bytes) -> None:
    if not path:
        return
    if len(path) > MAX_PATH or b"\x00" in path:
        raise Malformed(
            f"tree: {show(path)}: a path of {len(path)} bytes: expected at most {MAX_PATH}, without NUL",
            code="bad-path",
            hint=_RENAME,
        )
    for part in path.split(b"/"):
        if part in {b"", b".", b".."} or len(part) > MAX_NAME:
            raise Malformed(
                f"tree: {show(path)}: {show(part)}: expected a name of 1 to {MAX_NAME} bytes that is not . or ..",
                code="bad-path",
                hint=_RENAME,
            )


def _check_fields(entry: Entry) -> None:
    def bad(what: str) -> Malformed:
        return Malformed(f"tree: {show(entry.path)}: {what}", code="bad-entry")

    if not 0 <= entry.mode <= 0o7777:
        raise bad("mode holds more than permission bits")
    if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID and 0 <= entry.mtime <= MAX_MTIME):
        raise bad("owner, group or time out of range")
    if not 0 <= entry.size <= MAX_FILE:
        raise bad("size out of range")
    is_file = entry.kind is EntryKind.FILE
    if is_file != (entry.open is not None):
        raise bad("files, and only files, have content")
    if not is_file and (entry.size or entry.link_group is not None):
        raise bad("only files have a size and hard links")
    if (entry.kind is EntryKind.SYMLINK) != bool(entry.target):
        raise bad("symlinks, and only symlinks, have a target")
    if len(entry.target) > MAX_PATH or b"\x00" in entry.target:
        raise bad("symlink target too long, or holds NUL")
    _check_xattrs(entry.xattrs, bad)


def _check_xattrs(xattrs: Mapping[bytes, bytes], bad: Callable[[str], Malformed]) -> None:
    total = 0
    for name, value in xattrs.items():
        prefix = next((known for known in XATTR_PREFIXES if name.startswith(known)), None)
        if prefix is None and name not in XATTR_NAMES:
            raise bad(f"extended attribute {show(name)} has no place on a disk")
        if name == prefix or len(name) > MAX_NAME or b"\x00" in name or len(value) > MAX_XATTR_VALUE:
            raise bad(f"extended attribute {show(name)}: name or value out of range")
        total += len(name) + len(value) + 8
    if total > MAX_XATTRS_BYTES:
        raise bad("extended attributes too large together")


def _shared(entry: Entry) -> tuple[object, ...]:
    """What hard links of one inode have in common."""
    return (entry.mode, entry.uid, entry.gid, entry.mtime, entry.size, dict(entry.xattrs))
