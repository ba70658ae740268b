"""The profiles of the base: for each platform a kernel, the modules that its initrd loads, the options of its command line.

The base's tree and disk are the same for all: what differs is how a machine comes to read it. `modules` must load, or
the machine ends; `drivers` load where the machine has what they drive (Linux refuses them elsewhere) and are tried in turn;
`fast` are quicker forms of what is built in, not tried under emulation. After that no module can ever be loaded.

Facts of Debian's kernels that decide here, each held by a test against the real packages:
  6.1 cloud    unpacks fast under emulation; no driver of SNP, TDX or Nitro
  6.12 cloud   SEV_GUEST, TDX_GUEST_DRIVER, TSM_REPORTS, NSM are modules; TPM, NVMe, virtio over PCI and its console built in.
               NBD takes TCP and UNIX sockets only. Virtio over MMIO is found by ACPI, not by words of the command line.
  both         have tracepoints, which lockdown's integrity lets the initrd set up, and its confidentiality lets nobody
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from strongroom.errors import Misuse


class Find(StrEnum):
    """How the initrd finds the base's disk. The root hash decides; a wrong disk is only a machine that ends."""

    SERIAL = "serial"  # a virtio disk with the serial number that the node gives it
    PARTITION = "partition"  # that, or a partition of the right name on any disk; drivers may take seconds
    RAMDISK = "ramdisk"  # a file beside the initrd: Nitro enclaves have no disks


@dataclass(frozen=True, kw_only=True)
class KernelSeries:
    """A series of Debian kernels: the names of its packages (numbers in groups say which is newest), and their suite."""

    pattern: re.Pattern[str]
    suite: str


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One platform. `end` is the busybox command that ends the machine when anything fails."""

    name: str
    kernel: KernelSeries
    modules: tuple[str, ...]
    drivers: tuple[str, ...] = ()
    fast: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    find: Find = Find.SERIAL
    end: str = "poweroff -f"
    uki: bool = False
    eif: bool = False

    @property
    def all_modules(self) -> tuple[str, ...]:
        """Every module that the initrd may load, in its order."""
        return (*self.modules, *self.drivers, *self.fast)


RELEASE = "bookworm"  # the release, its updates and its security archive: one suite to a base
BACKPORTS = "bookworm-backports"
EMULATED = KernelSeries(pattern=re.compile(r"linux-image-6\.1\.0-([0-9]+)-cloud-amd64"), suite=RELEASE)
HARDWARE = KernelSeries(
    pattern=re.compile(r"linux-image-6\.12\.([0-9]+)\+deb12(?:\.([0-9]+))?-cloud-amd64"), suite=BACKPORTS
)

# SHA-256 and AES are built in, in C.
_EVERYWHERE = ("virtio_blk", "virtio_rng", "dm_verity", "dm_crypt", "erofs", "overlay", "ecb", "xts")
_FAST = ("sha256_ssse3", "aesni_intel")

LOCAL = Profile(
    name="local",
    kernel=EMULATED,
    modules=("virtio_pci", "virtio_blk", "virtio_console", *_EVERYWHERE[1:]),
)
# The host writes the ACPI tables and nothing measures them: their bytecode is not run, which leaves one processor and no
# way to power off (decision 0018).
SNP = Profile(
    name="snp",
    kernel=HARDWARE,
    modules=("virtio_pci", "virtio_console", *_EVERYWHERE, "configfs", "tsm"),
    drivers=("sev_guest",),
    fast=_FAST,
    options=("acpi=off", "reboot=k"),
    end="reboot -f",
)
TDX = Profile(
    name="tdx",
    kernel=HARDWARE,
    modules=("virtio_pci", "virtio_console", *_EVERYWHERE, "configfs", "tsm"),
    drivers=("tdx_guest",),
    fast=_FAST,
)
# Confidential VMs of clouds: the firmware is theirs, so is the choice of disk controller. All have a TPM or a device of the
# processor's; the TPM's drivers are built in.
UKI = Profile(
    name="uki",
    kernel=HARDWARE,
    modules=("virtio_pci", "virtio_console", *_EVERYWHERE, "configfs", "tsm", "nvme", "scsi_mod", "sd_mod"),
    drivers=(
        *("virtio_scsi", "hv_vmbus", "pci_hyperv", "hv_storvsc"),
        *("sev_guest", "tdx_guest"),
    ),
    fast=_FAST,
    find=Find.PARTITION,
    uki=True,
)
# An enclave ends when it resets: there is nothing that powers off.
NITRO = Profile(
    name="nitro",
    kernel=HARDWARE,
    modules=(
        *("virtio_mmio", "virtio_console", *_EVERYWHERE[1:]),
        *("nsm", "vsock", "vmw_vsock_virtio_transport", "nbd", "loop"),
    ),
    fast=_FAST,
    options=("reboot=k", "pci=off", "random.trust_cpu=on"),
    find=Find.RAMDISK,
    end="reboot -f",
    eif=True,
)
PROFILES = {profile.name: profile for profile in (LOCAL, UKI, SNP, TDX, NITRO)}


def named(names: str) -> tuple[Profile, ...]:
    """The profiles of a list like "local,snp", each once, in the order of the table. Raises `Misuse`."""
    words = [word.strip() for word in names.split(",")]
    for word in words:
        if word not in PROFILES:
            raise Misuse(
                f"--for: {word[:40]!r} is no profile",
                hint=f"one or more of {', '.join(PROFILES)}, with commas",
            )
    return tuple(profile for name, profile in PROFILES.items() if name in words)
