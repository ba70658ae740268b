"""PCRs of UEFI boots, from files: the formulas written out again. That machines do this is `tests/e2e/test_measured_boot.py`."""

from __future__ import annotations

import hashlib
import struct

import pytest

from strongroom.bases.formats import disk_image, gpt, pe, uki
from strongroom.bases.measure import direct_boot, pcr
from strongroom.bases.measure import uki as measure_uki
from strongroom.errors import Malformed, Misuse
from tests.unit.bases import efi

# OVMF, secure boot off, no keys: seen on a great many machines.
PCR7 = "65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068"


def chain(*events: bytes, bank: str = "sha256", hashed: bool = False) -> str:
    value = bytes(hashlib.new(bank).digest_size)
    for event in events:
        one = event if hashed else hashlib.new(bank, event).digest()
        value = hashlib.new(bank, value + one).digest()
    return value.hex()


@efi.needs_stub
@pytest.mark.parametrize("bank", ["sha256", "sha384"])
def test_an_image(bank):
    image = efi.small()
    found = measure_uki.measure(image, bank=bank)

    def digest(data: bytes) -> bytes:
        return hashlib.new(bank, data).digest()

    assert found.pcr4 == chain(
        digest(b"Calling EFI Application from Boot Option"),
        digest(bytes(4)),
        pe.authenticode(image, bank),
        pe.authenticode(efi.stub(), bank),
        bank=bank,
        hashed=True,
    )
    assert found.pcr9 == chain(
        efi.CMDLINE.decode().encode("utf-16-le") + b"\0\0",
        efi.INITRD,
        bank=bank,
    )
    sections = {".linux": efi.stub(), ".osrel": efi.OSREL, ".cmdline": efi.CMDLINE, ".initrd": efi.INITRD}
    if uki.parse(image).stub >= 254:
        sections |= {".uname": efi.UNAME, ".sbat": uki.parse(image).sections[".sbat"]}
    events = [part for name, content in sections.items() for part in (name.encode() + b"\0", content)]
    assert found.pcr11 == chain(*events, bank=bank)
    assert found.pcr5 is None
    assert found.pcr12 == found.pcr13 == bytes(hashlib.new(bank).digest_size).hex()
    assert found.reference() == {"pcr4": found.pcr4, "pcr9": found.pcr9, "pcr11": found.pcr11}
    assert len(found.pcr4) == 2 * hashlib.new(bank).digest_size


def test_firmware_without_secure_boot_has_the_published_pcr7():
    assert pcr.no_secure_boot("sha256")[0] == PCR7
    assert len(set(pcr.no_secure_boot("sha256"))) == 2


def test_banks_that_nobody_quotes_are_refused():
    with pytest.raises(Misuse, match="sha1"):
        pcr.digest("sha1", b"")


@efi.needs_stub
def test_each_part_shows_in_its_registers():
    good = measure_uki.measure(efi.small()).reference()
    shows = {
        "osrel": {"pcr4", "pcr11"},
        "cmdline": {"pcr4", "pcr9", "pcr11"},
        "initrd": {"pcr4", "pcr9", "pcr11"},
        "kernel": {"pcr4", "pcr11"},
    }
    for part, registers in shows.items():
        value = {"osrel": efi.OSREL, "cmdline": efi.CMDLINE, "initrd": efi.INITRD}.get(part, efi.stub())
        changed = bytearray(value)
        changed[-1] ^= 1
        found = measure_uki.measure(efi.small(**{part: bytes(changed)})).reference()
        # The stub's last bytes are symbols, which no loader reads: its hash has them all the same.
        assert {name for name in good if found[name] != good[name]} == registers, part


@efi.needs_stub
def test_every_flipped_byte_shows_or_is_refused():
    """All but the checksum's four, which firmware leaves out: the sections' contents in PCR 11, everything in PCR 4."""
    image = efi.small()
    parsed = pe.parse(image)
    good = measure_uki.measure(image)
    changed = bytearray(image)
    checksum = range(parsed.optional + 64, parsed.optional + 68)
    for place in (*range(parsed.headers_size), *range(parsed.headers_size, len(image), 331)):
        changed[place] ^= 0x10
        try:
            found = measure_uki.measure(bytes(changed))
        except Malformed:
            continue
        finally:
            changed[place] ^= 0x10
        assert (found.pcr4 == good.pcr4) == (place in checksum), place
    for section in parsed.sections:
        if section.name not in (".linux", ".osrel", ".cmdline", ".initrd"):
            continue
        place = section.raw_offset + section.virtual_size // 2
        changed[place] ^= 1
        assert measure_uki.measure(bytes(changed)).pcr11 != good.pcr11
        changed[place] ^= 1


@efi.needs_stub
@pytest.mark.parametrize("version", [b"251", b"256", b"999"])
def test_stubs_whose_measurements_are_not_known_are_refused(version):
    mark = b"systemd-stub " + str(uki.parse(efi.small()).stub).encode()
    with pytest.raises(Malformed) as caught:
        measure_uki.measure(efi.small().replace(mark, b"systemd-stub " + version))
    assert caught.value.code == "unknown-stub"
    assert "252" in caught.value.hint


@efi.needs_stub
def test_the_partition_table_is_in_pcr5():
    disk = disk_image.build(uki=efi.small(), base_disk=b"base" * 2048)
    found = measure_uki.measure(efi.small(), disk=disk)
    event = disk[512:604] + (2).to_bytes(8, "little") + disk[1024 : 1024 + 256]
    ends = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
    assert found.pcr5 == chain(bytes(4), event, *ends)
    other = disk_image.build(uki=efi.small(), base_disk=b"BASE" * 2048)
    assert measure_uki.measure(efi.small(), disk=other).pcr5 != found.pcr5


def test_tables_that_firmware_would_not_take_are_refused():
    disk = gpt.build([gpt.Partition(label="x", type=disk_image.BASE_TYPE, content=b"x")])
    gpt.measured(disk)
    for bad in (disk[:512], disk[: 34 * 512 - 1], b""):
        with pytest.raises(Malformed, match="cut short"):
            gpt.measured(bad)
    for place in (*range(512, 604), 1024, 1100):
        changed = bytearray(disk)
        changed[place] ^= 1
        with pytest.raises(Malformed):
            gpt.measured(bytes(changed))


def linux(size: int = 0x400) -> bytes:
    out = bytearray(size)
    out[0x202:0x206] = b"HdrS"
    out[0x211] = 1
    return bytes(out)


@pytest.mark.parametrize(
    ("memory", "initrd_at"),
    [
        (512, 0x20000000 - 0x28000 - 0x5000),
        (2815, 0xAFF00000 - 0x28000 - 0x5000),
        (2816, 0x80000000 - 0x28000 - 0x5000),
        (8192, 0x80000000 - 0x28000 - 0x5000),
    ],
)
def test_what_an_older_qemu_writes_into_the_setup_header(memory, initrd_at):
    out = direct_boot.patched(linux(), 0x4321, memory)
    assert struct.unpack_from("<II", out, 0x218) == (initrd_at, 0x4321)
    assert (out[0x210], out[0x211]) == (0xB0, 0x81)
    assert struct.unpack_from("<HHI", out, 0x224) == (0xFE00, 0, 0x20000)
    untouched = [place for place in range(len(out)) if out[place] == linux()[place]]
    assert {*range(0x210), *range(0x22C, 0x400)} <= set(untouched)


def test_kernels_that_qemu_would_not_take_are_refused():
    for kernel in (b"", bytes(0x400), linux()[:0x22A]):
        with pytest.raises(Malformed, match="no setup header of Linux for x86"):
            direct_boot.patched(kernel, 1, 512)
    with pytest.raises(Malformed, match="fit"):
        direct_boot.patched(linux(), 600 << 20, 512)


@efi.needs_stub
def test_direct_boot():
    found = direct_boot.measure(kernel=efi.stub(), initrd=efi.INITRD, cmdline=efi.CMDLINE)
    events = (
        pe.authenticode(efi.stub()),
        hashlib.sha256(b"Calling EFI Application from Boot Option").digest(),
        hashlib.sha256(bytes(4)).digest(),
    )
    assert found.pcr4 == chain(*events, hashed=True)
    options = efi.CMDLINE.decode() + " initrd=initrd"
    assert found.pcr9 == chain(options.encode("utf-16-le") + b"\0\0", efi.INITRD)
    assert found.reference() == {"pcr4": found.pcr4, "pcr9": found.pcr9}
    assert found.pcr11 == found.pcr12 == bytes(32).hex()
    with pytest.raises(Malformed, match="ASCII"):
        direct_boot.measure(kernel=efi.stub(), initrd=efi.INITRD, cmdline="ä".encode())
