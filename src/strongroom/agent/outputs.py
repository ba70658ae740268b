"""What leaves the room: each output folder as a deterministic tar inside an age file.

The tar (`agent/tar.py`) holds regular files, folders and links that stay within, sorted by name. Everything else
(devices, sockets, pipes, links that lead out) is left out, and the receipt says whether anything was. Zeros after the tar's
end pad it, where the contract says so.

Bounded, each with a code of `receipt.DETAILS`: the bytes of files, names and links together (so that
names carry nothing past the limit), the number of entries, the depth and length of a path; and what the agent must
hold of a tree to list it, in the memory that the program's files leave: the bytes of names and of links.
No process of the program is alive any more (`program.run`), so the tree stands still.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from strongroom.agent import tar
from strongroom.agent.tar import TarEntry
from strongroom.crypto import age
from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Refused
from strongroom.model.contracts.contract import OutputSizes
from strongroom.model.receipt import OutputRecord
from strongroom.model.room.channel import TAR_ALLOWANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

_LESS = "let the program write fewer, smaller or flatter files, or the contract allow more (--max-output)"

MAX_ENTRIES = 100_000
MAX_NAMES = 16 << 20  # bytes of all paths and links
MAX_LINK_ENDS = 16 << 20  # bytes of where links lead
MAX_DEPTH = 64
MAX_PATH = 4095  # Linux PATH_MAX without its NUL
LEAST_PADDED = 4096
# Codes of `Refused`, each a reason for `output-too-large`.
TOO_LARGE = frozenset(("output-bytes", "output-entries", "output-depth", "output-memory"))
_CHUNK = 64 * 1024
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_FOLDER = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A folder's entries in order, and whether anything was left out. `root` is the folder's path."""

    root: str
    entries: tuple[TarEntry, ...]
    left_out: bool

    @property
    def tar_bytes(self) -> int:
        """The size of its tar without padding."""
        return tar.size_of(self.entries)


def list_folder(root: str, max_bytes: int) -> Listing:
    """List what leaves. Raises `Refused` with one of `TOO_LARGE` above what may."""
    entries: list[TarEntry] = []
    total, names, left_out = 0, 0, False
    try:
        top = os.open(root, _OPEN_FOLDER)
    except OSError as cause:
        # The program may have put a link in the folder's place, which would lead the agent out of it.
        if cause.errno not in _NO_FOLDER:
            raise
        return Listing(root=root, entries=(), left_out=True)
    try:
        folders = [b""]
        while folders:
            folder = folders.pop()
            for entry in _scan(top, folder):
                if entry is None:
                    left_out = True
                    continue
                names += len(entry.name) + len(entry.link)
                total += entry.size + len(entry.name) + len(entry.link)
                entries.append(entry)
                if entry.kind == tar.FOLDER:
                    folders.append(entry.name)
                _bound(entry, total, len(entries), max_bytes)
                if names > MAX_NAMES:
                    raise Refused(
                        f"names and links of more than {MAX_NAMES} bytes", code="output-entries", hint=_LESS
                    )
    finally:
        os.close(top)
    entries.sort(key=lambda entry: entry.name)
    kept = _without_outward_links(entries)
    listing = Listing(root=root, entries=kept, left_out=left_out or len(kept) < len(entries))
    if listing.tar_bytes > max_bytes + TAR_ALLOWANCE:
        raise Refused("so many small entries make too large a tar", code="output-entries", hint=_LESS)
    return listing


def _without_outward_links(entries: list[TarEntry]) -> tuple[TarEntry, ...]:
    """The entries but those links that lead out of the folder or in a circle, by way of its other links or not."""
    links = {entry.name: entry.link for entry in entries if entry.kind == tar.LINK}
    symlinks = Symlinks(links.get, chroot=False, max_ends=MAX_LINK_ENDS)
    return tuple(
        entry for entry in entries if entry.kind != tar.LINK or symlinks.resolve(entry.name) is not None
    )


def _bound(entry: TarEntry, total: int, count: int, max_bytes: int) -> None:
    if len(entry.name) > MAX_PATH or entry.name.count(b"/") >= MAX_DEPTH:
        raise Refused(
            f"a path is longer or deeper than {MAX_PATH} bytes, {MAX_DEPTH} folders",
            code="output-depth",
            hint=_LESS,
        )
    if count > MAX_ENTRIES:
        raise Refused(f"more than {MAX_ENTRIES} entries", code="output-entries", hint=_LESS)
    if total > max_bytes:
        raise Refused(
            f"larger than the {max_bytes} bytes that the contract allows", code="output-bytes", hint=_LESS
        )


def sealed_bytes(size: int, sizes: OutputSizes) -> int:
    """How many bytes the sealed form of `size` bytes takes at most."""
    padded = padded_size(size, sizes)
    return padded + padded // 1024 + _CHUNK


def padded_size(size: int, sizes: OutputSizes) -> int:
    """The size that `size` bytes are padded to."""
    if sizes is OutputSizes.EXACT:
        return size
    return max(LEAST_PADDED, 1 << (size - 1).bit_length())


def seal(
    listing: Listing,
    path: str,
    recipients: tuple[str, ...],
    sizes: OutputSizes,
    salt: bytes,
    target: BinaryIO,
) -> OutputRecord:
    """Write the listing to `target` as an age file for `recipients`. salt: 32 random bytes."""
    padding = padded_size(listing.tar_bytes, sizes) - listing.tar_bytes
    return seal_pieces(tar_and_padding(listing, salt, padding), path, recipients, target)


def seal_pieces(
    pieces: Iterator[bytes], path: str, recipients: tuple[str, ...], target: BinaryIO
) -> OutputRecord:
    """Write the pieces to `target` as an age file for `recipients`."""
    source, counted = _Source(pieces), _Target(target)
    age.seal_stream(recipients, cast("BinaryIO", source), cast("BinaryIO", counted))
    return OutputRecord(
        path=path,
        sealed_digest="sha256:" + counted.digest.hexdigest(),
        sealed_bytes=counted.count,
        content_commitment="sha256:" + source.digest.hexdigest(),
    )


def repeated(filler: bytes, count: int) -> Iterator[bytes]:
    """`count` bytes of that one byte, piece by piece."""
    while count > 0:
        yield filler * min(count, _CHUNK)
        count -= _CHUNK


def tar_and_padding(listing: Listing, salt: bytes, padding: int) -> Iterator[bytes]:
    """What is sealed of a listing, in clear, piece by piece. salt: 32 bytes."""
    yield from tar.write(listing.entries, lambda entry: _content(listing.root, entry), salt)
    yield from repeated(b"\x00", padding)


def _scan(top: int, folder: bytes) -> Iterator[TarEntry | None]:
    """What is in `folder`, a path below the descriptor `top`; None for each thing that stays."""
    # Names are bounded by MAX_PATH, so that the kernel takes any of them in one piece.
    opened = os.open(folder or b".", _OPEN_FOLDER, dir_fd=top)
    try:
        with os.scandir(opened) as items:
            for item in items:
                name = os.fsencode(item.name)
                yield _entry(opened, item, folder + b"/" + name if folder else name)
    finally:
        os.close(opened)


def _entry(folder: int, item: os.DirEntry[str], name: bytes) -> TarEntry | None:
    status = item.stat(follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        return TarEntry(name=name, kind=tar.FOLDER, executable=True, size=0, link=b"")
    if stat.S_ISREG(status.st_mode):
        executable = bool(status.st_mode & 0o111)
        return TarEntry(name=name, kind=tar.FILE, executable=executable, size=status.st_size, link=b"")
    if stat.S_ISLNK(status.st_mode):
        link = os.readlink(os.fsencode(item.name), dir_fd=folder)
        return TarEntry(name=name, kind=tar.LINK, executable=True, size=0, link=link)
    return None


def _content(root: str, entry: TarEntry) -> Iterator[bytes]:
    left = entry.size
    top = os.open(root, _OPEN_FOLDER)
    try:
        opened = os.open(entry.name, _OPEN_FILE, dir_fd=top)
    finally:
        os.close(top)
    with open(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise Refused("an output file is none any more", code="output-changed", hint=_LESS)
        while left:
            data = file.read(min(_CHUNK, left))
            if not data:
                raise Refused("an output file shrank while it was sealed", code="output-changed", hint=_LESS)
            left -= len(data)
            yield data


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
    """Writes into a file, hashing and counting on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.count += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        return
