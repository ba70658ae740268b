"""Bootable disks: other people's tools find no fault, and find the files."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid

import pytest

from strongroom.bases.formats import disk_image, fat, gpt
from strongroom.errors import Malformed

MIB = 1 << 20
UKI = bytes(range(256)) * 9000 + b"tail"
BASE = b"base" * MIB


def run(*command: object) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("disk") / "strongroom.img"
    path.write_bytes(disk_image.build(uki=UKI, base_disk=BASE))
    return path


def test_sgdisk_finds_no_fault(disk):
    assert "No problems found" in run("sgdisk", "-v", disk)
    shown = run("sgdisk", "-i", "2", disk)
    assert "Partition name: 'strongroom-base'" in shown
    assert str(disk_image.BASE_TYPE).upper() in shown
    assert "EFI system partition" in run("sgdisk", "-i", "1", disk)


def test_sfdisk_finds_no_fault(disk):
    assert "No errors detected" in run("sfdisk", "--verify", disk)


def test_sgdisk_finds_the_fault_in_one_changed_byte(disk, tmp_path):
    changed = bytearray(disk.read_bytes())
    changed[2 * 512 + 60] ^= 1  # a name in the table
    (tmp_path / "changed").write_bytes(changed)
    done = subprocess.run(
        ["sgdisk", "-v", str(tmp_path / "changed")], capture_output=True, text=True, check=False
    )
    assert "No problems found" not in done.stdout


def test_fsck_finds_no_fault(disk, tmp_path):
    size = 34 * MIB
    (tmp_path / "boot").write_bytes(disk.read_bytes()[MIB : MIB + size])
    said = run("fsck.vfat", "-n", "-v", tmp_path / "boot")
    assert "32 bit entries" in said
    assert "3 files" in said
    for word in ("differ", "corrupt", "wrong", "Free cluster summary"):
        assert word not in said


def test_mtools_find_the_image(disk, tmp_path):
    run("mcopy", "-n", "-i", f"{disk}@@1M", "::/EFI/BOOT/BOOTX64.EFI", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == UKI


def test_the_disk_is_whole_mebibytes_and_ends_with_the_base(disk):
    content = disk.read_bytes()
    assert len(content) % MIB == 0
    assert content[-MIB - len(BASE) : -MIB] == BASE
    assert len(content) == (1 + 34 + 4 + 1) * MIB


def test_same_parts_same_bytes_and_other_parts_other_numbers(disk, monkeypatch):
    content = disk.read_bytes()
    for module, name in ((time, "time"), (time, "time_ns"), (os, "urandom"), (os, "getpid"), (uuid, "uuid4")):
        monkeypatch.setattr(module, name, lambda *_, name=name: pytest.fail(f"{name} was asked"))
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    assert disk_image.build(uki=UKI, base_disk=BASE) == content
    other = disk_image.build(uki=UKI, base_disk=BASE[:-1] + b"x")
    assert other[512:1024] != content[512:1024]
    assert disk_image.build(uki=UKI[:-1], base_disk=BASE)[MIB + 67 : MIB + 71] != content[MIB + 67 : MIB + 71]


def test_a_larger_image_gets_a_larger_partition():
    large = disk_image.build(uki=bytes(60 * MIB), base_disk=BASE)
    assert len(large) == (1 + 62 + 4 + 1) * MIB


@pytest.mark.parametrize("size", [33 * MIB, 34 * MIB, 34 * MIB + 512 * 7, 100 * MIB])
def test_volumes_of_several_sizes(tmp_path, size):
    files = {"A": b"", "EFI/X.TXT": b"x" * 512, "EFI/BOOT/Y": b"y" * 513, "EFI/BOOT/Z_-1.ABC": b"z"}
    (tmp_path / "v").write_bytes(fat.build(files, size=size))
    said = run("fsck.vfat", "-n", "-v", tmp_path / "v")
    assert "differ" not in said
    for path, content in files.items():
        run("mcopy", "-n", "-i", tmp_path / "v", f"::/{path}", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == content
        (tmp_path / "out").unlink()


@pytest.mark.parametrize(
    ("files", "size", "why"),
    [
        ({"a": b""}, 34 * MIB, "'a' is not an upper-case 8.3 name"),
        ({"TOO-LONG-A-NAME": b""}, 34 * MIB, "'TOO-LONG-A-NAME' is not an upper-case 8.3 name"),
        ({"A/": b""}, 34 * MIB, "'' is not an upper-case 8.3 name"),
        ({"A": b"", "A/B": b""}, 34 * MIB, "A is a file and a folder"),
        ({f"F{number}": b"" for number in range(17)}, 34 * MIB, "more than 16 entries in a folder"),
        ({"A": bytes(34 * MIB)}, 34 * MIB, "the files do not fit into"),
        ({"A": b""}, 32 * MIB, "33554432 bytes are too few for FAT32"),  # would be FAT16 to every reader
        ({"A": b""}, 34 * MIB + 1, "a volume of"),
        ({"A": b""}, 0, "a volume of 0 bytes"),
        ({"A": b""}, 2 << 30, "a volume of"),
    ],
)
def test_volumes_that_cannot_be_are_refused(files, size, why):
    with pytest.raises(Malformed, match=why):
        fat.build(files, size=size)


def test_tables_that_cannot_be_are_refused():
    one = gpt.Partition(label="x", type=uuid.UUID(int=1), content=b"x")
    for bad, why in (
        ([], "0 partitions"),
        ([one] * 129, "129 partitions"),
        (
            [gpt.Partition(label="x" * 37, type=one.type, content=b"x")],
            "partition 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' has",
        ),
        ([gpt.Partition(label="", type=one.type, content=b"x")], "partition '' has no place"),
        ([gpt.Partition(label="x", type=one.type, content=b"")], "partition 'x' has no place"),
    ):
        with pytest.raises(Malformed, match=why):
            gpt.build(bad)
