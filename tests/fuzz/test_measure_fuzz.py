"""Firmware images of any bytes parse or are `Malformed`; whatever parses has registers, or a reason to have none."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from hypothesis import given

from strongroom.bases.measure import edk2, ovmf, snp, tdx
from strongroom.errors import Malformed, Misuse
from strongroom_testing import firmware
from tests.fuzz.mutations import mutations, often

SHAPE = firmware.Shape(
    pages=2, sev=firmware.AMDSEV[2:5], tdx=((0, 0x1000, 0, 0x1000, 0, 1), (0, 0, 0x9000, 0x2000, 2, 0))
)
GOOD = firmware.build(SHAPE)
TABLES = GOOD[-2048:]
KNOWN = firmware.build(replace(SHAPE, pages=4, volume=firmware.measuring()))


@often
@given(data=mutations(TABLES))
def test_rule_15_tables_of_any_bytes(data):
    image = GOOD[: len(GOOD) - 2048] + data
    image = image.ljust(len(GOOD), b"\0")[-len(GOOD) :]
    with contextlib.suppress(Malformed):
        parsed = ovmf.parse(image)
        launch = snp.LaunchInputs(firmware=parsed, vcpus=2, signature=0)
        with contextlib.suppress(Malformed):
            assert len(snp.digest(launch)) == 48
        with contextlib.suppress(Malformed):
            assert len(tdx.mrtd(parsed)) == 48
        with contextlib.suppress(Malformed, Misuse):
            assert len(tdx.td_hob(parsed, 1 << 30)) % 8 == 0


@often
@given(data=mutations(GOOD))
def test_rule_15_images_of_any_bytes(data):
    with contextlib.suppress(Malformed):
        ovmf.parse(data)


@often
@given(data=mutations(KNOWN[:600]))
def test_rule_15_volumes_of_any_bytes(data):
    with contextlib.suppress(Malformed):
        assert edk2.events(data + KNOWN[600:]) in edk2.Events
