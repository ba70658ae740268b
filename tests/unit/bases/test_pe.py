"""PE images: read strictly; hashed as those hash who sign them."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from strongroom.bases.formats import pe
from strongroom.errors import Malformed
from tests.samples import NOW
from tests.unit.bases import efi

pytestmark = efi.needs_stub


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    """A key and a certificate to sign programs with."""
    folder = tmp_path_factory.mktemp("signer")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "programs")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=36500))
    certificate = made.sign(key, hashes.SHA256())
    (folder / "cert").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder


def run(*command: object) -> str:
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("sbsign") is None, reason="sbsigntool is not installed")
@pytest.mark.parametrize("what", ["stub", "image"])
def test_the_hash_is_the_one_that_sbsign_signs(signer, tmp_path, what):
    program = efi.stub() if what == "stub" else efi.small()
    (tmp_path / "p").write_bytes(program)
    run(
        "sbsign",
        "--key",
        signer / "key",
        "--cert",
        signer / "cert",
        "--output",
        tmp_path / "s",
        tmp_path / "p",
    )
    run("sbverify", "--cert", signer / "cert", tmp_path / "s")
    signed = (tmp_path / "s").read_bytes()
    offset, size = pe.parse(signed).certificates
    assert size
    assert offset + size == len(signed)
    assert pe.authenticode(signed) in signed[offset:]
    if what == "image":  # the stub ends at an odd place, and signing fills it up
        assert pe.authenticode(signed) == pe.authenticode(program)
    changed = bytearray(signed)
    changed[0x800] ^= 1
    assert pe.authenticode(bytes(changed)) not in signed


@pytest.mark.skipif(shutil.which("osslsigncode") is None, reason="osslsigncode is not installed")
@pytest.mark.parametrize("algorithm", ["sha256", "sha384"])
def test_the_hash_is_the_one_that_osslsigncode_signs(signer, tmp_path, algorithm):
    (tmp_path / "p").write_bytes(efi.small())
    run(
        *("osslsigncode", "sign", "-certs", signer / "cert", "-key", signer / "key", "-h", algorithm),
        *("-in", tmp_path / "p", "-out", tmp_path / "s"),
    )
    signed = (tmp_path / "s").read_bytes()
    assert pe.authenticode(efi.small(), algorithm) in signed[pe.parse(signed).certificates[0] :]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="binutils is not installed")
def test_objdump_sees_the_same_sections(tmp_path):
    (tmp_path / "p").write_bytes(efi.small())
    listing = run("objdump", "-h", "-w", tmp_path / "p")
    seen = re.findall(
        r"^ *\d+ (\S+) +([0-9a-f]{8}) +([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+)", listing, re.MULTILINE
    )
    found = [
        (one.name, one.virtual_size, one.virtual_address, one.raw_offset)
        for one in pe.parse(efi.small()).sections
    ]
    assert found == [(name, *(int(number, 16) for number in numbers)) for name, *numbers in seen]
    for name, content in ((".initrd", efi.INITRD), (".linux", efi.stub())):
        run("objcopy", "-O", "binary", "--only-section", name, tmp_path / "p", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == content


def test_signatures_and_symbols_do_not_survive_an_append():
    image = pe.parse(efi.stub())
    assert image.data_end < len(efi.stub())  # the stub has symbols behind its sections
    made = pe.append(efi.stub(), [(".more", b"x")])
    assert pe.parse(made).data_end == len(made)
    assert made[image.coff + 8 : image.coff + 16] == bytes(8)
    assert pe.append(efi.stub()[: image.data_end], [(".more", b"x")]) == made


def test_what_cannot_be_appended_is_refused():
    with pytest.raises(Malformed, match="room"):
        pe.append(efi.stub(), [(f".x{number}", b"x") for number in range(40)])
    for name, content in (("", b"x"), (".too-long-a-name", b"x"), (".empty", b"")):
        with pytest.raises(Malformed, match="no place"):
            pe.append(efi.stub(), [(name, content)])


def patched(offset: int, form: str, *values: object) -> bytes:
    data = bytearray(efi.small())
    struct.pack_into("<" + form, data, offset, *values)
    return bytes(data)


def test_images_that_loaders_read_in_two_ways_are_refused():
    image = pe.parse(efi.small())
    last = image.table + 40 * (len(image.sections) - 1)
    section = image.sections[-1]
    entry = image.certificates_entry
    assert entry is not None
    for bad, why in (
        (patched(0, "2s", b"ZM"), "no MZ and PE signatures"),
        (patched(0x3C, "I", 0x10), "no MZ and PE signatures"),
        (patched(0x3C, "I", 1 << 31), "no MZ and PE signatures"),
        (patched(image.coff, "H", 0xAA64), "not a PE32. image for x86-64"),
        (patched(image.optional, "H", 0x10B), "not a PE32. image for x86-64"),
        (patched(image.optional + 32, "I", 0x201), "alignment"),  # an alignment
        (
            patched(image.optional + 60, "I", image.headers_size + 512),
            "a gap or an overlap before section .text",
        ),
        (
            patched(image.optional + 56, "I", section.virtual_address),
            "sections beyond the image's end",
        ),  # an image smaller than its sections
        (patched(image.optional + 108, "I", 17), "its optional header has another size than PE32. has"),
        (patched(image.coff + 2, "H", 0), "its headers have another size than they say"),
        (patched(last + 20, "I", section.raw_offset + 512), "a gap or an overlap before section .linux"),
        (patched(last + 20, "I", section.raw_offset - 512), "a gap or an overlap before section .linux"),
        (patched(last + 16, "I", section.raw_size + 512), "sections beyond the image's end"),
        (patched(last + 12, "I", image.sections[-2].virtual_address), "section .linux overlaps in memory"),
        (patched(last, "8s", b"\0.linux"), "a section without a plain name"),
        (patched(entry, "II", len(efi.small()) - 8, 16), "signatures that do not end the file"),
        (
            patched(entry, "II", len(efi.small()) - 8, 8),
            "signatures that do not end the file",
        ),  # within the last section
        (patched(entry, "II", 0, 8), "signatures that do not end the file"),
        (efi.small()[:-1], "sections beyond the image's end"),
        (efi.small()[:300], "its headers have another size than they say"),
        (b"", "cut short"),
    ):
        with pytest.raises(Malformed, match=why):
            pe.authenticode(bad)


def flips(data: bytes, places: range) -> list[int]:
    """The places of a byte whose change leaves the image readable and its hash the same."""
    good = pe.authenticode(data)
    changed = bytearray(data)
    same = []
    for place in places:
        changed[place] ^= 0x41
        try:
            if pe.authenticode(bytes(changed)) == good:
                same.append(place)
        except Malformed:
            pass
        changed[place] ^= 0x41
    return same


def test_every_byte_of_the_headers_counts_but_the_checksum():
    image = pe.parse(efi.small())
    checksum = image.optional + 64
    assert flips(efi.small(), range(image.headers_size)) == [*range(checksum, checksum + 4)]
    assert flips(efi.small(), range(image.headers_size, len(efi.small()), 401)) == []


@pytest.mark.soak
def test_every_byte_behind_the_headers_counts():
    assert flips(efi.small(), range(pe.parse(efi.small()).headers_size, len(efi.small()))) == []
