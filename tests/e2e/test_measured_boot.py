"""What is predicted from files is what machines measure: boots under OVMF with a real software TPM, and its quote."""

from __future__ import annotations

import hashlib
import os

import pytest

from strongroom.bases import build
from strongroom.bases.formats import disk_image, pe, uki
from strongroom.bases.measure import direct_boot, edk2
from strongroom.bases.measure import uki as measure_uki
from strongroom.evidence.formats import eventlog_efi, tpm_quote
from strongroom.node.vtpm import provision
from tests.e2e import measured_boot
from tests.unit.bases import efi

SHARED = build.default_cache(dict(os.environ))
QUOTED = tuple(range(14))
pytestmark = [
    pytest.mark.room,
    pytest.mark.skipif(bool(measured_boot.missing()), reason=measured_boot.missing()),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a kernel, an initrd whose init talks to the test, and a command line."""
    folder = tmp_path_factory.mktemp("files")
    built = build.build(build.sources(), SHARED, lambda _: None).folder
    (folder / "bzImage").write_bytes((built / "bzImage").read_bytes())
    (folder / "initrd").write_bytes(measured_boot.initrd(built))
    (folder / "cmdline").write_bytes(measured_boot.CMDLINE)
    return folder


@pytest.fixture(scope="module")
def chip():
    return measured_boot.chip()


@pytest.fixture(scope="module")
def image(files):
    return uki.build(
        stub=efi.stub(),
        kernel=(files / "bzImage").read_bytes(),
        initrd=(files / "initrd").read_bytes(),
        cmdline=(files / "cmdline").read_bytes(),
        osrel=efi.OSREL,
        uname=efi.UNAME,
    )


def quoted(guest: measured_boot.Guest, chip: measured_boot.Chip) -> dict[str, str]:
    """PCRs as the TPM signs them, explained by the event log: hexadecimal by their names in claims."""
    nonce = os.urandom(32)
    made = guest.tpm.quote(provision.AK_HANDLE, nonce, QUOTED)
    quote = tpm_quote.parse_quote(made.attest)
    signature = tpm_quote.parse_signature(made.signature)
    tpm_quote.check_signature(signature, chip.key, quote.raw)
    assert quote.extra_data == nonce
    values = guest.pcrs(*QUOTED)
    assert tpm_quote.check_pcrs(quote, signature, b"".join(values.values())) == values
    explained = eventlog_efi.explain(guest.log(), "sha256", values)
    assert {"0", "4", "7", "9"} <= set(str(explained["event_log"]).split())
    return {f"pcr{index}": value.hex() for index, value in values.items()}


def test_the_kernels_hash_is_what_debian_signed(files):
    kernel = (files / "bzImage").read_bytes()
    offset, size = pe.parse(kernel).certificates
    assert pe.authenticode(kernel) in kernel[offset : offset + size]


def test_debian_12s_kernel_would_leave_a_trust_domains_rtmr_2_as_it_was(files):
    """Linux 6.1: its EFI stub measures for TPMs alone. That is why the base for TDX has a newer one."""
    assert not edk2.knows_rtmrs((files / "bzImage").read_bytes())


def test_direct_boot(files, chip):
    parts = {
        "kernel": (files / "bzImage").read_bytes(),
        "initrd": (files / "initrd").read_bytes(),
        "cmdline": (files / "cmdline").read_bytes(),
    }
    with measured_boot.booted(chip.state, *measured_boot.direct(files), memory=512) as guest:
        found = quoted(guest, chip)
    version = measured_boot.qemu_version()
    predicted = direct_boot.measure(**parts, patched_for_mib=512 if version < (10, 0) else None)
    assert {name: found[name] for name in predicted.reference()} == predicted.reference()
    assert found["pcr5"] == predicted.pcr5
    assert found["pcr7"] in predicted.pcr7_without_secure_boot
    assert found["pcr11"] == predicted.pcr11
    assert found["pcr12"] == predicted.pcr12
    other = direct_boot.measure(**{**parts, "initrd": parts["initrd"] + b"\0"}).reference()
    assert not set(other.values()) & set(found.values())


@efi.needs_stub
def test_an_image_on_a_disk(files, chip, image, tmp_path):
    disk = disk_image.build(uki=image, base_disk=b"base" * 1024)
    (tmp_path / "strongroom.img").write_bytes(disk)
    machine = measured_boot.from_disk(tmp_path / "strongroom.img")
    with measured_boot.booted(chip.state, *machine) as guest:
        found = quoted(guest, chip)
        wide = eventlog_efi.replay(eventlog_efi.parse(guest.log()), "sha384")
        read = {index: guest.bank("sha384", index) for index in (4, 5, 7, 9, 11, 12, 13)}
    for bank, values in (
        ("sha256", found),
        ("sha384", {f"pcr{index}": value.hex() for index, value in read.items()}),
    ):
        predicted = measure_uki.measure(image, bank=bank, disk=disk)
        assert {name: values[name] for name in predicted.reference()} == predicted.reference()
        assert values["pcr5"] == predicted.pcr5
        assert values["pcr7"] in predicted.pcr7_without_secure_boot
        assert values["pcr12"] == predicted.pcr12
        assert values["pcr13"] == predicted.pcr13
    assert all(wide[index] == read[index] for index in (4, 5, 7, 9, 11))


@efi.needs_stub
@pytest.mark.soak
def test_an_operators_own_command_line_shows(files, chip, image, tmp_path):
    """Without secure boot the stub takes it, and says so in PCR 12; the kernel, in PCR 9; PCR 11 is what it was."""
    (tmp_path / "uki.efi").write_bytes(image)
    evil = measured_boot.CMDLINE.decode() + " strongroom.root=other"
    machine = ("-bios", measured_boot.OVMF, "-kernel", str(tmp_path / "uki.efi"), "-append", evil)
    with measured_boot.booted(chip.state, *machine) as guest:
        found = quoted(guest, chip)
    predicted = measure_uki.measure(image)
    assert found["pcr11"] == predicted.pcr11
    assert found["pcr9"] != predicted.pcr9
    assert found["pcr12"] != predicted.pcr12
    line = evil.encode("utf-16-le") + b"\0\0"
    assert found["pcr12"] == hashlib.sha256(bytes(32) + hashlib.sha256(line).digest()).hexdigest()


@efi.needs_stub
@pytest.mark.soak
def test_a_disk_padded_to_whole_gibibytes_boots_the_same(chip, image, tmp_path):
    path = tmp_path / "strongroom.img"
    path.write_bytes(disk_image.build(uki=image, base_disk=b"base" * 1024))
    disk = path.read_bytes()
    os.truncate(path, 1 << 30)
    with measured_boot.booted(chip.state, *measured_boot.from_disk(path)) as guest:
        found = quoted(guest, chip)
    predicted = measure_uki.measure(image, disk=disk)
    assert {name: found[name] for name in predicted.reference()} == predicted.reference()
    assert found["pcr5"] == predicted.pcr5
