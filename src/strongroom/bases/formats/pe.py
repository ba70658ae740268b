"""PE32+ images for x86-64 UEFI: read strictly, hashed as Authenticode does, and given further sections.

Specs: Microsoft, "PE Format"; Microsoft, "Windows Authenticode Portable Executable Signature Format", section
"Calculating the PE Image Hash". UEFI firmware measures this hash of every program that it loads into PCR 4.

Stricter than loaders are, so that the hash covers every byte but the two that it must leave out (the checksum and the
place of the signatures) and the signatures themselves: the sections' contents follow the headers without gap or
overlap, in the order of the table; signatures, where there are any, end the file.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILE = 1 << 30
MAX_SECTIONS = 96
# What sections start at in memory: a page, more than any section alignment of a UEFI program.
PAGE = 4096

_MACHINE_X86_64 = 0x8664
_PE32_PLUS = 0x20B
_COFF = struct.Struct("<HHIIIHH")
# Magic, linker, code, data, no data, entry, base of code, image base, both alignments, six version numbers, reserved,
# image, headers, checksum, subsystem, flags, stack and heap, reserved, number of directories.
_OPTIONAL = struct.Struct("<HHIIIIIQIIHHHHHHIIIIHHQQQQII")
_DATA_AT, _IMAGE_AT, _CHECKSUM_AT = 8, 56, 64  # within the optional header
_SECTION = struct.Struct("<8sIIIIIIHHI")
_CERTIFICATES = 4  # which directory
_SYMBOLS_AT = 8  # within the COFF header: where the symbols are, and how many
# Initialised data, readable.
_READABLE_DATA = 0x40000040


@dataclass(frozen=True, kw_only=True)
class Section:
    """One line of the section table. What memory holds beyond the file's bytes is zero."""

    name: str
    virtual_size: int
    virtual_address: int
    raw_size: int
    raw_offset: int


@dataclass(frozen=True, kw_only=True)
class PeImage:
    """A parsed image. Offsets count from the file's start; `data_end` is where the last section ends in it."""

    data: bytes
    coff: int
    optional: int
    table: int
    headers_size: int
    section_alignment: int
    file_alignment: int
    image_size: int
    initialised: int
    sections: tuple[Section, ...]
    data_end: int
    certificates_entry: int | None
    certificates: tuple[int, int]

    def content(self, section: Section) -> bytes:
        """The section's bytes as memory holds them. Raises `Malformed` where that is more than the file has."""
        if section.virtual_size > section.raw_size:
            raise Malformed(f"PE: section {section.name} is shorter than it says", code="truncated")
        return self.data[section.raw_offset : section.raw_offset + section.virtual_size]


def parse(data: bytes) -> PeImage:
    """Parse a whole file. Raises `Malformed`."""
    if len(data) > MAX_FILE:
        raise Malformed(f"PE: {len(data)} bytes, at most {MAX_FILE} allowed", code="too-large")
    try:
        return _parse(data)
    except struct.error:
        raise Malformed("PE: cut short", code="truncated") from None


def _parse(data: bytes) -> PeImage:
    (start,) = struct.unpack_from("<I", data, 0x3C)
    if data[:2] != b"MZ" or data[start : start + 4] != b"PE\0\0" or start < 0x40:
        raise Malformed("PE: no MZ and PE signatures", code="bad-header")
    coff = start + 4
    machine, count, _, _, _, optional_size, _ = _COFF.unpack_from(data, coff)
    optional = coff + _COFF.size
    fields = _OPTIONAL.unpack_from(data, optional)
    section_alignment, file_alignment = fields[8:10]
    image_size, headers_size, directories = fields[17], fields[18], fields[27]
    if machine != _MACHINE_X86_64 or fields[0] != _PE32_PLUS:
        raise Malformed("PE: not a PE32+ image for x86-64", code="bad-header")
    if directories > 16 or optional_size != _OPTIONAL.size + 8 * directories:
        raise Malformed("PE: its optional header has another size than PE32+ has", code="bad-header")
    for alignment in (section_alignment, file_alignment):
        if alignment not in (1 << shift for shift in range(4, 17)):
            raise Malformed(f"PE: alignment {alignment:#x}", code="bad-header")
    table = optional + optional_size
    if not 0 < count <= MAX_SECTIONS or not table + _SECTION.size * count <= headers_size <= len(data):
        raise Malformed("PE: its headers have another size than they say", code="bad-header")
    sections = tuple(_section(data, table + _SECTION.size * index) for index in range(count))
    end = _check_sections(sections, headers_size, image_size, len(data))
    entry = optional + _OPTIONAL.size + 8 * _CERTIFICATES if directories > _CERTIFICATES else None
    return PeImage(
        data=data,
        coff=coff,
        optional=optional,
        table=table,
        headers_size=headers_size,
        section_alignment=section_alignment,
        file_alignment=file_alignment,
        image_size=image_size,
        initialised=fields[3],
        sections=sections,
        data_end=end,
        certificates_entry=entry,
        certificates=_certificates(data, entry, end),
    )


def _section(data: bytes, offset: int) -> Section:
    name, virtual_size, virtual_address, raw_size, raw_offset, *_ = _SECTION.unpack_from(data, offset)
    plain = name.rstrip(b"\0")
    if not plain or not all(0x20 < byte < 0x7F for byte in plain):
        raise Malformed("PE: a section without a plain name", code="bad-section")
    return Section(
        name=plain.decode(),
        virtual_size=virtual_size,
        virtual_address=virtual_address,
        raw_size=raw_size,
        raw_offset=raw_offset,
    )


def _check_sections(sections: tuple[Section, ...], headers_size: int, image_size: int, size: int) -> int:
    """Contents one behind the other, in the file and in memory. Returns where they end in the file."""
    end, memory = headers_size, 0
    for section in sections:
        if section.raw_size:
            if section.raw_offset != end:
                raise Malformed(f"PE: a gap or an overlap before section {section.name}", code="bad-section")
            end += section.raw_size
        if section.virtual_address < memory:
            raise Malformed(f"PE: section {section.name} overlaps in memory", code="bad-section")
        memory = section.virtual_address + section.virtual_size
    if end > size or memory > image_size:
        raise Malformed("PE: sections beyond the image's end", code="bad-section")
    return end


def _certificates(data: bytes, entry: int | None, end: int) -> tuple[int, int]:
    """Offset and size of the signatures; an empty run at the file's end where there are none."""
    offset, size = (0, 0) if entry is None else struct.unpack_from("<II", data, entry)
    if not offset and not size:
        return len(data), 0
    if offset < end or offset % 8 or not size or offset + size != len(data):
        raise Malformed("PE: signatures that do not end the file", code="bad-signatures")
    return offset, size


def names(image: PeImage) -> tuple[str, ...]:
    """The sections' names. Raises `Malformed` where one stands twice: loaders differ in which of them they take."""
    section_names = [section.name for section in image.sections]
    for left, right in itertools.pairwise(sorted(section_names)):
        if left == right:
            raise Malformed(f"PE: two sections {left}", code="duplicate")
    return tuple(section_names)


def authenticode(data: bytes, algorithm: str = "sha256") -> bytes:
    """The image's hash, which signatures are over and UEFI firmware measures. Raises `Malformed`."""
    image = parse(data)
    view = memoryview(data)
    checksum = image.optional + _CHECKSUM_AT
    hashed = hashlib.new(algorithm, view[:checksum])
    rest = checksum + 4
    if image.certificates_entry is not None:
        hashed.update(view[rest : image.certificates_entry])
        rest = image.certificates_entry + 8
    hashed.update(view[rest : image.certificates[0]])
    return hashed.digest()


def append(data: bytes, sections: Sequence[tuple[str, bytes]]) -> bytes:
    """The image with `sections` (name, content) behind its own, readable as data. Same input, same bytes.

    What a loader does not read is left out: symbols, signatures, whatever lay behind the last section, the checksum.
    Raises `Malformed`, also where the headers have no room for another line.
    """
    image = parse(data)
    line = image.table + _SECTION.size * len(image.sections)
    room = line + _SECTION.size * len(sections)
    count = len(image.sections) + len(sections)
    if room > image.headers_size or any(data[line:room]) or count > MAX_SECTIONS:
        raise Malformed(f"PE: no room for {len(sections)} more sections", code="too-many")
    last = image.sections[-1]
    memory = _up(last.virtual_address + max(last.virtual_size, last.raw_size), PAGE)
    headers = bytearray(data[: image.headers_size])
    body = [data[image.headers_size : image.data_end]]
    offset = _up(image.data_end, image.file_alignment)
    body.append(bytes(offset - image.data_end))
    added = 0
    for index, (name, content) in enumerate(sections):
        raw = _up(len(content), image.file_alignment)
        if not 0 < len(name.encode()) <= 8 or not content or memory + raw >= 1 << 32:
            raise Malformed(f"PE: section {name!r} of {len(content)} bytes has no place", code="bad-section")
        header = (name.encode(), len(content), memory, raw, offset, 0, 0, 0, 0, _READABLE_DATA)
        _SECTION.pack_into(headers, line + _SECTION.size * index, *header)
        body += [content, bytes(raw - len(content))]
        offset, memory, added = offset + raw, _up(memory + len(content), PAGE), added + raw
    struct.pack_into("<H", headers, image.coff + 2, count)
    struct.pack_into("<II", headers, image.coff + _SYMBOLS_AT, 0, 0)
    struct.pack_into("<I", headers, image.optional + _DATA_AT, image.initialised + added)
    struct.pack_into("<I", headers, image.optional + _IMAGE_AT, _up(memory, image.section_alignment))
    struct.pack_into("<I", headers, image.optional + _CHECKSUM_AT, 0)
    if image.certificates_entry is not None:
        struct.pack_into("<II", headers, image.certificates_entry, 0, 0)
    return bytes(headers) + b"".join(body)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
