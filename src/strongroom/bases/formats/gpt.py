"""A disk with a GUID partition table, written whole.

Spec: UEFI 2.10, section 5. Partitions begin and end on whole MiB; so does the disk, as clouds want it. The numbers that
name disk and partitions follow from the content, in the form that RFC 9562 sets aside for such (version 8).
"""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTOR = 512
UNIT = 1 << 20
MAX_DISK = 1 << 33

_ENTRIES = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_TABLE = _ENTRIES * _ENTRY.size // SECTOR  # sectors of one table
_FIRST_USABLE = 2 + _TABLE
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_REVISION = 0x00010000
_SIGNATURE = b"EFI PART"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """label: its name in the table, at most 36 letters. content: filled up with zeros to whole MiB."""

    label: str
    type: uuid.UUID
    content: bytes


def build(partitions: Sequence[Partition]) -> bytes:
    """The disk. Raises `Malformed` for what the table cannot hold."""
    if not 0 < len(partitions) <= _ENTRIES:
        raise Malformed(f"GPT: {len(partitions)} partitions", code="too-many")
    digests = [hashlib.sha256(partition.content).digest() for partition in partitions]
    lines, body, at = [], [], UNIT
    for partition, digest in zip(partitions, digests, strict=True):
        size = -(-len(partition.content) // UNIT) * UNIT
        name = partition.label.encode("utf-16-le")
        if not partition.content or not 0 < len(name) <= 72:
            raise Malformed(f"GPT: partition {partition.label[:40]!r} has no place", code="bad-partition")
        number = _number(b"partition", partition.label.encode(), digest)
        last = (at + size) // SECTOR - 1
        lines.append(_ENTRY.pack(partition.type.bytes_le, number.bytes_le, at // SECTOR, last, 0, name))
        body += [partition.content, bytes(size - len(partition.content))]
        at += size
    total = (at + UNIT) // SECTOR
    if total * SECTOR > MAX_DISK:
        raise Malformed(f"GPT: a disk of more than {MAX_DISK} bytes", code="too-large")
    table = b"".join(lines).ljust(_TABLE * SECTOR, b"\0")
    disk = _number(b"disk", table)
    front = _protective(total) + _header(table, disk, total, own=1, other=total - 1, entries=2) + table
    back = table + _header(table, disk, total, own=total - 1, other=1, entries=total - 1 - _TABLE)
    return b"".join((front.ljust(UNIT, b"\0"), *body, back.rjust(UNIT, b"\0")))


def measured(disk: bytes) -> bytes:
    """What firmware measures of a disk that it boots from: header, number of partitions, their lines (UEFI_GPT_DATA).

    Raises `Malformed` for a disk without a sound table of ours at its beginning.
    """
    header = disk[SECTOR : SECTOR + _HEADER.size]
    table = disk[2 * SECTOR : (2 + _TABLE) * SECTOR]
    if len(header) != _HEADER.size or len(table) != _TABLE * SECTOR:
        raise Malformed("GPT: cut short", code="truncated")
    signature, revision, size, checksum, _, own, _, _, _, _, entries, count, line, crc = _HEADER.unpack(
        header
    )
    shape = (signature, revision, size, own, entries, count, line)
    if shape != (_SIGNATURE, _REVISION, _HEADER.size, 1, 2, _ENTRIES, _ENTRY.size):
        raise Malformed("GPT: not a table of 128 lines behind its header", code="bad-header")
    if zlib.crc32(header[:16] + bytes(4) + header[20:]) != checksum or zlib.crc32(table) != crc:
        raise Malformed("GPT: its checksum is not that of its bytes", code="bad-checksum")
    lines = [table[at : at + _ENTRY.size] for at in range(0, len(table), _ENTRY.size)]
    used = [entry for entry in lines if any(entry[:16])]
    return header + len(used).to_bytes(8, "little") + b"".join(used)


def _header(table: bytes, disk: uuid.UUID, total: int, *, own: int, other: int, entries: int) -> bytes:
    def pack(checksum: int) -> bytes:
        return _HEADER.pack(
            _SIGNATURE, _REVISION, _HEADER.size, checksum, 0, own, other, _FIRST_USABLE, total - _FIRST_USABLE,
            disk.bytes_le, entries, _ENTRIES, _ENTRY.size, zlib.crc32(table),
        )  # fmt: skip

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def _protective(total: int) -> bytes:
    """A master boot record that says: all of this disk is taken."""
    sectors = min(total - 1, 0xFFFFFFFF)
    line = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, sectors)
    return bytes(446) + line + bytes(48) + b"\x55\xaa"


def _number(*parts: bytes) -> uuid.UUID:
    hashed = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
    raw = bytearray(hashed[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(raw))
