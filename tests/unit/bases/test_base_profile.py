"""Profiles by name, and what their initrds and command lines are told."""

import re
import subprocess

import pytest

from strongroom.bases import build, disk, initramfs
from strongroom.bases import profile as base_profile
from strongroom.bases.files import File
from strongroom.bases.profile import LOCAL, NITRO, PROFILES, SNP, UKI
from strongroom.errors import Malformed, Misuse
from tests.unit.bases import package_files

DISK = disk.write({"file": File(content=b"x" * 5000)}, folders=())
AGENT = initramfs.Agent(command=("/agent",))
ROOT = f"strongroom.root={DISK.root_hash.hex()} strongroom.blocks={DISK.data_blocks}"


def files(profile, *, builtin=()):
    """Packages with a module for each name but those that the kernel has built in."""
    folder = "lib/modules/6.12.1/kernel"
    out = {path: file for path, file in package_files.package_files().items() if "/modules/" not in path}
    for name in set(profile.all_modules) - set(builtin):
        out[f"{folder}/drivers/{name}.ko"] = package_files.module()
    text = "".join(f"kernel/drivers/{name.replace('_', '-')}.ko\n" for name in builtin)
    out["lib/modules/6.12.1/modules.builtin"] = File(content=text.encode())
    return out


def script(profile, **kernel) -> str:
    data = initramfs.build(files(profile, **kernel), AGENT, profile, console=False)
    done = subprocess.run(
        ["cpio", "-i", "--quiet", "--to-stdout", "init"], input=data, check=True, capture_output=True
    )
    subprocess.run(["sh", "-n"], input=done.stdout, check=True)
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("local", ["local"]),
        ("nitro,local", ["local", "nitro"]),
        (" snp , snp ", ["snp"]),
        ("tdx,uki", ["uki", "tdx"]),
    ],
)
def test_profiles_are_had_by_name(words, names):
    assert [one.name for one in base_profile.named(words)] == names


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "'' is no profile"),
        ("sgx", "'sgx' is no profile"),
        ("local,", "'' is no profile"),
        ("LOCAL", "'LOCAL' is no profile"),
        ("local snp", "'local snp' is no profile"),
    ],
)
def test_other_names_are_refused(words, why):
    with pytest.raises(Misuse, match=why):
        base_profile.named(words)


def test_the_local_command_line_is_what_contracts_have_known():
    assert build.command_line(DISK, debug=False) == (
        "quiet loglevel=0 panic=-1 oops=panic lockdown=integrity cryptomgr.notests audit=0 "
        f"8250.nr_uarts=0 console=none {ROOT}"
    )


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_no_profile_is_softer_than_the_local_one(profile):
    words = build.command_line(DISK, debug=False, profile=profile).split(" ")
    assert set(build.command_line(DISK, debug=False).split(" ")) <= set(words)
    assert [word for word in words if word.startswith("console=")] == ["console=none"]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_nothing_loads_after_the_door_is_closed(profile):
    text = script(profile)
    head, closed, tail = text.partition("echo 1 >/proc/sys/kernel/modules_disabled\n")
    assert closed
    assert "modprobe" not in tail
    loaded = re.search(r"modprobe -a (.*)\n", head)[1].split(" ")
    assert loaded == list(profile.modules)
    if profile.drivers:
        assert f"for driver in {' '.join(profile.drivers)}; do $b modprobe $driver || :; done" in head
    if profile.fast:
        assert f"'QEMU TCG' /proc/cpuinfo || for driver in {' '.join(profile.fast)}; do" in head


def test_what_is_built_in_is_not_loaded_and_what_is_nowhere_is_refused():
    assert "modprobe -a virtio_console " in script(SNP, builtin=["virtio_pci"])
    with pytest.raises(Malformed, match="the kernel has no usable module configfs"):
        initramfs.build(files(LOCAL), AGENT, SNP, console=False)


def test_each_finds_its_disk_in_its_way():
    assert 'cat "$device/serial")" = base' in script(SNP)
    assert "PARTNAME=strongroom-base" in script(UKI)
    assert "losetup -r $disk /base.disk" in script(NITRO)
    assert "trap 'exec /bin/busybox reboot -f' EXIT" in script(NITRO)
    ramdisk = initramfs.ramdisk(b"disk")
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=ramdisk, check=True, capture_output=True)
    assert listed.stdout == b"base.disk\n"
    assert (
        len(initramfs.build(files(NITRO), AGENT, NITRO, console=False)) % 4 == 0
    )  # the two lie side by side
