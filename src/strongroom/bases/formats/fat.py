"""A FAT32 file system for UEFI's boot partition, written whole.

Specs: Microsoft, "FAT32 File System Specification" 1.03; UEFI 2.10, section 13.3. Names are upper-case 8.3, times are the
format's first, the volume's number follows from the content: same files, same bytes.

Clusters are one sector, so that 33 MiB are enough to be FAT32: fewer than 65,525 clusters would be FAT16 to every reader.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTOR = 512
MIN_CLUSTERS = 65525
MAX_BYTES = 1 << 30

_RESERVED = 32
_FATS = 2
_INFO, _BACKUP = 1, 6
_ROOT = 2  # the first cluster
_END = 0x0FFFFFFF
_MEDIA = 0xF8
_ENTRY = struct.Struct("<11sBBBHHHHHHHI")
_DIRECTORY, _FILE = 0x10, 0x20
_FIRST_DAY = 1 << 5 | 1  # 1980-01-01
_PER_CLUSTER = SECTOR // _ENTRY.size
_NAME = re.compile(r"([A-Z0-9_-]{1,8})(?:\.([A-Z0-9_-]{1,3}))?")


def build(files: Mapping[str, bytes], *, size: int) -> bytes:
    """A volume of `size` bytes with `files` by path. Raises `Malformed` for names and sizes that do not fit."""
    sectors = size // SECTOR
    if size % SECTOR or not 0 < size <= MAX_BYTES:
        raise Malformed(f"FAT: a volume of {size} bytes", code="bad-size")
    fat_sectors, clusters = _shape(sectors)
    if clusters < MIN_CLUSTERS:
        raise Malformed(f"FAT: {size} bytes are too few for FAT32", code="bad-size")
    data, chain = _tree(files)
    if len(data) > clusters * SECTOR:
        raise Malformed(f"FAT: the files do not fit into {size} bytes", code="bad-size")
    serial = hashlib.sha256(data).digest()[:4]
    used = len(data) // SECTOR
    reserved = bytearray(_RESERVED * SECTOR)
    for at in (0, _BACKUP):
        reserved[at * SECTOR : (at + 1) * SECTOR] = _boot_sector(sectors, fat_sectors, serial)
        info = _information(clusters - used, _ROOT + used)
        reserved[(at + _INFO) * SECTOR : (at + _INFO + 1) * SECTOR] = info
    table = struct.pack(f"<{len(chain)}I", *chain).ljust(fat_sectors * SECTOR, b"\0")
    volume = bytes(reserved) + table * _FATS + data
    return volume + bytes(size - len(volume))


def _shape(sectors: int) -> tuple[int, int]:
    """Sectors of one table, and clusters: the smallest table that has a line for each cluster."""
    left = sectors - _RESERVED
    fat_sectors = max(-(-(left + 2) // (SECTOR // 4 + _FATS)), 1)
    return fat_sectors, max(left - _FATS * fat_sectors, 0)


def _tree(files: Mapping[str, bytes]) -> tuple[bytes, list[int]]:
    """The clusters' contents from the root on, and the table's lines for them. A folder is one cluster."""
    folders: dict[str, list[str]] = {"": []}
    for file in sorted(files):
        names = file.split("/")
        for depth in range(len(names)):
            above, path = "/".join(names[:depth]), "/".join(names[: depth + 1])
            if path not in folders[above]:
                folders[above].append(path)
            if depth < len(names) - 1:
                folders.setdefault(path, [])
    if both := files.keys() & folders.keys():
        raise Malformed(f"FAT: {min(both)} is a file and a folder", code="bad-name")
    place: dict[str, tuple[int, int]] = {}
    chain = [0x0FFFFF00 | _MEDIA, _END]
    for path in folders:
        place[path] = (len(chain), 0)
        chain.append(_END)
    for path in sorted(files):
        count = -(-len(files[path]) // SECTOR)
        place[path] = (len(chain) if count else 0, len(files[path]))
        chain += [*range(len(chain) + 1, len(chain) + count), _END][:count] if count else []
    parts = [_folder(path, folders, place) for path in folders]
    parts += [files[path] + bytes(-len(files[path]) % SECTOR) for path in sorted(files)]
    return b"".join(parts), chain


def _folder(path: str, folders: Mapping[str, list[str]], place: Mapping[str, tuple[int, int]]) -> bytes:
    lines = []
    if path:
        above = path.rpartition("/")[0]
        lines.append(_entry(b".".ljust(11), _DIRECTORY, place[path][0], 0))
        lines.append(_entry(b"..".ljust(11), _DIRECTORY, place[above][0] if above else 0, 0))
    for entry in folders[path]:
        kind = _DIRECTORY if entry in folders else _FILE
        lines.append(_entry(_short(entry.rpartition("/")[2]), kind, *place[entry]))
    if len(lines) > _PER_CLUSTER:
        raise Malformed(f"FAT: more than {_PER_CLUSTER} entries in a folder", code="too-many")
    return b"".join(lines).ljust(SECTOR, b"\0")


def _short(name: str) -> bytes:
    match = _NAME.fullmatch(name)
    if match is None:
        raise Malformed(f"FAT: {name[:40]!r} is not an upper-case 8.3 name", code="bad-name")
    return match[1].encode().ljust(8) + (match[2] or "").encode().ljust(3)


def _entry(name: bytes, kind: int, cluster: int, size: int) -> bytes:
    day = _FIRST_DAY
    return _ENTRY.pack(name, kind, 0, 0, 0, day, day, cluster >> 16, 0, day, cluster & 0xFFFF, size)


def _boot_sector(sectors: int, fat_sectors: int, serial: bytes) -> bytes:
    head = struct.pack(
        "<3s8sHBHBHHBHHHII", b"\xeb\x58\x90", b"STRONGRM", SECTOR, 1, _RESERVED, _FATS, 0, 0, _MEDIA, 0, 32, 8, 0, sectors
    )  # fmt: skip
    rest = struct.pack("<IHHIHH12x", fat_sectors, 0, 0, _ROOT, _INFO, _BACKUP)
    name = struct.pack("<BBB4s11s8s", 0x80, 0, 0x29, serial, b"NO NAME    ", b"FAT32   ")
    return (head + rest + name).ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _information(free: int, following: int) -> bytes:
    return struct.pack("<I480xIII12xI", 0x41615252, 0x61417272, free, following, 0xAA550000)
