"""Unified kernel images: what goes in is what comes out, and nothing else."""

from __future__ import annotations

import pytest

from strongroom.bases.formats import pe, uki
from strongroom.errors import Malformed
from tests.unit.bases import efi

pytestmark = efi.needs_stub


def test_what_goes_in_comes_out():
    found = uki.parse(efi.small())
    assert found.stub >= 252
    assert dict(found.sections) == {
        ".sbat": uki.parse(efi.small()).sections[".sbat"],
        ".osrel": efi.OSREL,
        ".cmdline": efi.CMDLINE,
        ".uname": efi.UNAME,
        ".initrd": efi.INITRD,
        ".linux": efi.stub(),
    }
    assert pe.names(pe.parse(efi.small()))[-1] == ".linux"


def test_same_parts_same_bytes():
    assert efi.small() == efi.small()
    assert efi.small(initrd=efi.INITRD + b"x") != efi.small()


@pytest.mark.parametrize(
    ("part", "value", "why"),
    [
        ("cmdline", b"", "cmdline: expected one line of printable ASCII"),
        ("cmdline", b"quiet\n", "cmdline: expected one line of printable ASCII"),
        ("cmdline", b"quiet\0init=/bin/sh", "cmdline: expected one line of printable ASCII"),
        ("cmdline", "ä".encode(), "cmdline: expected one line of printable ASCII"),
        ("cmdline", b"x" * 5000, "cmdline: expected one line of printable ASCII"),
        ("uname", b"", "uname: expected one line of printable ASCII"),
        ("uname", b"6.1\n", "uname: expected one line of printable ASCII"),
        ("osrel", b"", "section '.osrel' of 0 bytes has no place"),
        ("initrd", b"", "section '.initrd' of 0 bytes has no place"),
        ("kernel", b"not a program", "cut short"),
        ("stub", b"not a program", "cut short"),
    ],
)
def test_parts_that_no_image_can_carry_are_refused(part, value, why):
    with pytest.raises(Malformed, match=why):
        efi.small(**{part: value})


def test_an_image_is_not_a_stub():
    with pytest.raises(Malformed, match="already"):
        efi.small(stub=efi.small())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".dtb", "section .dtb is not understood"),
        (".pcrsig", "section .pcrsig is not understood"),
        (".profile", "section .profile is not understood"),
        (".ucode", "section .ucode is not understood"),
        (".cmdline", "two sections .cmdline"),
    ],
)
def test_sections_that_a_stub_would_act_on_are_refused(name, why):
    with pytest.raises(Malformed, match=why):
        uki.parse(pe.append(efi.small(), [(name, b"x")]))


@pytest.mark.parametrize("name", uki.SECTIONS)
def test_every_section_is_needed(name):
    less = pe.append(efi.stub(), [(one, b"x") for one in uki.SECTIONS if one != name])
    with pytest.raises(Malformed, match=f"no section {name}"):
        uki.parse(less)


def test_a_program_without_systemds_mark_is_no_stub():
    mark = b"LoaderInfo: systemd-stub"
    assert mark in efi.stub()
    with pytest.raises(Malformed, match="systemd"):
        efi.small(stub=efi.stub().replace(mark, b"LoaderInfo: systemd-boot"))


@pytest.mark.parametrize("text", [b"quiet\n", b"quiet\0", "ä".encode(), b" " * 5000])
def test_a_line_that_loaders_read_in_two_ways_is_refused(text):
    contents = {**uki.parse(efi.small()).sections, ".cmdline": text}
    with pytest.raises(Malformed, match="ASCII"):
        uki.parse(pe.append(efi.stub(), [(name, contents[name]) for name in uki.SECTIONS]))
