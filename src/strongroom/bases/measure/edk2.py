"""What a build of EDK II and a Linux kernel measure when they run in a trust domain, as far as their files show it.

RTMRs are filled by whoever boots, not by the hardware: firmware without the driver for them (Debian 12's OVMF.fd) or a
kernel whose EFI stub does not know them (before Linux 6.9) leaves them zero, and then they say nothing of what runs.
Builds also differ in which events they measure. Both show in the files: a driver by its file's GUID, an event by the
text that it logs, in the firmware's volume (LZMA, in a section named by GUID) or beside it.
"""

from __future__ import annotations

import enum
import lzma
import uuid

from strongroom.errors import Malformed

MAX_VOLUME = 64 << 20
MAX_SECTIONS = 8

_LZMA = uuid.UUID("ee4e5898-3914-4259-9d6e-dc7bd79403cf").bytes_le
_DRIVER = uuid.UUID("f062221e-c607-44c2-b0b4-c3886331d351").bytes_le  # TdTcg2Dxe
_CC_PROTOCOL = uuid.UUID("96751a3d-72f4-41a6-a794-ed5d0e67ae6b").bytes_le
_TD_HOB, _ACPI, _FW_CFG = b"TdxTable\0", b"ACPI DATA", b"QEMU FW CFG"
_MENU = "BootManagerMenuApp\0".encode("utf-16-le")
_HEADER = 4  # of a section: three bytes of size, one of type
_MEMORY = 256 << 20  # of the unpacker
_LONG = 0xFFFFFF  # a size that stands behind the header instead


class Events(enum.StrEnum):
    """Which events a build measures. Only `EDK2_202302` is known well enough to predict RTMR 0."""

    NONE = "none"
    EDK2_202302 = "edk2-stable202302 to 202502"
    OTHER = "other"


def events(firmware: bytes) -> Events:
    """The events of this build. Raises `Malformed` when its volumes cannot be read."""
    volumes = firmware + b"".join(_volumes(firmware))
    if _DRIVER not in volumes:
        return Events.NONE
    known = _TD_HOB in volumes and _ACPI in volumes and _FW_CFG not in volumes and _MENU not in volumes
    return Events.EDK2_202302 if known else Events.OTHER


def knows_rtmrs(kernel: bytes) -> bool:
    """Whether a bzImage's EFI stub asks for the protocol that extends RTMRs.

    Compilers put the protocol's GUID into instructions word by word; each of its four words is unlikely enough.
    """
    return all(_CC_PROTOCOL[at : at + 4] in kernel for at in range(0, 16, 4))


def _volumes(firmware: bytes) -> list[bytes]:
    """The compressed volumes, unpacked. Firmware that looks for them names the GUID too: not every place with the GUID is a volume."""
    out: list[bytes] = []
    left = MAX_VOLUME
    at = -1
    for _ in range(MAX_SECTIONS):
        at = firmware.find(_LZMA, at + 1)
        if at < 0:
            break
        long = (
            at >= 2 * _HEADER
            and int.from_bytes(firmware[at - 2 * _HEADER : at - _HEADER - 1], "little") == _LONG
        )
        start = at - 2 * _HEADER if long else at - _HEADER
        data = start + int.from_bytes(firmware[at + 16 : at + 18], "little")
        if data > at >= _HEADER:
            out.append(_unpack(memoryview(firmware)[data:], left))
            left -= len(out[-1])
    return out


def _unpack(data: memoryview, left: int) -> bytes:
    """One LZMA stream; empty when these bytes are none."""
    try:
        unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=_MEMORY)
        unpacked = unpacker.decompress(data, max_length=left + 1)
    except (lzma.LZMAError, EOFError):
        return b""
    if len(unpacked) > left:
        raise Malformed(f"firmware: volumes of more than {MAX_VOLUME} bytes", code="too-large")
    return unpacked
