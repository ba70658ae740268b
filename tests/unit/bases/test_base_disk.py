"""The base's disk and initrd, checked by veritysetup, fsck.erofs and cpio."""

import os
import subprocess
from pathlib import Path

import pytest

from strongroom.bases import disk as base_disk
from strongroom.bases import initramfs
from strongroom.bases.files import File
from strongroom.bases.profile import LOCAL
from strongroom.errors import Malformed
from tests.unit.bases.package_files import module, package_files

TREE = {
    "usr/bin/program": File(content=b"\x7fELF" + bytes(9000), executable=True),
    "usr/lib/one.pyc": File(content=b"one"),
    "etc/empty": File(content=b""),
}


def test_veritysetup_and_fsck_accept_the_disk(tmp_path):
    disk = base_disk.write(TREE, folders=("dev", "proc"))
    path = tmp_path / "base.disk"
    path.write_bytes(disk.content)
    offset = disk.data_blocks * 4096
    subprocess.run(
        ["veritysetup", "verify", path, path, disk.root_hash.hex(), f"--hash-offset={offset}"],
        check=True,
        capture_output=True,
    )
    out = tmp_path / "out"
    subprocess.run(["fsck.erofs", f"--extract={out}", path], check=True, capture_output=True)
    assert (out / "usr/bin/program").read_bytes() == TREE["usr/bin/program"].content
    assert (out / "usr/bin/program").stat().st_mode & 0o7777 == 0o755
    assert (out / "usr/lib/one.pyc").stat().st_mode & 0o7777 == 0o644
    assert sorted(path.name for path in out.iterdir()) == ["dev", "etc", "proc", "usr"]


def test_the_disk_does_not_depend_on_order():
    items = list(TREE.items())
    items.reverse()
    assert base_disk.write(dict(items), folders=("proc", "dev")) == base_disk.write(
        TREE, folders=("dev", "proc")
    )


def test_the_root_hash_is_found_again_and_any_flipped_byte_is_noticed():
    disk = base_disk.write(TREE, folders=())
    assert base_disk.root_hash(disk.content) == (disk.root_hash, disk.data_blocks)
    places = {
        0,
        len(disk.content) - 1,
        disk.data_blocks * 4096,
        *range(7, len(disk.content), 401),
    }
    for place in places:
        broken = bytearray(disk.content)
        broken[place] ^= 1
        assert base_disk.root_hash(bytes(broken)) is None, place


@pytest.mark.parametrize("size", [0, 1, 4096, 8191, 3 * 4096 + 1])
def test_what_is_no_disk_has_no_root_hash(size):
    assert base_disk.root_hash(bytes(size)) is None


def test_cpio_reads_the_initrd(tmp_path):
    data = initramfs.build(package_files(), initramfs.Agent(command=("/agent", "-x")), LOCAL, console=False)
    subprocess.run(["cpio", "-i", "--quiet"], input=data, cwd=tmp_path, check=True)
    script = (tmp_path / "init").read_text()
    assert os.access(tmp_path / "init", os.X_OK)
    assert script.endswith("exec $b env -i PATH=/usr/bin $b switch_root /root /agent -x\n")
    assert "exec </dev/null >/dev/null 2>&1" in script
    assert (tmp_path / "lib/x86_64-linux-gnu/libudev.so.1").read_bytes() == b"libudev.so.1"
    assert (tmp_path / "root").is_dir()
    subprocess.run(["sh", "-n", tmp_path / "init"], check=True)


def test_the_initrd_says_the_numbers_of_its_disk(tmp_path):
    # The table that the script gives to dmsetup is the layout that `base_disk` writes.
    data = initramfs.build(package_files(), initramfs.Agent(command=("/agent",)), LOCAL, console=False)
    assert b"4096 4096 $blocks $((blocks + 1)) sha256 $root - 1 panic_on_corruption" in data


def test_a_console_is_another_initrd():
    agent = initramfs.Agent(command=("/agent",))
    silent = initramfs.build(package_files(), agent, LOCAL, console=False)
    talking = initramfs.build(package_files(), agent, LOCAL, console=True)
    assert silent != talking
    assert b"/dev/console" not in silent


def test_modules_come_behind_what_they_need():
    ordered, release = initramfs.order_modules(package_files(), LOCAL.modules)
    names = [name for name, _ in ordered]
    assert release == "6.1.0-1-cloud-amd64"
    assert names.index("virtio") < names.index("virtio_blk")
    assert names.index("dm_mod") < names.index("dm_bufio") < names.index("dm_verity")
    assert set(LOCAL.modules) < set(names)


KERNEL = "lib/modules/6.1.0-1-cloud-amd64/kernel/drivers"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({f"{KERNEL}/erofs.ko": None}, "the kernel has no usable module erofs"),
        ({f"{KERNEL}/virtio.ko": None}, "the kernel has no usable module virtio"),
        ({f"{KERNEL}/dm-mod.ko": module("dm-verity")}, "the kernel has no usable module dm_verity"),
        ({f"{KERNEL}/xts.ko": File(content=b"no modinfo")}, "no list of dependencies"),
        ({"lib/modules/6.1.0-2-cloud-amd64/kernel/a.ko": module()}, "modules of 2 kernels"),
        ({initramfs.BUSYBOX: None}, "no package has bin/busybox"),
        ({"usr/lib/x86_64-linux-gnu/libm.so.6": None}, "no package has lib/x86_64-linux-gnu/libm.so.6"),
    ],
)
def test_an_initrd_that_could_not_work_is_refused(changed, why):
    with pytest.raises(Malformed, match=why):
        initramfs.build(package_files(**changed), initramfs.Agent(command=("/agent",)), LOCAL, console=False)


def test_busybox_modprobe_reads_the_dependencies(tmp_path):
    data = initramfs.build(package_files(), initramfs.Agent(command=("/agent",)), LOCAL, console=False)
    subprocess.run(["cpio", "-i", "--quiet"], input=data, cwd=tmp_path, check=True)
    folder = next(Path(tmp_path, "lib/modules").iterdir())
    listed = [line.removesuffix(".ko:") for line in (folder / "modules.dep").read_text().splitlines()]
    assert all((folder / f"{name}.ko").is_file() for name in listed)
    assert listed == [name for name, _ in initramfs.order_modules(package_files(), LOCAL.modules)[0]]
