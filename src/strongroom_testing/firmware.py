"""Firmware images for tests: a page of code, and the tables of EDK II that the real ones carry, with any faults wanted."""

from __future__ import annotations

import lzma
import struct
import uuid
from dataclasses import dataclass

PAGE = 4096
RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"
SEV = "dc886566-984a-4798-a75e-5585a7bf67cc"
TDX = "e47a6535-984a-4798-865e-4685a7bf8ec2"
_FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
_LZMA = "ee4e5898-3914-4259-9d6e-dc7bd79403cf"
_DRIVER = "f062221e-c607-44c2-b0b4-c3886331d351"

# Where Debian's ovmf-amdsev wants what: (address, size, kind).
AMDSEV = (
    (0x800000, 0x9000, 1),
    (0x80A000, 0x3000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x80F000, 0x1000, 4),
    (0x811000, 0x1F000, 1),
    (0x810000, 0x1000, 0x10),
)
# Kernel hashes, and where on their page they lie.
AMDSEV_HASHES = (0x810C00, 0x400)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the image says of itself; a table's entry that is empty or None is left out."""

    pages: int = 32
    reset: int | None = 0x80B004
    hashes: tuple[int, int] | None = AMDSEV_HASHES
    sev: tuple[tuple[int, int, int], ...] = AMDSEV
    tdx: tuple[tuple[int, int, int, int, int, int], ...] = ()
    volume: bytes = b""
    front: bytes = b""


def tdx_sections(*, front: int, size: int) -> tuple[tuple[int, int, int, int, int, int], ...]:
    """As in Debian 13's OVMF.fd: code, configuration (the `front` bytes of an image of `size`), and memory."""
    start = (1 << 32) - size
    return (
        (front, size - front, start + front, size - front, 0, 1),
        (0, front, start, front, 1, 0),
        (0, 0, 0x811000, 0xF000, 3, 0),
        (0, 0, 0x80B000, 0x2000, 3, 0),
        (0, 0, 0x809000, 0x2000, 2, 0),
        (0, 0, 0x800000, 0x6000, 3, 0),
    )


def measuring(*extra: bytes) -> bytes:
    """A volume with the driver for RTMRs and the events of edk2-stable202302."""
    return b"".join((b"\0" * 64, uuid.UUID(_DRIVER).bytes_le, b"TdxTable\0", b"ACPI DATA\0", *extra))


def volume_section(volume: bytes) -> bytes:
    """A GUID-defined section that holds the volume, compressed."""
    packed = lzma.compress(volume, format=lzma.FORMAT_ALONE)
    size = 24 + len(packed)
    head = size.to_bytes(3, "little") + b"\x02"
    return head + uuid.UUID(_LZMA).bytes_le + struct.pack("<HH", 24, 1) + packed


def entry(guid: str, data: bytes) -> bytes:
    return data + struct.pack("<H16s", len(data) + 18, uuid.UUID(guid).bytes_le)


def build(shape: Shape) -> bytes:
    """The image."""
    size = shape.pages * PAGE
    image = bytearray(hashed_filler(size))
    image[: len(shape.front)] = shape.front
    table = b""
    blocks = b""
    if shape.reset is not None:
        table = entry(RESET, struct.pack("<I", shape.reset)) + table
    if shape.hashes is not None:
        table = entry(HASHES, struct.pack("<II", *shape.hashes)) + table
    places = []
    if shape.sev:
        places.append((SEV, len(blocks)))
        body = b"".join(struct.pack("<III", *one) for one in shape.sev)
        blocks += struct.pack("<4sIII", b"ASEV", 16 + len(body), 1, len(shape.sev)) + body
    if shape.tdx:
        places.append((TDX, len(blocks)))
        body = b"".join(struct.pack("<IIQQII", *one) for one in shape.tdx)
        blocks += struct.pack("<4sIII", b"TDVF", 16 + len(body), 1, len(shape.tdx)) + body
    start = size - 2048
    image[start : start + len(blocks)] = blocks
    for guid, offset in places:
        table = entry(guid, struct.pack("<I", size - start - offset)) + table
    table += struct.pack("<H16s", len(table) + 18, uuid.UUID(_FOOTER).bytes_le)
    image[size - 32 - len(table) : size - 32] = table
    if shape.volume:
        section = volume_section(shape.volume)
        image[len(shape.front) : len(shape.front) + len(section)] = section
    return bytes(image)


def hashed_filler(size: int) -> bytes:
    """Bytes that differ from page to page."""
    return b"".join(
        struct.pack("<Q", index * 0x9E3779B97F4A7C15 & (1 << 64) - 1) for index in range(size // 8)
    )
