"""Predictions: names as claims have them, nothing guessed, and nothing left out but by name."""

from __future__ import annotations

import struct
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.bases.formats import eif, pe
from strongroom.bases.measure import nitro, ovmf, predict, snp, tdx, tpm, uki
from strongroom.bases.profile import PROFILES
from strongroom.errors import Malformed, Misuse
from strongroom_testing import firmware
from tests.unit.bases import efi

DEBIAN = Path("/usr/share/ovmf/OVMF.fd").read_bytes()
PROTOCOL = uuid.UUID("96751a3d-72f4-41a6-a794-ed5d0e67ae6b").bytes_le
AMDSEV = firmware.build(firmware.Shape())
TDVF = firmware.build(
    firmware.Shape(
        tdx=firmware.tdx_sections(front=8192, size=32 * 4096), front=bytes(8192), volume=firmware.measuring()
    )
)
ACPI = tdx.Acpi(loader=b"loader", rsdp=b"rsdp", tables=b"tables")
GIB = 1 << 30


@pytest.fixture(scope="module")
def parts():
    """A kernel whose EFI stub knows RTMRs, as far as its bytes show it."""
    if not efi.STUB.exists():
        pytest.skip("systemd-boot-efi is not installed")
    kernel = pe.append(efi.stub(), [(".known", PROTOCOL)])
    return predict.Parts(kernel=kernel, initrd=b"initrd", cmdline=b"quiet")


def values(found):
    return {one.name: one.value for one in found.registers}


def test_a_local_room_is_predicted_by_its_launch_record(parts):
    found = predict.predict("local", parts, predict.MachineShape(firmware=b"bios"))
    record = tpm.launch_record(
        firmware=b"bios",
        kernel=parts.kernel,
        initrd=parts.initrd,
        cmdline=parts.cmdline,
        machine="q35",
        memory_guard=True,
    )
    assert found.tee == "tpm"
    assert found.references() == record.reference()
    assert found.beside[0].value == tpm.hcrtm_pcr0(record.encode()).hex()


def test_snp_gives_the_reports_measurement(parts):
    shape = predict.MachineShape(firmware=AMDSEV, vcpus=2, signature=snp.signature("EPYC-Genoa"))
    found = predict.predict("snp", parts, shape)
    launch = snp.LaunchInputs(
        firmware=ovmf.parse(AMDSEV),
        vcpus=2,
        signature=snp.signature("EPYC-Genoa"),
        kernel=snp.DirectBoot(kernel=parts.kernel, initrd=parts.initrd, cmdline=parts.cmdline),
    )
    assert found.references() == {"measurement": snp.digest(launch).hex()}


@pytest.mark.parametrize("missing", ["firmware", "vcpus", "signature"])
def test_snp_asks_for_what_its_digest_depends_on(parts, missing):
    shape = predict.MachineShape(firmware=AMDSEV, vcpus=2, signature=1)
    with pytest.raises(Misuse) as refused:
        predict.predict("snp", parts, replace(shape, **{missing: None}))
    assert refused.value.code == "not-given"


def test_where_the_firmware_loads_the_kernel_itself_the_prediction_says_so(parts):
    shape = predict.MachineShape(firmware=AMDSEV, vcpus=2, vmm=snp.Vmm.EC2)
    assert "NOT kernel" in predict.predict("snp", parts, shape).registers[0].covers


def test_tdx_gives_every_register_by_the_name_that_claims_give_it(parts):
    shape = predict.MachineShape(firmware=TDVF, memory=GIB, acpi=ACPI)
    found = predict.predict("tdx", parts, shape).references()
    parsed = ovmf.parse(TDVF)
    assert found == {
        "mr_td": tdx.mrtd(parsed).hex(),
        "rtmr0": tdx.rtmr0(parsed, GIB, ACPI),
        "rtmr1": tdx.rtmr1(parts.kernel),
        "rtmr2": tdx.rtmr2(cmdline=b"quiet", initrd=b"initrd"),
        "rtmr3": "0" * 96,
    }


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (predict.MachineShape(firmware=TDVF), "--memory"),
        (predict.MachineShape(firmware=TDVF, memory=GIB), "ACPI tables"),
    ],
)
def test_a_register_that_depends_on_what_is_not_given_has_a_reason_and_no_value(parts, shape, reason):
    found = predict.predict("tdx", parts, shape)
    rtmr0 = next(one for one in found.registers if one.name == "rtmr0")
    assert rtmr0.value is None
    assert reason in rtmr0.why
    with pytest.raises(Misuse) as refused:
        found.references()
    assert refused.value.code == "not-predicted"
    assert "rtmr0" not in found.references(without=["rtmr0"])


def test_events_that_are_not_known_are_not_guessed(parts):
    other = firmware.Shape(
        tdx=firmware.tdx_sections(front=8192, size=32 * 4096),
        front=bytes(8192),
        volume=firmware.measuring(b"QEMU FW CFG\0"),
    )
    shape = predict.MachineShape(firmware=firmware.build(other), memory=GIB, acpi=ACPI)
    assert values(predict.predict("tdx", parts, shape))["rtmr0"] is None


def test_firmware_that_extends_no_rtmr_is_refused(parts):
    """Debian 12's OVMF.fd starts as a trust domain, and would run any kernel with RTMRs of zeros."""
    with pytest.raises(Malformed) as refused:
        predict.predict("tdx", parts, predict.MachineShape(firmware=DEBIAN, memory=GIB, acpi=ACPI))
    assert refused.value.code == "measures-nothing"


def test_a_kernel_that_does_not_measure_its_command_line_gets_no_reference(parts):
    """Linux before 6.9, as Debian 12's: with any command line its RTMR 2 is zeros."""
    old = replace(parts, kernel=efi.stub())
    found = predict.predict("tdx", old, predict.MachineShape(firmware=TDVF, memory=GIB, acpi=ACPI))
    assert values(found)["rtmr2"] is None
    for without, why in (
        ((), "does not know RTMRs"),
        (("rtmr2",), "a contract without it would accept anything"),
    ):
        with pytest.raises(Misuse, match=why):
            found.references(without=without)


def every_profile(parts):
    """What is predicted for each profile, and its registers that measure what runs."""
    enclave = eif.build(
        kernel=b"k" * 5000,
        cmdline=b"quiet",
        ramdisks=(b"r" * 5000,),
        metadata=eif.metadata(name="n", version="1", kernel="6.1", tool_version="1"),
    )
    amd = predict.MachineShape(firmware=AMDSEV, vcpus=1, signature=snp.signature("EPYC-Genoa"))
    td = predict.MachineShape(firmware=TDVF, memory=GIB, acpi=ACPI)
    bios = predict.MachineShape(firmware=b"bios")
    return {
        "tdx": (predict.predict("tdx", parts, td), {"mr_td", "rtmr1", "rtmr2"}),
        "snp": (predict.predict("snp", parts, amd), {"measurement"}),
        "local": (
            predict.predict("local", parts, bios),
            {"firmware", "kernel", "initrd", "cmdline", "machine"},
        ),
        "nitro": (
            predict.predict("nitro", predict.Parts(eif=enclave), predict.MachineShape()),
            {"pcr0", "pcr1", "pcr2"},
        ),
        "uki": (
            predict.predict("uki", predict.Parts(uki=efi.small()), predict.MachineShape()),
            {"pcr4", "pcr9", "pcr11"},
        ),
    }


def test_what_measures_the_program_cannot_be_left_out(parts):
    predicted = every_profile(parts)
    assert predicted.keys() == PROFILES.keys()
    for profile, (found, measuring) in predicted.items():
        assert measuring <= found.references().keys()
        for name in measuring:
            with pytest.raises(Misuse) as refused:
                found.references(without=[name])
            assert refused.value.code == "not-spare", (profile, name)
        with pytest.raises(Misuse, match="has no register 'rtmr4'"):
            found.references(without=["rtmr4"])


def test_tdx_is_predicted_for_qemu_alone(parts):
    with pytest.raises(Misuse, match="predicted for QEMU alone"):
        predict.predict("tdx", parts, predict.MachineShape(firmware=TDVF, vmm=snp.Vmm.GCE))


def test_nitro_gives_the_pcrs_of_the_image_file():
    described = eif.metadata(name="n", version="1", kernel="6.1", tool_version="1")
    image = eif.build(kernel=b"k" * 5000, cmdline=b"quiet", ramdisks=(b"r" * 5000,), metadata=described)
    found = predict.predict("nitro", predict.Parts(eif=image), predict.MachineShape())
    assert found.references() == nitro.measure(image).reference()


@pytest.mark.parametrize("profile", ["snp", "tdx", "local"])
def test_a_base_without_a_part_is_refused(parts, profile):
    shape = predict.MachineShape(firmware=TDVF if profile == "tdx" else AMDSEV, vcpus=1, signature=1)
    with pytest.raises(Misuse) as refused:
        predict.predict(profile, replace(parts, initrd=b""), shape)
    assert refused.value.code == "no-part"


def test_a_unified_kernel_image_is_predicted_by_what_its_files_decide():
    if not efi.STUB.exists():
        pytest.skip("systemd-boot-efi is not installed")
    found = predict.predict("uki", predict.Parts(uki=efi.small()), predict.MachineShape())
    assert found.references() == uki.measure(efi.small()).reference()
    assert [one.name for one in found.registers] == ["pcr4", "pcr9", "pcr11"]


def test_qemu_before_10_edits_the_kernel_by_the_machines_memory():
    kernel = pe_kernel()
    shape = predict.MachineShape(firmware=TDVF, edits_kernel=True)
    parts = predict.Parts(kernel=kernel, initrd=b"initrd", cmdline=b"quiet")
    with pytest.raises(Misuse) as refused:
        predict.predict("tdx", parts, shape)
    assert refused.value.code == "not-given"
    seen = {
        values(predict.predict("tdx", parts, replace(shape, memory=gib * GIB)))["rtmr1"]
        for gib in (1, 2, 3, 4)
    }
    # From 2.75 GiB on, memory below 4 GiB ends at 2 GiB, as if there were no more.
    assert len(seen) == 2
    assert tdx.rtmr1(kernel) not in seen


def pe_kernel():
    """A program as small as can be, whose PE headers leave room for Linux's setup header."""
    image = bytearray(0x800)
    image[:2] = b"MZ"
    struct.pack_into("<I", image, 0x3C, 0x400)
    image[0x202:0x206] = b"HdrS"
    image[0x400:0x404] = b"PE\0\0"
    struct.pack_into("<HHIIIHH", image, 0x404, 0x8664, 1, 0, 0, 0, 112, 0)
    fields = [0] * 28
    # Magic, alignments, the image's and the headers' size; no directories.
    fields[0], fields[8], fields[9], fields[17], fields[18] = 0x20B, 4096, 512, 0x3000, 0x600
    struct.pack_into("<HHIIIIIQIIHHHHHHIIIIHHQQQQII", image, 0x418, *fields)
    struct.pack_into("<8sIIIIIIHHI", image, 0x418 + 112, b".text", 0x200, 0x1000, 0x200, 0x600, 0, 0, 0, 0, 0)
    image[0x600:0x610] = PROTOCOL
    return bytes(image)


def test_an_unknown_profile_is_refused():
    with pytest.raises(Misuse, match="no profile is called 'sev'"):
        predict.predict("sev", predict.Parts(), predict.MachineShape())
