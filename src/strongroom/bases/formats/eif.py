"""Enclave image files: what AWS Nitro starts an enclave from.

Spec: the format as AWS publishes it (aws-nitro-enclaves-image-format, version 4). Everything is big-endian::

    header    magic  version u16  flags u16  memory u64  processors u64  0 u16  sections u16
              32 offsets u64  32 sizes u64  0 u32  CRC-32 u32 over the whole file but these four bytes
    section   type u16  flags u16  size u64, then the content

Written in AWS's order: kernel, command line, metadata, ramdisks, and a signature where there is a signer. The reader
takes that order alone, without gaps or bytes to spare. Header, metadata and signature are not measured.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.bases.formats import eif_signature
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.crypto.image_signer import ImageSigner

MAGIC = b".eif"
VERSION = 4
MAX_FILE = 1 << 32
MAX_SECTIONS = 32
MAX_CMDLINE = 4096
MAX_METADATA = 64 * 1024
KERNEL, CMDLINE, RAMDISK, SIGNATURE, METADATA = range(1, 6)
# What `nitro-cli` starts an enclave with when it is given no other.
DEFAULT_MEMORY, DEFAULT_PROCESSORS = 1 << 30, 2

_HEAD = struct.Struct(">4sHHQQHH")
_LIST = struct.Struct(f">{MAX_SECTIONS}Q")
_TAIL = struct.Struct(">II")
_HEADER_BYTES = _HEAD.size + 2 * _LIST.size + _TAIL.size
_SECTION = struct.Struct(">HHQ")
_BUILD_KEYS = ("BuildTime", "BuildTool", "BuildToolVersion", "OperatingSystem", "KernelVersion")


@dataclass(frozen=True, kw_only=True)
class Eif:
    """A parsed image, its signature not verified."""

    kernel: bytes
    cmdline: bytes
    ramdisks: tuple[bytes, ...]
    metadata: bytes
    signature: eif_signature.EifSignature | None


def metadata(*, name: str, version: str, kernel: str, tool_version: str) -> bytes:
    """The metadata section as `nitro-cli describe-eif` reads it, with the time left at zero."""
    build = ("1970-01-01T00:00:00+00:00", "strongroom", tool_version, "Linux", kernel)
    return canonical.dumps(
        {
            "ImageName": name,
            "ImageVersion": version,
            "BuildMetadata": dict(zip(_BUILD_KEYS, build, strict=True)),
            "DockerInfo": {},
            "CustomMetadata": {},
        }
    )


def build(
    *,
    kernel: bytes,
    cmdline: bytes,
    ramdisks: Sequence[bytes],
    metadata: bytes,
    signer: ImageSigner | None = None,
) -> bytes:
    """The image; same input, same bytes. Raises `Malformed` for parts that no image can carry."""
    _check_parts(kernel, cmdline, tuple(ramdisks), metadata)
    sections = [(KERNEL, kernel), (CMDLINE, cmdline), (METADATA, metadata)]
    sections += [(RAMDISK, ramdisk) for ramdisk in ramdisks]
    if signer is not None:
        pcr0 = register(kernel, cmdline, *ramdisks)
        sections.append((SIGNATURE, eif_signature.make(pcr0, signer)))
    offsets, body, at = [], [], _HEADER_BYTES
    for kind, content in sections:
        offsets.append(at)
        body += [_SECTION.pack(kind, 0, len(content)), content]
        at += _SECTION.size + len(content)
    sizes = [len(content) for _, content in sections]
    spare = [0] * (MAX_SECTIONS - len(sections))
    head = _HEAD.pack(MAGIC, VERSION, 0, DEFAULT_MEMORY, DEFAULT_PROCESSORS, 0, len(sections))
    head += _LIST.pack(*offsets, *spare) + _LIST.pack(*sizes, *spare) + bytes(4)
    crc = zlib.crc32(head)
    for part in body:
        crc = zlib.crc32(part, crc)
    return b"".join((head, crc.to_bytes(4, "big"), *body))


def parse(data: bytes) -> Eif:
    """Parse a whole image. Raises `Malformed`."""
    if len(data) > MAX_FILE:
        raise Malformed(f"EIF: {len(data)} bytes, at most {MAX_FILE} allowed", code="too-large")
    if len(data) < _HEADER_BYTES:
        raise Malformed("EIF: cut short", code="truncated")
    magic, version, flags, _, _, reserved, count = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or flags or reserved:
        raise Malformed("EIF: not an image of version 4 for x86-64", code="bad-header")
    offsets = _LIST.unpack_from(data, _HEAD.size)
    sizes = _LIST.unpack_from(data, _HEAD.size + _LIST.size)
    unused, crc = _TAIL.unpack_from(data, _HEADER_BYTES - _TAIL.size)
    if count > MAX_SECTIONS or unused or any(offsets[count:]) or any(sizes[count:]):
        raise Malformed("EIF: its header has more sections than it counts", code="bad-header")
    view = memoryview(data)
    if zlib.crc32(view[_HEADER_BYTES:], zlib.crc32(view[: _HEADER_BYTES - 4])) != crc:
        raise Malformed("EIF: its checksum is not that of its bytes", code="bad-checksum")
    sections = _sections(data, offsets[:count], sizes[:count])
    kinds = [kind for kind, _ in sections]
    signed = kinds[-1:] == [SIGNATURE]
    ramdisks = tuple(content for kind, content in sections if kind == RAMDISK)
    if kinds != [KERNEL, CMDLINE, METADATA, *[RAMDISK] * len(ramdisks), *[SIGNATURE] * signed]:
        raise Malformed("EIF: sections missing, unknown or in another order", code="bad-section")
    kernel, cmdline, described = (content for _, content in sections[:3])
    _check_parts(kernel, cmdline, ramdisks, described)
    return Eif(
        kernel=kernel,
        cmdline=cmdline,
        ramdisks=ramdisks,
        metadata=described,
        signature=eif_signature.parse(sections[-1][1]) if signed else None,
    )


def register(*contents: bytes) -> bytes:
    """A PCR (48 bytes) after it was extended, once, with the hash of `contents` one behind the other."""
    hashed = hashlib.sha384()
    for content in contents:
        hashed.update(content)
    return hashlib.sha384(bytes(48) + hashed.digest()).digest()


def _sections(data: bytes, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[int, bytes]]:
    out, at = [], _HEADER_BYTES
    for offset, size in zip(offsets, sizes, strict=True):
        start = at + _SECTION.size
        if offset != at or start + size > len(data):
            raise Malformed("EIF: a section is not where the header says", code="bad-section")
        kind, flags, own = _SECTION.unpack_from(data, at)
        if flags or own != size:
            raise Malformed(f"EIF: the section at byte {at} is not as the header says", code="bad-section")
        out.append((kind, data[start : start + size]))
        at = start + size
    if at != len(data):
        raise Malformed(f"EIF: {len(data) - at} trailing bytes", code="trailing-bytes")
    return out


def _check_parts(kernel: bytes, cmdline: bytes, ramdisks: tuple[bytes, ...], described: bytes) -> None:
    if not 0 < len(cmdline) <= MAX_CMDLINE or not all(0x20 <= byte < 0x7F for byte in cmdline):
        raise Malformed("EIF: command line: expected one line of printable ASCII", code="bad-text")
    if not kernel or not 0 < len(ramdisks) <= MAX_SECTIONS - 4 or not all(ramdisks):
        raise Malformed(
            "EIF: expected a kernel and at least one ramdisk, none of them empty", code="bad-section"
        )
    top = fields.Fields(
        canonical.loads(described, what="EIF metadata", max_bytes=MAX_METADATA), "EIF metadata"
    )
    for key in ("ImageName", "ImageVersion"):
        top.text(key)
    top.object("BuildMetadata").text_map_of(_BUILD_KEYS, max_length=256)
    top.raw_object("DockerInfo")
    top.raw_object("CustomMetadata")
    top.done()
