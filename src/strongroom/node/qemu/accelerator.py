"""Whether the processor's own virtualisation can be used here."""

from __future__ import annotations

import fcntl
import os

DEVICE = "/dev/kvm"
CPUINFO = "/proc/cpuinfo"
_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_API = 12
_EXTENSIONS = (b"vmx", b"svm")
_MAX_CPUINFO = 16 * 1024  # the first processor's flags stand well within


def choose(*, guarded: bool) -> str:
    """`kvm` where a machine can be made, else `tcg`.

    With the memory guard it is `tcg`: the kernel does not map memfd_secret memory into KVM guests.
    """
    return "kvm" if not guarded and kvm_usable() else "tcg"


def kvm_usable(*, device: str = DEVICE, cpuinfo: str = CPUINFO) -> bool:
    """Whether the processor can virtualise and the kernel lets this process make a machine.

    Both are checked: some hosts have a device that opens and makes machines which never run.
    """
    return _processor_virtualises(cpuinfo) and _machine_can_be_made(device)


def _processor_virtualises(cpuinfo: str) -> bool:
    try:
        with open(cpuinfo, "rb") as lines:  # noqa: PTH123 - one read of a kernel file
            flags = next(
                (line.split() for line in lines.read(_MAX_CPUINFO).splitlines() if line[:5] == b"flags"), []
            )
    except OSError:
        return False
    return any(flag in flags for flag in _EXTENSIONS)


def _machine_can_be_made(device: str) -> bool:
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if fcntl.ioctl(kvm, _GET_API_VERSION, 0) != _API:
            return False
        os.close(fcntl.ioctl(kvm, _CREATE_VM, 0))
    except OSError:
        return False
    finally:
        os.close(kvm)
    return True
