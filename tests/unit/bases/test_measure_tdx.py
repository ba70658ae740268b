"""TDX registers: against a recorded machine's event log and quote, and against the order of the module's own calls."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.bases.formats import pe
from strongroom.bases.measure import ovmf, pcr, tdx
from strongroom.errors import Malformed, Misuse
from strongroom.evidence.formats import dcap_quote, eventlog_efi
from strongroom_testing import firmware
from tests.unit.bases import efi

DEBIAN = Path("/usr/share/ovmf/OVMF.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")  # the configuration volume of every 4 MB build
RECORDED = Path("../shared/vectors/tdx/v4-attestation-rs-tdx-quote-live-3ab56d67")
GIB = 1 << 30
PAGES = 1024
ACPI = tdx.Acpi(loader=b"loader", rsdp=b"rsdp", tables=b"tables")


def image(front: bytes = bytes(2 * firmware.PAGE), pages: int = 32) -> ovmf.Firmware:
    sections = firmware.tdx_sections(front=len(front), size=pages * firmware.PAGE)
    return ovmf.parse(firmware.build(firmware.Shape(pages=pages, tdx=sections, front=front)))


GOOD = image()


@pytest.fixture(scope="module")
def recorded():
    if not RECORDED.is_dir():
        pytest.skip(f"{RECORDED} is not here")
    log = eventlog_efi.parse((RECORDED / "ccel_data.bin").read_bytes(), padded=True)
    quote = dcap_quote.parse((RECORDED / "quote.bin").read_bytes())
    return log, dcap_quote.td_report(quote.body_type, quote.body).rtmrs


def of(log, register):
    return [event.digests["sha384"] for event in log.events if event.pcr == register]


def test_a_recorded_machines_rtmr0_is_predicted_but_for_its_acpi_tables(recorded):
    """A domain of 2 GiB under QEMU, with the sections and the configuration volume of Debian's 4 MB builds."""
    log, _ = recorded
    like = image(front=VARIABLES.read_bytes(), pages=PAGES)
    predicted = [hashlib.sha384(one).digest() for one in tdx.rtmr0_events(like, 2 * GIB, ACPI)]
    measured = of(log, 1)
    assert len(predicted) == len(measured) == 13
    different = [
        index for index, (one, other) in enumerate(zip(predicted, measured, strict=True)) if one != other
    ]
    assert different == [8, 9, 10]
    assert [event.data for event in log.events if event.pcr == 1][8:11] == [b"ACPI DATA"] * 3


def test_a_recorded_machines_rtmrs_follow_from_its_kernel_command_line_and_initrd(recorded):
    log, rtmrs = recorded
    assert pcr.extended("sha384", of(log, 1)) == rtmrs[0].hex()
    assert tdx._started(of(log, 2)[0]) == rtmrs[1].hex()
    assert pcr.extended("sha384", of(log, 3)) == rtmrs[2].hex()
    assert rtmrs[3].hex() == tdx.ZEROS


def test_a_recorded_machines_memory_is_told_from_others(recorded):
    log, _ = recorded
    like = image(front=VARIABLES.read_bytes(), pages=PAGES)
    fitting = [
        gib for gib in range(1, 65) if hashlib.sha384(tdx.td_hob(like, gib * GIB)).digest() == of(log, 1)[0]
    ]
    assert fitting == [2]


def test_mrtd_is_the_hash_of_the_modules_calls_in_order():
    """Written down a second time, call by call, as TDH.MEM.PAGE.ADD and TDH.MR.EXTEND are specified."""
    calls = b""
    for section in GOOD.tdx:
        for page in range(section.address, section.address + section.size, 4096):
            calls += b"MEM.PAGE.ADD\0\0\0\0" + page.to_bytes(8, "little") + bytes(104)
            if section.kind is ovmf.TdxKind.CODE:
                for chunk in range(page, page + 4096, 256):
                    calls += b"MR.EXTEND" + bytes(7) + chunk.to_bytes(8, "little") + bytes(104)
                    where = chunk - section.address + section.offset
                    calls += GOOD.data[where : where + 256]
    assert tdx.mrtd(GOOD) == hashlib.sha384(calls).digest()


def test_mrtd_depends_on_when_kvm_extends():
    assert tdx.mrtd(GOOD, tdx.PageOrder.SECTION) != tdx.mrtd(GOOD)
    assert len(tdx.mrtd(ovmf.parse(DEBIAN.read_bytes()))) == tdx.SIZE


def test_mrtd_covers_the_code_and_not_the_configuration():
    code = ovmf.parse(flipped(GOOD.data, 3 * 4096))
    configuration = ovmf.parse(flipped(GOOD.data, 100))
    assert tdx.mrtd(code) != tdx.mrtd(GOOD)
    assert tdx.mrtd(configuration) == tdx.mrtd(GOOD)
    assert tdx.rtmr0(configuration, GIB, ACPI) != tdx.rtmr0(GOOD, GIB, ACPI)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_pages_that_the_domain_accepts_later_are_in_no_register():
    sections = firmware.tdx_sections(front=8192, size=32 * 4096)
    later = (*sections, (0, 0, 0x900000, 0x10000, 4, 2))
    shape = firmware.Shape(tdx=later, front=bytes(8192))
    with_later = ovmf.parse(firmware.build(shape))
    without = ovmf.parse(firmware.build(replace(shape, tdx=sections)))
    code = next(one for one in with_later.tdx if one.kind is ovmf.TdxKind.CODE)
    assert with_later.tdx[-1].augmented
    # The descriptors themselves are in the code, so that the images differ there alone.
    same = replace(with_later, data=without.data)
    assert code.extends
    assert tdx.mrtd(same) == tdx.mrtd(without)


@pytest.mark.parametrize(
    ("memory", "acpi"),
    [
        (3 * GIB, ACPI),
        (2 * GIB, replace(ACPI, tables=b"other")),
        (2 * GIB, replace(ACPI, loader=b"other")),
        (2 * GIB, replace(ACPI, rsdp=b"other")),
    ],
)
def test_rule_26_memory_and_acpi_tables_are_in_rtmr0(memory, acpi):
    assert tdx.rtmr0(GOOD, memory, acpi) != tdx.rtmr0(GOOD, 2 * GIB, ACPI)


@pytest.mark.parametrize("change", ["kernel", "cmdline", "initrd"])
def test_rule_26_kernel_command_line_and_initrd_are_in_rtmrs_1_and_2(change):
    if not efi.STUB.exists():
        pytest.skip("systemd-boot-efi is not installed")
    one = {"kernel": efi.stub(), "cmdline": b"quiet", "initrd": b"initrd"}
    changed = pe.append(efi.stub(), [(".more", b"!")]) if change == "kernel" else one[change] + b"!"
    registers = [
        (tdx.rtmr1(given["kernel"]), tdx.rtmr2(cmdline=given["cmdline"], initrd=given["initrd"]))
        for given in (one, {**one, change: changed})
    ]
    assert registers[0] != registers[1]


@pytest.mark.parametrize(
    ("memory", "ranges"),
    [
        (0xB0000000 - 4096, [(0x820000, 0xB0000000 - 4096 - 0x820000)]),
        (0xB0000000, [(0x820000, 0x80000000 - 0x820000), (1 << 32, 0x30000000)]),
        (4 * GIB, [(0x820000, 0x80000000 - 0x820000), (1 << 32, 2 * GIB)]),
    ],
)
def test_memory_is_split_where_qemus_q35_splits_it(memory, ranges):
    hob = tdx.td_hob(GOOD, memory)
    resources = [struct.unpack_from("<QQ", hob, at + 32) for at in range(56, len(hob), 48)]
    assert resources[-len(ranges) :] == ranges
    assert struct.unpack_from("<Q", hob, 48) == (0x809000 + len(hob) + 8,)


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        (0, "expected whole pages, at most 16 TiB"),
        (-4096, "expected whole pages, at most 16 TiB"),
        (4097, "expected whole pages, at most 16 TiB"),
        (0x810000, "memory of"),
        (tdx.MAX_MEMORY + 4096, "expected whole pages, at most 16 TiB"),
    ],
)
def test_memory_that_no_machine_has_is_refused(memory, why):
    with pytest.raises(Misuse, match=why):
        tdx.td_hob(GOOD, memory)


def test_firmware_without_a_descriptor_or_a_place_for_the_hob_is_refused():
    none = ovmf.parse(firmware.build(firmware.Shape()))
    with pytest.raises(Malformed, match="has no TDVF descriptor"):
        tdx.mrtd(none)
    with pytest.raises(Malformed, match="its TDVF descriptor has no place for a TD HOB"):
        tdx.td_hob(none, GIB)
    with pytest.raises(Malformed, match="its TDVF descriptor has no configuration volume"):
        tdx.rtmr0(none, GIB, ACPI)
