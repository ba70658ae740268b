"""What leaves the room: each output folder as a deterministic tar inside an age file.

The tar (POSIX ustar, GNU long names) holds regular files, folders and links that stay within, sorted
by name, all owned by 0:0, dated 0, with modes reduced to "executable or not": the same files are the
same bytes. Everything else (devices, sockets, pipes, links that lead out) is left out and counted.
The limit counts a file's bytes and every entry's name, so that names carry nothing past it.
Streamed: memory stays bounded for any size. No program runs any more, so the tree stands still.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from strongroom.crypto import age
from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Refused
from strongroom.model.receipt import OutputRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.agent.channel import Stream

BLOCK = 512
MAX_ENTRIES = 1_000_000
_CHUNK = 64 * 1024
_MAX_OCTAL_SIZE = 0o77777777777
_NAME_BYTES = 100
_FILE, _LINK, _FOLDER, _LONG_NAME, _LONG_LINK = b"0", b"2", b"5", b"L", b"K"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in the tar. `name` is relative; `link` is a symbolic link's target; sizes in bytes."""

    name: bytes
    kind: bytes
    executable: bool
    size: int
    link: bytes


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A folder's entries in order, their total that counts against the limit, how many are left out."""

    root: bytes
    entries: tuple[Entry, ...]
    total: int
    left_out: int


def list_folder(root: str, max_bytes: int) -> Listing:
    """List what leaves. Raises `Refused` (`output-too-large`) above `max_bytes`."""
    entries: list[Entry] = []
    total = left_out = 0
    top = os.fsencode(root)
    # The program may have put a link in the folder's place, which would lead the agent out of it.
    if not stat.S_ISDIR(os.lstat(top).st_mode if os.path.lexists(top) else 0):
        return Listing(root=top, entries=(), total=0, left_out=1)
    folders = [b""]
    while folders:
        folder = folders.pop()
        with os.scandir(top + b"/" + folder) as found:
            for item in found:
                name = (folder + b"/" if folder else b"") + item.name
                entry = _entry(item, name)
                if entry is None:
                    left_out += 1
                    continue
                total += entry.size + len(entry.name) + len(entry.link)
                entries.append(entry)
                if entry.kind == _FOLDER:
                    folders.append(name)
                if total > max_bytes or len(entries) > MAX_ENTRIES:
                    raise Refused(
                        f"the output is larger than the {max_bytes} bytes that the contract allows",
                        code="output-too-large",
                        hint="sign a contract with a higher max_bytes, or write less",
                    )
    entries.sort(key=lambda entry: entry.name)
    kept = _without_outward_links(entries)
    left_out += len(entries) - len(kept)
    return Listing(root=top, entries=kept, total=total, left_out=left_out)


def _without_outward_links(entries: list[Entry]) -> tuple[Entry, ...]:
    """The entries but those links that lead out of the folder or in a circle, by way of its other links or not."""
    links = {entry.name: entry.link for entry in entries if entry.kind == _LINK}
    symlinks = Symlinks(links.get, chroot=False)
    return tuple(one for one in entries if one.kind != _LINK or symlinks.resolve(one.name) is not None)


def seal(listing: Listing, path: str, recipients: tuple[str, ...], stream: Stream) -> OutputRecord:
    """Write the listing to `stream` as an age file for `recipients`."""
    source, target = _Source(write_tar(listing)), _Target(stream)
    age.seal_stream(recipients, cast("BinaryIO", source), cast("BinaryIO", target))
    return OutputRecord(
        path=path,
        sealed_digest="sha256:" + target.digest.hexdigest(),
        sealed_bytes=target.count,
        content_digest="sha256:" + source.digest.hexdigest(),
    )


def write_tar(listing: Listing) -> Iterator[bytes]:
    """The tar's bytes, piece by piece."""
    for entry in listing.entries:
        name = entry.name + b"/" if entry.kind == _FOLDER else entry.name
        if len(name) > _NAME_BYTES:
            yield from _long(_LONG_NAME, name)
        if len(entry.link) > _NAME_BYTES:
            yield from _long(_LONG_LINK, entry.link)
        yield _header(name, entry.kind, 0o755 if entry.executable else 0o644, entry.size, entry.link)
        if entry.kind == _FILE:
            yield from _content(listing.root + b"/" + entry.name, entry.size)
    yield bytes(2 * BLOCK)


def _entry(item: os.DirEntry[bytes], name: bytes) -> Entry | None:
    found = item.stat(follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        return Entry(name=name, kind=_FOLDER, executable=True, size=0, link=b"")
    if stat.S_ISREG(found.st_mode):
        executable = bool(found.st_mode & 0o111)
        return Entry(name=name, kind=_FILE, executable=executable, size=found.st_size, link=b"")
    if stat.S_ISLNK(found.st_mode):
        return Entry(name=name, kind=_LINK, executable=True, size=0, link=os.readlink(item.path))
    return None


def _header(name: bytes, kind: bytes, mode: int, size: int, link: bytes) -> bytes:
    head = bytearray(BLOCK)
    head[0 : min(len(name), _NAME_BYTES)] = name[:_NAME_BYTES]
    head[100:108] = b"%07o\x00" % mode
    head[108:116] = head[116:124] = b"%07o\x00" % 0
    if size <= _MAX_OCTAL_SIZE:
        head[124:136] = b"%011o\x00" % size
    else:
        head[124:136] = b"\x80" + size.to_bytes(11, "big")
    head[136:148] = b"%011o\x00" % 0
    head[148:156] = b" " * 8
    head[156:157] = kind
    head[157 : 157 + min(len(link), _NAME_BYTES)] = link[:_NAME_BYTES]
    head[257:265] = b"ustar  \x00"
    head[148:156] = b"%06o\x00 " % sum(head)
    return bytes(head)


def _long(kind: bytes, text: bytes) -> Iterator[bytes]:
    yield _header(b"././@LongLink", kind, 0o644, len(text) + 1, b"")
    yield _padded(text + b"\x00")


def _content(path: bytes, size: int) -> Iterator[bytes]:
    left = size
    with open(path, "rb") as file:
        while left:
            data = file.read(min(_CHUNK, left))
            if not data:
                raise Refused("an output file shrank while it was sealed", code="output-changed")
            left -= len(data)
            yield data
    if size % BLOCK:
        yield bytes(BLOCK - size % BLOCK)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


class _Source:
    """Reads like a file out of pieces, hashing on the way."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self.digest.update(piece)
            self._left = memoryview(piece)
        count = len(self._left) if size < 0 else size
        data, self._left = self._left[:count], self._left[count:]
        return bytes(data)


class _Target:
    """Writes like a file into a stream of the channel, hashing and counting on the way."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.count += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        return
