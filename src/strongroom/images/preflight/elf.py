"""Programs and libraries, read just far enough to say whether a kernel and a loader could start them.

Specs: System V ABI, "Object Files" and "Program Loading"; the x86-64 psABI (GNU properties, ISA levels);
glibc's ld.so(8) for what RPATH and RUNPATH mean.
Read: the header, program headers, PT_INTERP, the dynamic section (NEEDED, SONAME, RPATH, RUNPATH) and the
x86 instruction-set level of PT_GNU_PROPERTY. Sections are not looked at: neither a kernel nor a loader does.
Every count and length is bounded before it is used; what does not add up is `Malformed`.
Not checked here: whether the code is any good.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # (offset, count) → up to `count` bytes, fewer only at the end.
    ReadAt = Callable[[int, int], bytes]

MAGIC = b"\x7fELF"
X86_64 = 62
MACHINES = {
    3: "386",
    40: "arm",
    62: "amd64",
    183: "arm64",
    21: "ppc64le",
    22: "s390x",
    243: "riscv64",
    8: "mips",
}
EXECUTABLE, SHARED = 2, 3

_HEADER = struct.Struct("<HHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<QQ")
_NOTE = struct.Struct("<III")
_LOAD, _DYN, _INTERP, _PROPERTY = 1, 2, 3, 0x6474E553
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
_NT_GNU_PROPERTY = 5
_ISA_1_NEEDED = 0xC0008002
MAX_SEGMENTS = 512
MAX_INTERPRETER = 4096
MAX_DYNAMIC = 1 << 20
MAX_NAMES = 4096
MAX_NAME = 4096
MAX_NOTES = 1 << 16
_MAX_FILE = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Elf:
    """What a file says of itself. `machine` in the words of Go (amd64, arm64, …), or "machine N".

    For anything but 64-bit little-endian x86 only `machine` and `bits` are known, all else is empty.
    `level` is the x86-64 microarchitecture level that it says it needs (1 where it does not say).
    """

    machine: str
    bits: int
    type: int = 0
    interpreter: bytes = b""
    needed: tuple[bytes, ...] = ()
    soname: bytes = b""
    rpath: tuple[bytes, ...] = ()
    runpath: tuple[bytes, ...] = ()
    level: int = 1


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def parse(read_at: ReadAt, size: int, *, what: str) -> Elf:
    """Read a file of `size` bytes. Raises `Malformed`."""
    ident = _exactly(read_at, 0, 16, size, what)
    if ident[:4] != MAGIC:
        raise Malformed(f"{what}: no ELF file", code="bad-elf")
    bits = {1: 32, 2: 64}.get(ident[4], 0)
    if not bits or ident[5] not in (1, 2):
        raise Malformed(f"{what}: neither 32 nor 64 bits, or no byte order", code="bad-elf")
    order = "little" if ident[5] == 1 else "big"
    number = int.from_bytes(_exactly(read_at, 18, 2, size, what), "little" if order == "little" else "big")
    machine = MACHINES.get(number, f"machine {number}")
    if bits != 64 or order != "little" or number != X86_64:
        return Elf(machine=machine, bits=bits)
    fields = _HEADER.unpack(_exactly(read_at, 16, _HEADER.size, size, what))
    segments = _segments(read_at, size, fields, what)
    interpreter = b""
    names = _Names()
    level = 1
    for segment in segments:
        if segment.kind == _INTERP:
            interpreter = _interpreter(read_at, size, segment, what)
        elif segment.kind == _DYN:
            names = _dynamic(read_at, size, segment, segments, what)
        elif segment.kind == _PROPERTY:
            level = _level(read_at, size, segment, what)
    return Elf(
        machine=machine,
        bits=bits,
        type=fields[0],
        interpreter=interpreter,
        needed=names.needed,
        soname=names.soname,
        rpath=names.rpath,
        runpath=names.runpath,
        level=level,
    )


@dataclass(frozen=True, slots=True)
class _Names:
    needed: tuple[bytes, ...] = ()
    soname: bytes = b""
    rpath: tuple[bytes, ...] = ()
    runpath: tuple[bytes, ...] = ()


def _segments(read_at: ReadAt, size: int, fields: tuple[int, ...], what: str) -> tuple[_Segment, ...]:
    offset, entry, count = fields[4], fields[8], fields[9]
    if not count:
        return ()
    if entry != _SEGMENT.size or count > MAX_SEGMENTS:
        raise Malformed(f"{what}: {count} program headers of {entry} bytes", code="bad-elf")
    table = _exactly(read_at, offset, entry * count, size, what)
    segments = []
    for kind, _flags, at, address, _physical, in_file, _in_memory, _align in _SEGMENT.iter_unpack(table):
        if kind in (_LOAD, _DYN, _INTERP, _PROPERTY):
            if at + in_file > size:
                raise Malformed(f"{what}: a segment ends behind the file", code="truncated")
            segments.append(_Segment(kind, at, address, in_file))
    for kind in (_DYN, _INTERP, _PROPERTY):
        if sum(segment.kind == kind for segment in segments) > 1:
            raise Malformed(f"{what}: two segments where one may be", code="bad-elf")
    return tuple(segments)


def _interpreter(read_at: ReadAt, size: int, segment: _Segment, what: str) -> bytes:
    if not 2 <= segment.size <= MAX_INTERPRETER:
        raise Malformed(f"{what}: a loader's name of {segment.size} bytes", code="bad-elf")
    name = _exactly(read_at, segment.offset, segment.size, size, what)
    if name[-1:] != b"\0" or b"\0" in name[:-1]:
        raise Malformed(f"{what}: the loader's name does not end where it should", code="bad-elf")
    return name[:-1]


def _dynamic(
    read_at: ReadAt, size: int, segment: _Segment, segments: tuple[_Segment, ...], what: str
) -> _Names:
    if segment.size > MAX_DYNAMIC:
        raise Malformed(f"{what}: a dynamic section of {segment.size} bytes", code="too-large")
    data = _exactly(read_at, segment.offset, segment.size - segment.size % _DYNAMIC.size, size, what)
    tags: dict[int, list[int]] = {}
    for tag, value in _DYNAMIC.iter_unpack(data):
        if tag == 0:
            break
        if tag in (_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH):
            tags.setdefault(tag, []).append(value)
    if len(tags.get(_DT_NEEDED, ())) > MAX_NAMES:
        raise Malformed(f"{what}: it names more than {MAX_NAMES} libraries", code="too-large")
    if not tags.keys() - {_DT_STRTAB, _DT_STRSZ}:
        return _Names()
    if len(tags.get(_DT_STRTAB, ())) != 1 or len(tags.get(_DT_STRSZ, ())) != 1:
        raise Malformed(f"{what}: names without one table of names", code="bad-elf")
    start, length = _in_file(tags[_DT_STRTAB][0], segments, what), tags[_DT_STRSZ][0]

    def name(offset: int) -> bytes:
        if offset >= length:
            raise Malformed(f"{what}: a name outside the table of names", code="bad-elf")
        run = _some(read_at, start + offset, min(MAX_NAME, length - offset), size)
        text, end, _ = run.partition(b"\0")
        if not end:
            raise Malformed(f"{what}: a name without an end", code="bad-elf")
        return text

    def paths(tag: int) -> tuple[bytes, ...]:
        return tuple(part for value in tags.get(tag, ())[:1] for part in name(value).split(b":") if part)

    return _Names(
        needed=tuple(name(value) for value in tags.get(_DT_NEEDED, ())),
        soname=next((name(value) for value in tags.get(_DT_SONAME, ())), b""),
        rpath=paths(_DT_RPATH),
        runpath=paths(_DT_RUNPATH),
    )


def _in_file(address: int, segments: tuple[_Segment, ...], what: str) -> int:
    for segment in segments:
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    raise Malformed(f"{what}: the table of names is in no segment", code="bad-elf")


def _level(read_at: ReadAt, size: int, segment: _Segment, what: str) -> int:
    """The highest bit of GNU_PROPERTY_X86_ISA_1_NEEDED: 1 baseline, 2 v2, 4 v3, 8 v4."""
    if segment.size > MAX_NOTES:
        raise Malformed(f"{what}: notes of {segment.size} bytes", code="too-large")
    notes = _exactly(read_at, segment.offset, segment.size, size, what)
    level = 1
    for kind, value in _properties(notes, what):
        if kind == _ISA_1_NEEDED and len(value) == 4:
            level = max(level, int.from_bytes(value, "little").bit_length())
    return level


def _properties(notes: bytes, what: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _NOTE.size <= len(notes):
        name_size, size, kind = _NOTE.unpack_from(notes, at)
        start = at + _NOTE.size + -(-name_size // 4) * 4
        if start + size > len(notes):
            raise Malformed(f"{what}: a note ends behind its segment", code="bad-elf")
        if kind == _NT_GNU_PROPERTY and notes[at + _NOTE.size : at + _NOTE.size + name_size] == b"GNU\0":
            inner = start
            while inner + 8 <= start + size:
                number, length = struct.unpack_from("<II", notes, inner)
                if inner + 8 + length > start + size:
                    raise Malformed(f"{what}: a property ends behind its note", code="bad-elf")
                yield number, notes[inner + 8 : inner + 8 + length]
                inner += 8 + -(-length // 8) * 8
        at = start + -(-size // 8) * 8


def _exactly(read_at: ReadAt, offset: int, count: int, size: int, what: str) -> bytes:
    if offset + count > size or offset > _MAX_FILE:
        raise Malformed(f"{what}: ends too early", code="truncated")
    data = read_at(offset, count)
    if len(data) != count:
        raise Malformed(f"{what}: ends too early", code="truncated")
    return data


def _some(read_at: ReadAt, offset: int, count: int, size: int) -> bytes:
    return read_at(offset, min(count, size - offset)) if offset < size else b""
