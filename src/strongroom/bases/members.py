"""Where two builds of one file differ: which member of an archive, a file system, a program or an image.

Only for telling people; whether two files are the same is decided by their bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.bases import disk as base_disk
from strongroom.bases import document
from strongroom.bases.formats import eif, pe
from strongroom.errors import Malformed
from strongroom.seal import browse, verity
from strongroom.seal.tree import show

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MEMBERS = 1 << 16
_MAGIC, _HEADER = b"070701", 110
_HEX = re.compile(rb"[0-9A-Fa-f]{104}")
_END = "TRAILER!!!"
_PROGRAM = "EFI/BOOT/BOOTX64.EFI"
_PARTITION = "the partition strongroom-base"


@dataclass(frozen=True, kw_only=True)
class BaseMember:
    """Content of a file, from byte `at` on. `kind` names the file whose form it has, "" for none."""

    name: str
    at: int
    content: bytes
    kind: str = ""
    mode: int = 0


def differing(kind: str, stored: bytes, built: bytes, parts: Mapping[str, bytes]) -> tuple[str, ...]:
    """The members of file `kind` that differ, by name; () for the same bytes. `parts` are the built base's files."""
    if stored == built:
        return ()
    if kind == document.DISK:
        return _disk(stored, built)
    try:
        members = _members(kind, built, parts)
    except Malformed:
        members = []
    if not members:
        return (_byte(stored, built),)
    if len(stored) == len(built):
        return _in_place(stored, built, members, parts)
    try:
        others = {member.name: member for member in _members(kind, stored, parts)}
    except Malformed:
        return (_byte(stored, built),)
    out = []
    for member in members:
        other = others.pop(member.name, None)
        if other is None:
            out.append(f"{member.name} (missing)")
        elif (member.content, member.mode) != (other.content, other.mode):
            out += _inside(member, other.content, parts)
    return (*out, *(f"{name} (not in the rebuilt one)" for name in others)) or (_byte(stored, built),)


def cpio(data: bytes) -> list[BaseMember]:
    """The members of a cpio archive in format newc. Raises `Malformed`."""
    out: list[BaseMember] = []
    at = 0
    while True:
        header = data[at : at + _HEADER]
        if header[:6] != _MAGIC or _HEX.fullmatch(header[6:]) is None:
            raise Malformed(f"cpio: no header at byte {at}", code="bad-cpio")
        fields = [int(header[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        start = at + _HEADER
        name = data[start : start + length]
        content = _up(start + length)
        if length > 4096 or not name.endswith(b"\x00") or content + size > len(data):
            raise Malformed(f"cpio: a member that does not fit at byte {at}", code="bad-cpio")
        name_shown = _shown(name[:-1])
        if name[:-1] == _END.encode():
            return out
        if len(out) >= MAX_MEMBERS:
            raise Malformed(f"cpio: more than {MAX_MEMBERS} members", code="too-large")
        kind = document.DISK if name_shown == document.DISK else ""
        out.append(
            BaseMember(
                name=name_shown, at=content, content=data[content : content + size], kind=kind, mode=mode
            )
        )
        at = _up(content + size)


def _shown(path: bytes) -> str:
    return show(path)[1:-1]


def _up(value: int) -> int:
    return -(-value // 4) * 4


def _members(kind: str, data: bytes, parts: Mapping[str, bytes]) -> list[BaseMember]:
    """The members of a file that has some. Raises `Malformed`."""
    if kind == document.INITRD:
        return cpio(data)
    if kind == document.EFI:
        kinds = {".initrd": document.INITRD}
        return [
            BaseMember(
                name=section.name,
                at=section.raw_offset,
                content=data[section.raw_offset : section.raw_offset + section.raw_size],
                kind=kinds.get(section.name, ""),
            )
            for section in pe.parse(data).sections
        ]
    if kind == document.EIF:
        image = eif.parse(data)
        contents = [("the kernel", image.kernel, ""), ("the command line", image.cmdline, "")]
        contents.append(("the metadata", image.metadata, ""))
        contents += [
            (f"ramdisk {index}", content, document.INITRD) for index, content in enumerate(image.ramdisks, 1)
        ]
        return _in_order(data, contents)
    if kind == document.IMAGE:
        program, disk = parts[document.EFI], parts[document.DISK]
        contents = [(_PROGRAM, program, document.EFI), (_PARTITION, disk, document.DISK)]
        return _in_order(data, contents)
    return []


def _in_order(data: bytes, contents: list[tuple[str, bytes, str]]) -> list[BaseMember]:
    """Those of `held` that are in `data`, in this order."""
    out: list[BaseMember] = []
    at = 0
    for name, content, kind in contents:
        offset = data.find(content, at)
        if offset >= 0:
            out.append(BaseMember(name=name, at=offset, content=content, kind=kind))
            at = offset + len(content)
    return out


def _in_place(
    stored: bytes, built: bytes, members: list[BaseMember], parts: Mapping[str, bytes]
) -> tuple[str, ...]:
    out: list[str] = []
    patched = bytearray(stored)
    for member in members:
        end = member.at + len(member.content)
        other = stored[member.at : end]
        patched[member.at : end] = member.content
        if other != member.content:
            out += _inside(member, other, parts)
    if patched != built:
        out.append(f"what lies around its members, {_byte(bytes(patched), built)}")
    return tuple(out)


def _inside(member: BaseMember, other: bytes, parts: Mapping[str, bytes]) -> list[str]:
    if not member.kind:
        return [member.name]
    return [f"{member.name}: {name}" for name in differing(member.kind, other, member.content, parts)] or [
        member.name
    ]


def _disk(stored: bytes, built: bytes) -> tuple[str, ...]:
    right, left = _files(built), _files(stored)
    if right is None or left is None:
        return (f"the file system's tables, {_byte(stored, built)}",)
    out = [name for name in right if right[name] != left.get(name, right[name])]
    out += [f"{name} (missing)" for name in right if name not in left]
    out += [f"{name} (not in the rebuilt one)" for name in left if name not in right]
    if out:
        return tuple(sorted(out))
    data = (base_disk.data_blocks(len(built)) or 0) * verity.BLOCK
    where = "the hash tree" if stored[:data] == built[:data] else "the file system's tables"
    return (f"{where}, {_byte(stored, built)}",)


def _files(disk: bytes) -> dict[str, tuple[str, int, bytes]] | None:
    """What is in a disk's tree; None when it cannot be read."""
    blocks = base_disk.data_blocks(len(disk))
    if blocks is None:
        return None

    def read(first: int, count: int) -> bytes:
        return disk[first * verity.BLOCK : (first + count) * verity.BLOCK]

    out = {}
    try:
        for entry in browse.tree(read, blocks * verity.BLOCK):
            content = b""
            if entry.open is not None:
                with entry.open() as source:
                    content = source.read()
            out[_shown(entry.path)] = (entry.kind.name, entry.mode, content)
    except Malformed:
        return None
    return out


def _byte(stored: bytes, built: bytes) -> str:
    """The first byte that differs."""
    low, high = 0, min(len(stored), len(built))
    if stored[:high] == built[:high]:
        return f"its length ({len(stored)} bytes, rebuilt {len(built)})"
    while high - low > 1:
        middle = (low + high) // 2
        if stored[low:middle] == built[low:middle]:
            low = middle
        else:
            high = middle
    return f"byte {low}"
