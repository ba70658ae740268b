"""An initrd's files: a cpio archive in format "newc", read strictly.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst. One archive, not compressed, as `initramfs`
writes it: what comes behind its trailer would be unpacked over it, and is refused.
"""

from __future__ import annotations

import io
import re
import stat
from functools import partial

from strongroom.errors import Malformed
from strongroom.seal.tree import MAX_PATH, Entry, EntryKind, show, validate

MAX_FILES = 1 << 16
_MAGIC = b"070701"
_HEADER = 110  # bytes: the magic, and 13 numbers of 8 hexadecimal digits
_NUMBERS = re.compile(rb"[0-9A-Fa-f]{104}")
_TRAILER = b"TRAILER!!!"
_KINDS = {stat.S_IFREG: EntryKind.FILE, stat.S_IFDIR: EntryKind.DIRECTORY, stat.S_IFLNK: EntryKind.SYMLINK}


def tree(data: bytes) -> tuple[Entry, ...]:
    """The files of an archive. Raises `Malformed`."""
    entries: dict[bytes, Entry] = {b"": Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0o755)}
    at = 0
    while True:
        path, entry, at = _record(data, at)
        if path == _TRAILER:
            break
        if path in entries and path:  # the root, which is in `entries` from the start, may be stated
            raise Malformed(f"cpio: {show(path)} is there twice", code="duplicate-path")
        if len(entries) > MAX_FILES:
            raise Malformed(f"cpio: more than {MAX_FILES} files", code="too-large")
        entries[path] = entry
    if data[at:].strip(b"\0"):
        raise Malformed("cpio: bytes behind the trailer", code="trailing-bytes")
    return validate(entries.values())


def _record(data: bytes, at: int) -> tuple[bytes, Entry, int]:
    """One record: its path, its entry, and where the next begins."""
    header = data[at : at + _HEADER]
    if header[:6] != _MAGIC or _NUMBERS.fullmatch(header[6:]) is None:
        raise Malformed(
            "cpio: no header of format newc",
            code="bad-archive",
            hint="unpack a compressed initrd first; the base's own is none",
        )
    numbers = [int(header[start : start + 8], 16) for start in range(6, _HEADER, 8)]
    # ino, mode, uid, gid, nlink, mtime, filesize, four of devices, namesize, check.
    _, mode, uid, gid, _, mtime, size, _, _, _, _, name_size, _ = numbers
    start = at + _HEADER
    name = data[start : start + name_size]
    content_at = -(-(start + name_size) // 4) * 4  # names and contents are padded to 4 bytes
    end = content_at + size
    if not 1 < name_size <= MAX_PATH + 1 or len(name) != name_size or name[-1:] != b"\0" or end > len(data):
        raise Malformed("cpio: a record is cut short", code="truncated")
    path = name[:-1].removeprefix(b"./").removeprefix(b"/")
    path = b"" if path == b"." else path
    if path == _TRAILER:
        return path, Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0), end
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        raise Malformed(f"cpio: {show(path)}: of a type that has no place here", code="special-file")
    content = data[content_at:end]
    is_file = kind is EntryKind.FILE
    entry = Entry(
        path=path,
        kind=kind,
        mode=mode & 0o7777,
        uid=uid,
        gid=gid,
        mtime=mtime,
        size=size if is_file else 0,
        target=content if kind is EntryKind.SYMLINK else b"",
        open=partial(io.BytesIO, content) if is_file else None,
    )
    return path, entry, -(-end // 4) * 4
