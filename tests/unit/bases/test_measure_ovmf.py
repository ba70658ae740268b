"""Firmware images: Debian's own, and written ones with every fault that a reader must see."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.bases.measure import edk2, ovmf, tdx
from strongroom.errors import Malformed
from strongroom_testing import firmware

DEBIAN = Path("/usr/share/ovmf/OVMF.fd")
GOOD = firmware.Shape(tdx=firmware.tdx_sections(front=2 * firmware.PAGE, size=32 * firmware.PAGE))


def test_debians_ovmf_fd_carries_both_metadata_and_no_place_for_kernel_hashes():
    parsed = ovmf.parse(DEBIAN.read_bytes())
    assert parsed.address == 0x100000000 - 0x200000
    assert parsed.reset == 0x80B004
    assert parsed.hashes is None
    assert [(one.kind.name, one.address, one.size) for one in parsed.sev] == [
        ("ZEROS", 0x800000, 0x9000),
        ("ZEROS", 0x80A000, 0x3000),
        ("SECRETS", 0x80D000, 0x1000),
        ("CPUID", 0x80E000, 0x1000),
        ("ZEROS", 0x80F000, 0x11000),
    ]
    assert [(one.kind.name, one.address, one.size, one.extends) for one in parsed.tdx] == [
        ("CODE", 0xFFE20000, 0x1E0000, True),
        ("CONFIGURATION", 0xFFE00000, 0x20000, False),
        ("TEMPORARY", 0x810000, 0x10000, False),
        ("TEMPORARY", 0x80B000, 0x2000, False),
        ("HOB", 0x809000, 0x2000, False),
        ("TEMPORARY", 0x800000, 0x6000, False),
    ]


def test_debians_4m_builds_carry_no_metadata():
    for name in ("OVMF_CODE_4M.fd", "OVMF_CODE_4M.ms.fd", "OVMF_CODE_4M.secboot.fd"):
        parsed = ovmf.parse((Path("/usr/share/OVMF") / name).read_bytes())
        assert (parsed.sev, parsed.tdx) == ((), ())


def test_half_of_a_split_build_starts_snp_and_no_trust_domain():
    """Its TDVF descriptor counts from the beginning of the whole image."""
    half = ovmf.parse(Path("/usr/share/OVMF/OVMF_CODE.fd").read_bytes())
    assert half.sev == ovmf.parse(DEBIAN.read_bytes()).sev
    for measured in (
        tdx.mrtd,
        lambda one: tdx.rtmr0(one, 1 << 30, tdx.Acpi(loader=b"", rsdp=b"", tables=b"")),
    ):
        with pytest.raises(Malformed) as refused:
            measured(half)
        assert refused.value.code == "truncated"


def test_a_written_image_reads_back():
    parsed = ovmf.parse(firmware.build(GOOD))
    assert parsed.hashes == firmware.AMDSEV_HASHES
    assert tuple((one.address, one.size, int(one.kind)) for one in parsed.sev) == firmware.AMDSEV
    assert [one.address for one in parsed.tdx][2:] == [0x811000, 0x80B000, 0x809000, 0x800000]


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (replace(GOOD, sev=((0x800000, 0x1000, 5),)), "bad-firmware"),  # a kind that nobody knows
        (replace(GOOD, sev=((0x800000, 0x800, 1),)), "bad-firmware"),  # half a page
        (replace(GOOD, sev=((0x800000, 0x2000, 2),)), "bad-firmware"),  # secrets are one page
        (replace(GOOD, sev=((0x800000, 0x2000, 1), (0x801000, 0x1000, 1))), "bad-firmware"),  # overlap
        (replace(GOOD, sev=((0, 0xFFFFF000, 1),)), "bad-firmware"),  # more than is ever laid out
        (replace(GOOD, tdx=((0, 0, 0, 0x1000, 9, 0),)), "bad-firmware"),
        (replace(GOOD, tdx=((0, 0, 0, 0x1000, 3, 4),)), "bad-firmware"),  # a reserved attribute
        (replace(GOOD, tdx=((0, 0x2000, 0, 0x1000, 0, 1),)), "bad-firmware"),  # more content than memory
        (replace(GOOD, tdx=((0, 0, 1 << 63, 1 << 40, 3, 0),)), "bad-firmware"),
    ],
)
def test_metadata_that_no_host_could_follow_is_malformed(shape, code):
    with pytest.raises(Malformed) as refused:
        ovmf.parse(firmware.build(shape))
    assert refused.value.code == code


def spoiled(offset_from_end: int, put: bytes) -> bytes:
    image = bytearray(firmware.build(GOOD))
    at = len(image) - offset_from_end
    image[at : at + len(put)] = put
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"", "not whole pages"),
        (bytes(4096), "no table of GUIDs at its end"),
        (bytes(4095), "not whole pages"),
        (spoiled(50, b"\xff\xff")[-4096:], "a table larger than the image"),
        (
            spoiled(50, b"\xff\xff"),
            "longer than the table, or there twice",
        ),  # a table that begins in the code
        (spoiled(50, b"\x11\x00"), "a table larger than the image"),  # smaller than its own footer
        (spoiled(50 + 18, b"\x00\x00"), "longer than the table, or there twice"),
        (spoiled(50 + 18, b"\xff\x0f"), "longer than the table, or there twice"),  # beyond the table
        (spoiled(2048, b"XSEV"), "ASEV: not a block of version 1"),
        (spoiled(2048 + -8, struct.pack("<I", 2)), "ASEV: not a block of version 1"),
        (spoiled(2048 + -12, struct.pack("<I", 65)), "65 sections in 100 bytes"),
    ],
)
def test_tables_that_lead_astray_are_malformed(image, why):
    with pytest.raises(Malformed, match=why):
        ovmf.parse(image)


def test_an_entry_that_is_there_twice_is_malformed():
    image = bytearray(firmware.build(replace(GOOD, hashes=None, sev=(), tdx=())))
    twice = firmware.entry(firmware.RESET, bytes(4)) * 2
    footer = bytes(image[len(image) - 48 : len(image) - 32])
    table = twice + struct.pack("<H", len(twice) + 18) + footer
    image[len(image) - 32 - len(table) : len(image) - 32] = table
    with pytest.raises(Malformed, match="twice"):
        ovmf.parse(bytes(image))


def test_what_a_build_measures_shows_in_its_volumes():
    assert edk2.events(DEBIAN.read_bytes()) is edk2.Events.NONE
    known = replace(GOOD, volume=firmware.measuring())
    assert edk2.events(firmware.build(known)) is edk2.Events.EDK2_202302
    newer = replace(GOOD, volume=firmware.measuring(b"QEMU FW CFG\0"))
    assert edk2.events(firmware.build(newer)) is edk2.Events.OTHER
    menu = replace(GOOD, volume=firmware.measuring("BootManagerMenuApp\0".encode("utf-16-le")))
    assert edk2.events(firmware.build(menu)) is edk2.Events.OTHER


def test_a_volume_that_unpacks_to_more_than_is_allowed_is_malformed(monkeypatch):
    monkeypatch.setattr(edk2, "MAX_VOLUME", 1 << 20)
    bomb = replace(GOOD, volume=bytes(2 << 20))
    with pytest.raises(Malformed, match="volumes"):
        edk2.events(firmware.build(bomb))
