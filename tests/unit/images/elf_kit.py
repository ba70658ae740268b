"""Makes ELF files byte by byte, honest and otherwise: one segment with all of the file, and what is asked for."""

from __future__ import annotations

import struct

BASE = 0x400000


def program(
    *,
    machine: int = 62,
    interpreter: bytes = b"",
    needed: tuple[bytes, ...] = (),
    runpath: bytes = b"",
    level: int = 0,
    strings_at: int | None = None,
    strings_size: int | None = None,
    twice: bool = False,
    note_size: int | None = None,
    property_size: int = 4,
) -> bytes:
    body = bytearray()
    start = 64 + 56 * 5

    def put(data: bytes) -> int:
        place = start + len(body)
        body.extend(data + bytes(-len(data) % 8))
        return place

    segments = []
    if interpreter:
        text = interpreter + b"\0"
        segments.append((3, put(text), len(text)))
    if needed or runpath:
        strings = b"\0"
        tags = []
        for name in needed:
            tags.append((1, len(strings)))
            strings += name + b"\0"
        if runpath:
            tags.append((29, len(strings)))
            strings += runpath + b"\0"
        place = put(strings)
        tags.append((5, BASE + place if strings_at is None else strings_at))
        tags.append((10, len(strings) if strings_size is None else strings_size))
        table = b"".join(struct.pack("<QQ", *one) for one in (*tags, (0, 0)))
        segments.append((2, put(table), len(table)))
    if level:
        value = struct.pack("<IIIxxxx", 0xC0008002, property_size, 1 << (level - 1))
        note = struct.pack("<III", 4, len(value) if note_size is None else note_size, 5) + b"GNU\0" + value
        segments.append((0x6474E553, put(note), len(note)))
    if twice:
        segments.append(segments[-1])
    whole = start + len(body)
    rows = [(1, 0, whole), *segments]
    headers = b"".join(
        struct.pack("<IIQQQQQQ", kind, 5, offset, BASE + offset, BASE + offset, size, size, 8)
        for kind, offset, size in rows
    )
    head = (
        b"\x7fELF\2\1\1"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, BASE, 64, 0, 0, 64, 56, len(rows), 0, 0, 0)
    )
    return (head + headers).ljust(start, b"\0") + bytes(body)


def loader(*folders: bytes, abilities: bool = False) -> bytes:
    """A glibc loader that searches these folders when nothing else names a library. abilities: one since 2.33."""
    option = b"  --glibc-hwcaps-prepend LIST\n\0" if abilities else b"\0"
    return program() + option + b"".join(one + b"/\0" for one in folders)


def cache(*files: bytes, flags: int = 0x0303, ability: int = 0, old: bool = False) -> bytes:
    """What ldconfig writes, of these files."""
    strings, entries = b"", b""
    start = 48 + 24 * len(files)
    for file in files:
        name = file.rpartition(b"/")[2]
        at = start + len(strings)
        entries += struct.pack("<IIIIQ", flags, at + len(file) - len(name), at, 0, ability)
        strings += file + b"\0"
    new = struct.pack("<20sII20x", b"glibc-ld.so.cache1.1", len(files), len(strings)) + entries + strings
    return (struct.pack("<12sI", b"ld.so-1.7.0", 0) if old else b"") + new
