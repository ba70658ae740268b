"""Where two builds differ is told by member; whatever the bytes are, it is told and nothing else happens."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.bases import disk as base_disk
from strongroom.bases import initramfs
from strongroom.bases import members as base_members
from strongroom.bases.document import DISK, EFI, EIF, IMAGE, INITRD
from strongroom.bases.files import File
from strongroom.bases.formats import disk_image, eif
from strongroom.errors import Malformed
from tests.unit.bases import efi, enclave

FILES = {"bin/tool": File(content=b"t" * 5000, executable=True), "init": File(content=b"#!/bin/sh\n")}
TREE = {"usr/lib/a.so": File(content=b"a" * 9000), "usr/lib/b.so": File(content=b"b" * 100)}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_the_members_of_an_archive_are_those_that_cpio_lists():
    data = initramfs.archive(FILES, folders=("dev",))
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=data, check=True, capture_output=True).stdout
    assert [one.name for one in base_members.cpio(data)] == listed.decode().split()


@given(st.binary(max_size=400), st.integers(0, 600))
def test_any_bytes_are_an_archive_or_malformed(junk, at):
    data = initramfs.archive({"a": File(content=b"x" * 50)})
    for one in (junk, data[:at], data[:at] + junk + data[at + len(junk) :]):
        try:
            members = base_members.cpio(one)
        except Malformed:
            continue
        assert all(member.content in one for member in members)


def test_same_bytes_do_not_differ():
    data = initramfs.archive(FILES)
    assert base_members.differing(INITRD, data, data, {}) == ()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"init": File(content=b"#!/bin/sh\r")}, ("init",)),
        ({"init": File(content=b"longer than it was")}, ("init",)),
        ({"init": None}, ("init (missing)",)),
        ({"new": File(content=b"n")}, ("new (not in the rebuilt one)",)),
        ({"bin/tool": File(content=b"t" * 5000)}, ("what lies around its members, byte 136",)),
    ],
)
def test_what_differs_in_an_initrd_is_named(changed, expected):
    other = {path: file for path, file in (FILES | changed).items() if file is not None}
    stored, built = initramfs.archive(other), initramfs.archive(FILES)
    assert base_members.differing(INITRD, stored, built, {}) == expected


def test_what_differs_in_a_disk_is_named():
    built = base_disk.write(TREE, folders=("dev",)).content
    tables, tree = flipped(built, 4096 + 5), flipped(built, len(built) - 1)
    assert base_members.differing(DISK, flipped(built, built.index(b"a" * 9000) + 7), built, {}) == (
        "usr/lib/a.so",
    )
    assert "tables" in base_members.differing(DISK, flipped(built, 1030), built, {})[0]
    assert base_members.differing(DISK, tables, built, {}) != ()
    assert base_members.differing(DISK, tree, built, {}) == (f"the hash tree, byte {len(built) - 1}",)
    fewer = base_disk.write({"usr/lib/a.so": TREE["usr/lib/a.so"]}, folders=("dev",)).content
    assert base_members.differing(DISK, fewer, built, {}) == ("usr/lib/b.so (missing)",)
    assert base_members.differing(DISK, b"", built, {}) != ()


def test_what_differs_in_an_enclave_image_is_named():
    disk = base_disk.write(TREE, folders=()).content
    parts = (initramfs.archive(FILES), initramfs.ramdisk(disk))
    built = enclave.small(ramdisks=parts)
    at = built.index(b"b" * 100)
    found = base_members.differing(EIF, flipped(built, at), built, {})
    assert found == ("ramdisk 2: base.disk: usr/lib/b.so",)
    other = enclave.small(ramdisks=(initramfs.archive({"init": File(content=b"x")}), parts[1]))
    assert base_members.differing(EIF, other, built, {}) == (
        "ramdisk 1: bin (missing)",
        "ramdisk 1: bin/tool (missing)",
        "ramdisk 1: init",
    )
    assert eif.parse(built).kernel == enclave.KERNEL
    assert base_members.differing(EIF, b"\x00", built, {}) == ("byte 0",)


@efi.needs_stub
def test_what_differs_in_a_program_and_a_disk_image_is_named():
    initrd, disk = initramfs.archive(FILES), base_disk.write(TREE, folders=()).content
    program = efi.small(initrd=initrd)
    image = disk_image.build(uki=program, base_disk=disk)
    parts = {EFI: program, DISK: disk}
    at = program.index(b"t" * 5000)
    assert base_members.differing(EFI, flipped(program, at), program, parts) == (".initrd: bin/tool",)
    at = image.index(b"t" * 5000)
    assert base_members.differing(IMAGE, flipped(image, at), image, parts) == (
        "EFI/BOOT/BOOTX64.EFI: .initrd: bin/tool",
    )
    at = image.index(b"b" * 100)
    assert base_members.differing(IMAGE, flipped(image, at), image, parts) == (
        "the partition strongroom-base: usr/lib/b.so",
    )
    assert base_members.differing(IMAGE, flipped(image, 520), image, parts) == (
        "what lies around its members, byte 520",
    )
