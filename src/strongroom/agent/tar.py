"""The tar that an output travels in: POSIX ustar with GNU long names, the same bytes for the same files and salt.

All is owned by 0:0, dated 0, with modes reduced to "executable or not". A global pax header, whose comment every
reader of tars skips, comes first with 32 random bytes: the tar's digest in the receipt lets nobody guess the content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
SALT_BYTES = 32
FILE, LINK, FOLDER = b"0", b"2", b"5"
_LONG_NAME, _LONG_LINK, _GLOBAL = b"L", b"K", b"g"
_MAX_OCTAL_SIZE = 0o77777777777
_NAME_BYTES = 100
# Where the fields of a header are (POSIX.1-1988 ustar, with GNU's magic): numbers are octal digits and an end.
_MODE, _OWNER, _GROUP = slice(100, 108), slice(108, 116), slice(116, 124)
_SIZE, _TIME, _CHECKSUM = slice(124, 136), slice(136, 148), slice(148, 156)
_KIND, _LINK, _MAGIC = slice(156, 157), 157, slice(257, 265)


@dataclass(frozen=True, kw_only=True)
class TarEntry:
    """One entry of the tar. `name` is relative; `link` is a symbolic link's target; sizes in bytes."""

    name: bytes
    kind: bytes
    executable: bool
    size: int
    link: bytes


def write(
    entries: tuple[TarEntry, ...], content: Callable[[TarEntry], Iterator[bytes]], salt: bytes
) -> Iterator[bytes]:
    """The tar's bytes, piece by piece. content: a file's bytes, exactly as many as its size. salt: 32 bytes."""
    yield from _salt(salt)
    for entry in entries:
        name = entry.name + b"/" if entry.kind == FOLDER else entry.name
        if len(name) > _NAME_BYTES:
            yield from _long(_LONG_NAME, name)
        if len(entry.link) > _NAME_BYTES:
            yield from _long(_LONG_LINK, entry.link)
        yield _header(name, entry.kind, 0o755 if entry.executable else 0o644, entry.size, entry.link)
        if entry.kind == FILE:
            yield from content(entry)
            yield bytes(-entry.size % BLOCK)
    yield bytes(2 * BLOCK)


def _header(name: bytes, kind: bytes, mode: int, size: int, link: bytes) -> bytes:
    head = bytearray(BLOCK)
    head[0 : min(len(name), _NAME_BYTES)] = name[:_NAME_BYTES]
    head[_MODE] = b"%07o\x00" % mode
    head[_OWNER] = head[_GROUP] = b"%07o\x00" % 0
    if size <= _MAX_OCTAL_SIZE:
        head[_SIZE] = b"%011o\x00" % size
    else:  # GNU's base-256 form, which a set first bit tells
        head[_SIZE] = b"\x80" + size.to_bytes(11, "big")
    head[_TIME] = b"%011o\x00" % 0
    head[_CHECKSUM] = b" " * 8  # what stands there while it is computed
    head[_KIND] = kind
    head[_LINK : _LINK + min(len(link), _NAME_BYTES)] = link[:_NAME_BYTES]
    head[_MAGIC] = b"ustar  \x00"
    head[_CHECKSUM] = b"%06o\x00 " % sum(head)
    return bytes(head)


def _long(kind: bytes, text: bytes) -> Iterator[bytes]:
    yield _header(b"././@LongLink", kind, 0o644, len(text) + 1, b"")
    yield _padded(text + b"\x00")


def _salt(salt: bytes) -> Iterator[bytes]:
    record = b" comment=" + salt.hex().encode() + b"\n"
    record = b"%d" % (len(record) + 2) + record  # two digits, as long as the record has less than 100 bytes
    yield _header(b"pax_global_header", _GLOBAL, 0o644, len(record), b"")
    yield _padded(record)


def size_of(entries: tuple[TarEntry, ...]) -> int:
    """How many bytes `write` writes."""
    return 4 * BLOCK + sum(_entry_bytes(entry) for entry in entries)


def _entry_bytes(entry: TarEntry) -> int:
    name = len(entry.name) + (entry.kind == FOLDER)
    long = sum(BLOCK + _blocks(length + 1) for length in (name, len(entry.link)) if length > _NAME_BYTES)
    return long + BLOCK + _blocks(entry.size)


def _blocks(size: int) -> int:
    return size + -size % BLOCK


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)
