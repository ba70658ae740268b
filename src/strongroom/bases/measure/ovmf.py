"""Firmware images of EDK II (OVMF): what they tell the host about themselves, read strictly.

Specs: EDK II, OvmfPkg/ResetVector (the table of GUIDs that ends 32 bytes before the image does, read backwards from
its footer; SEV metadata); Intel, "TDX Virtual Firmware Design Guide" 1.01, section 11 (TDVF descriptor).
Whoever starts a confidential guest reads the same tables to lay out its first memory, so that the launch measurement
depends on them. An image is from the operator or a distribution: every length is checked before it is used, and all
that is raised is `Malformed`.

table entry    data, u16 length of the whole entry, GUID          footer    the same, its length that of the whole table
SEV metadata   "ASEV", u32 length, u32 version 1, u32 count, count × (u32 address, u32 size, u32 kind)
TDVF           "TDVF", u32 length, u32 version 1, u32 count, count × (u32 offset in the image, u32 bytes in the image,
               u64 address, u64 bytes in memory, u32 kind, u32 attributes)                              little-endian
"""

from __future__ import annotations

import enum
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = 4096
MAX_BYTES = 64 << 20
MAX_SECTIONS = 64
MAX_MEASURED = 256 << 20  # of memory laid out before the guest starts

_END = 1 << 32  # an image ends where 32 bits do
_TAIL = 32  # the reset vector, behind the table
_ENTRY = struct.Struct("<H16s")
_HEADER = struct.Struct("<4sIII")
_SEV = struct.Struct("<III")
_TDX = struct.Struct("<IIQQII")
_FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_RESET = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
_HASHES = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
_SEV_METADATA = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
_TDX_METADATA = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")


class SevKind(enum.IntEnum):
    """What the host puts into a section of an SEV-SNP guest's memory."""

    ZEROS = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    KERNEL_HASHES = 0x10


_ONE_PAGE = (SevKind.SECRETS, SevKind.CPUID, SevKind.KERNEL_HASHES)


class TdxKind(enum.IntEnum):
    """What the host puts into a section of a trust domain's memory."""

    CODE = 0
    CONFIGURATION = 1
    HOB = 2
    TEMPORARY = 3
    PERMANENT = 4
    PAYLOAD = 5
    PAYLOAD_PARAMETERS = 6


@dataclass(frozen=True, kw_only=True)
class SevSection:
    """One range of the guest's memory; both numbers are whole pages."""

    kind: SevKind
    address: int
    size: int


@dataclass(frozen=True, kw_only=True)
class TdxSection:
    """One range of the domain's memory, and where in the image its content is (`raw_size` bytes from `offset`)."""

    kind: TdxKind
    offset: int
    raw_size: int
    address: int
    size: int
    extends: bool
    augmented: bool


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """A parsed image.

    reset: where processors other than the first start (None: the image does not say). hashes: address and size of the
    place for the digests of kernel, initrd and command line; None where the image has no such place.
    """

    data: bytes
    reset: int | None
    hashes: tuple[int, int] | None
    sev: tuple[SevSection, ...]
    tdx: tuple[TdxSection, ...]

    @property
    def address(self) -> int:
        """Where the image begins in the guest's memory."""
        return _END - len(self.data)

    def content(self, section: TdxSection) -> bytes:
        """What the image has for a section, without the zeros behind it. Raises `Malformed` where it is not the whole
        image that its descriptor describes: then no offset in it means what it says.
        """
        if any(part.offset + part.raw_size > len(self.data) for part in self.tdx):
            raise Malformed(
                "firmware: TDVF: a section's content lies outside the image",
                code="truncated",
                hint="is it one half of a split build (OVMF_CODE)? TDX starts the whole image",
            )
        return self.data[section.offset : section.offset + section.raw_size]


def parse(data: bytes) -> Firmware:
    """Parse a whole image. Raises `Malformed`."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"firmware: {len(data)} bytes, at most {MAX_BYTES} allowed", code="too-large")
    if not data or len(data) % PAGE:
        raise Malformed(
            "firmware: not whole pages", code="bad-firmware", hint="give a whole OVMF image with --ovmf"
        )
    table = _table(data)
    reset, hashes = table.get(_RESET), table.get(_HASHES)
    return Firmware(
        data=data,
        reset=None if reset is None else _word(reset, 0, "SEV-ES reset block"),
        hashes=None if hashes is None else _place(hashes),
        sev=_sev(data, table[_SEV_METADATA]) if _SEV_METADATA in table else (),
        tdx=_tdx(data, table[_TDX_METADATA]) if _TDX_METADATA in table else (),
    )


def _table(data: bytes) -> dict[uuid.UUID, bytes]:
    """The entries by GUID."""
    end = len(data) - _TAIL - _ENTRY.size
    length, guid = _ENTRY.unpack_from(data, end)
    if uuid.UUID(bytes_le=guid) != _FOOTER:
        raise Malformed(
            "firmware: no table of GUIDs at its end",
            code="bad-firmware",
            hint="give a whole OVMF image with --ovmf",
        )
    start = end + _ENTRY.size - length
    if not _ENTRY.size <= length or start < 0:
        raise Malformed("firmware: a table larger than the image", code="truncated")
    table: dict[uuid.UUID, bytes] = {}
    while end > start:
        if end - start < _ENTRY.size:
            raise Malformed("firmware: the table's entries do not fill it", code="bad-firmware")
        length, guid = _ENTRY.unpack_from(data, end - _ENTRY.size)
        name = uuid.UUID(bytes_le=guid)
        if not _ENTRY.size <= length <= end - start or name in table:
            raise Malformed(
                f"firmware: table entry {name}: longer than the table, or there twice", code="bad-firmware"
            )
        table[name] = data[end - length : end - _ENTRY.size]
        end -= length
    return table


def _place(entry: bytes) -> tuple[int, int] | None:
    address, size = _word(entry, 0, "hash table"), _word(entry, 4, "hash table")
    return (address, size) if address else None


def _word(entry: bytes, offset: int, what: str) -> int:
    if offset + 4 > len(entry):
        raise Malformed(f"firmware: {what}: entry cut short", code="truncated")
    return int.from_bytes(entry[offset : offset + 4], "little")


def _metadata(data: bytes, entry: bytes, magic: bytes, item: struct.Struct) -> list[tuple[int, ...]]:
    """The sections of a metadata block, undecoded."""
    what = magic.decode()
    start = len(data) - _word(entry, 0, what)
    if start < 0 or start + _HEADER.size > len(data):
        raise Malformed(f"firmware: {what}: lies outside the image", code="truncated")
    found_magic, length, version, count = _HEADER.unpack_from(data, start)
    if found_magic != magic or version != 1:
        raise Malformed(f"firmware: {what}: not a block of version 1", code="bad-firmware")
    if count > MAX_SECTIONS or length != _HEADER.size + count * item.size or start + length > len(data):
        raise Malformed(f"firmware: {what}: {count} sections in {length} bytes", code="bad-firmware")
    return [item.unpack_from(data, start + _HEADER.size + index * item.size) for index in range(count)]


def _sev(data: bytes, entry: bytes) -> tuple[SevSection, ...]:
    out = []
    for address, size, kind in _metadata(data, entry, b"ASEV", _SEV):
        if kind not in set(SevKind):
            raise Malformed(f"firmware: ASEV: a section of unknown kind {kind:#x}", code="bad-firmware")
        if kind in _ONE_PAGE and size != PAGE:
            raise Malformed(f"firmware: ASEV: a section of kind {kind} that is no page", code="bad-firmware")
        out.append(SevSection(kind=SevKind(kind), address=address, size=size))
    _check(((section.address, section.size) for section in out), "ASEV")
    return tuple(out)


def _tdx(data: bytes, entry: bytes) -> tuple[TdxSection, ...]:
    out = []
    for offset, raw_size, address, size, kind, attributes in _metadata(data, entry, b"TDVF", _TDX):
        if kind not in set(TdxKind) or attributes & ~0x3 or attributes == 0x3:
            raise Malformed(
                f"firmware: TDVF: a section of unknown kind {kind:#x} or attributes {attributes:#x}",
                code="bad-firmware",
            )
        if raw_size > size:
            raise Malformed("firmware: TDVF: a section with more content than memory", code="bad-firmware")
        out.append(
            TdxSection(
                kind=TdxKind(kind),
                offset=offset,
                raw_size=raw_size,
                address=address,
                size=size,
                extends=bool(attributes & 1),
                augmented=bool(attributes & 2),
            )
        )
    _check(((section.address, section.size) for section in out), "TDVF")
    return tuple(out)


def _check(ranges: Iterable[tuple[int, int]], what: str) -> None:
    total, before = 0, 0
    for address, size in sorted(ranges):
        total += size
        if address % PAGE or size % PAGE or total > MAX_MEASURED:
            raise Malformed(
                f"firmware: {what}: sections are not whole pages, or too large", code="bad-firmware"
            )
        if size and address < before:
            raise Malformed(f"firmware: {what}: two sections overlap", code="bad-firmware")
        before = max(before, address + size)
