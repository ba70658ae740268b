"""Programs, kernel images, enclave images, partition tables: any bytes are a value, or Malformed."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.bases.formats import disk_image, eif, eif_signature, gpt, pe, uki
from strongroom.bases.measure import direct_boot, nitro
from strongroom.bases.measure import uki as measure_uki
from strongroom.errors import Malformed, Refused
from tests.fuzz.mutations import mutations, often
from tests.unit.bases import efi, enclave

EIF = enclave.small(signer=enclave.signer())
SECTION = eif_signature.make(bytes(48), enclave.signer())
DISK = gpt.build([gpt.Partition(label="x", type=disk_image.BASE_TYPE, content=b"x")])


@efi.needs_stub
class TestPrograms:
    @given(st.data())
    @often
    def test_programs(self, data):
        content = data.draw(mutations(efi.small()))
        try:
            pe.authenticode(content)
            pe.append(content, [(".more", b"x")])
        except Malformed:
            pass

    @given(st.data())
    @often
    def test_images(self, data):
        content = data.draw(mutations(efi.small()))
        try:
            found = uki.parse(content)
            assert set(uki.SECTIONS) <= set(found.sections)
            measure_uki.measure(content)
        except Malformed:
            pass

    @given(place=st.integers(0, 0x400), value=st.binary(min_size=1, max_size=8))
    @often
    def test_headers(self, place, value):
        """Where a mutation seldom falls by chance: the first kilobyte says everything about the rest."""
        content = bytearray(efi.small())
        content[place : place + len(value)] = value
        try:
            measure_uki.measure(bytes(content))
        except Malformed:
            pass


def repaired(content: bytes) -> bytes:
    """With a checksum that fits, so that what is behind it is read."""
    if len(content) < 548:
        return content
    crc = zlib.crc32(content[548:], zlib.crc32(content[:544]))
    return content[:544] + struct.pack(">I", crc) + content[548:]


@given(mutations(EIF), st.booleans())
@example(EIF, False)
@often
def test_enclave_images(content, repair):
    try:
        nitro.measure(repaired(content) if repair else content)
        eif.parse(content)
    except (Malformed, Refused):
        pass


@given(mutations(SECTION))
@often
def test_signature_sections(content):
    try:
        eif_signature.check(eif_signature.parse(content), bytes(48))
    except (Malformed, Refused):
        pass


@given(mutations(DISK[: 64 * 512]))
@often
def test_partition_tables(content):
    try:
        gpt.measured(content)
    except Malformed:
        pass


@given(mutations(bytes(0x202) + b"HdrS" + bytes(0x100)), st.integers(0, 1 << 40), st.integers(0, 1 << 24))
@often
def test_setup_headers(kernel, size, memory):
    try:
        direct_boot.patched(kernel, size, memory)
    except Malformed:
        pass


def test_good_ones_are_good():
    """Else the tests above would prove nothing."""
    assert nitro.measure(EIF).pcr8
    assert gpt.measured(DISK)
    assert repaired(EIF) == EIF
    with pytest.raises(Malformed):
        gpt.measured(DISK[:600])
