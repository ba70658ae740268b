"""Debian's kernels as they come: whether each has the drivers that its profiles promise, and no more loads than is told."""

import os
import re
import shutil
import struct

import pytest

from strongroom.bases import build, initramfs, inputs
from strongroom.bases import profile as base_profile
from strongroom.bases.packages import debs

SHARED = build.default_cache(dict(os.environ))
pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="not a Debian")

# What a profile stands on, by the kernel's own names.
NEEDED = {
    "local": ("TCG_TIS", "TCG_CRB"),
    "snp": ("SEV_GUEST", "TSM_REPORTS", "CONFIGFS_FS", "AMD_MEM_ENCRYPT"),
    "tdx": ("TDX_GUEST_DRIVER", "TSM_REPORTS", "CONFIGFS_FS", "INTEL_TDX_GUEST"),
    "uki": (
        *("SEV_GUEST", "TDX_GUEST_DRIVER", "TSM_REPORTS", "TCG_TIS", "TCG_CRB", "EFI_STUB", "EFI_PARTITION"),
        *("BLK_DEV_NVME", "SCSI_VIRTIO", "BLK_DEV_SD", "HYPERV", "HYPERV_STORAGE", "PCI_HYPERV"),
    ),
    "nitro": ("NSM", "VSOCKETS", "VIRTIO_VSOCKETS", "VIRTIO_MMIO", "BLK_DEV_NBD", "BLK_DEV_LOOP"),
}
EVERYWHERE = (
    "VIRTIO_BLK",
    "VIRTIO_CONSOLE",
    "HW_RANDOM_VIRTIO",
    "DM_VERITY",
    "DM_CRYPT",
    "EROFS_FS",
    "OVERLAY_FS",
    "USER_NS",
    "EVENT_TRACING",  # the record of failed reads
    "SECURITY_LOCKDOWN_LSM",  # and what closes it
)
_REQUIRES_DEVICE, _ALLOWS_MAPPED_OWNERS = 1, 32  # of the kernel's include/linux/fs.h


@pytest.fixture(scope="module")
def kernels():
    """The files of each profile's packages, and the kernel's configuration; a kernel is unpacked once."""
    configurations: dict[str, dict[str, str]] = {}
    out = {}
    for name, profile in base_profile.PROFILES.items():
        given = build.sources(profile=profile)
        (kernel,) = [deb for deb in given.debs if profile.kernel.pattern.fullmatch(deb.name)]
        if kernel.name not in configurations:
            file = debs.fetch([kernel], SHARED / "debs", inputs.archives(SHARED))[kernel.name]
            found, _, _ = debs.unpack(file, kernel, lambda path: path.startswith("boot/config-"))
            ((_, text),) = found.values()
            configurations[kernel.name] = dict(
                re.findall(r"^CONFIG_(\w+)=(\S+)$", text.decode(), re.MULTILINE)
            )
        out[name] = (build._unpacked(given, SHARED, lambda _: None)[0], configurations[kernel.name], kernel)
    return out


@pytest.mark.parametrize("name", base_profile.PROFILES)
def test_the_kernel_has_every_driver_that_its_profile_needs(kernels, name):
    _, configuration, kernel = kernels[name]
    for option in (*EVERYWHERE, *NEEDED[name]):
        assert configuration.get(option) in {"y", "m"}, f"{kernel.name}: {option}"


@pytest.mark.parametrize("name", base_profile.PROFILES)
def test_what_is_not_built_in_is_in_the_initrd(kernels, name):
    files, _, _ = kernels[name]
    profile = base_profile.PROFILES[name]
    data = initramfs.build(files, build.AGENT, profile, console=False)
    (builtin,) = [file.content for path, file in files.items() if initramfs.BUILT_IN.fullmatch(path)]
    inside = {
        path.rpartition("/")[2].removesuffix(".ko").replace("-", "_") for path in builtin.decode().split()
    }
    for module in profile.all_modules:
        assert f"/{module}.ko\x00".encode() in data or module in inside, module


def test_kernels_are_told_apart_by_what_they_lack(kernels):
    """Facts that comments and decisions state: if Debian changes one, they are to be read again."""
    assert "SEV_GUEST" not in kernels["local"][1]
    assert "TSM_REPORTS" not in kernels["local"][1]
    assert kernels["nitro"][1].get("VIRTIO_MMIO_CMDLINE_DEVICES") is None
    assert kernels["snp"][1]["MODULE_SIG"] == "y"


def test_modules_are_debians_with_their_signatures(kernels):
    for name in ("local", "nitro"):
        files, _, _ = kernels[name]
        modules = [file.content for path, file in files.items() if path.endswith(".ko")]
        assert modules
        assert all(content.endswith(b"~Module signature appended~\n") for content in modules)
        assert all(content.startswith(b"\x7fELF") for content in modules)


def test_the_file_system_of_disks_can_map_their_owners(kernels):
    """Without it no image would have its files' owners in a user namespace, and no room would start (decision 25)."""
    for name in ("local", "nitro"):
        files, _, kernel = kernels[name]
        (module,) = [file.content for path, file in files.items() if path.endswith("/erofs.ko")]
        assert file_system_flags(module, b"erofs_fs_type") == _REQUIRES_DEVICE | _ALLOWS_MAPPED_OWNERS, (
            kernel.name
        )


def file_system_flags(module: bytes, wanted: bytes) -> int:
    """`fs_flags` of a `struct file_system_type` in a kernel module: an ELF file, whose symbols say where it lies."""
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", module, struct.unpack_from("<Q", module, 40)[0] + 64 * index)
        for index in range(struct.unpack_from("<H", module, 60)[0])
    ]
    (symbols,) = [one for one in sections if one[1] == 2]
    names = sections[symbols[6]][4]
    for place in range(symbols[4], symbols[4] + symbols[5], 24):
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", module, place)
        if module[names + name : names + name + len(wanted) + 1] == wanted + b"\x00":
            return struct.unpack_from("<I", module, sections[section][4] + value + 8)[0]
    raise AssertionError(f"no symbol {wanted!r}")
