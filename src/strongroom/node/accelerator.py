"""Whether the processor's own virtualisation can be used here: asked by using it."""

from __future__ import annotations

import fcntl
import os

DEVICE = "/dev/kvm"
_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_API = 12


def choose(*, guarded: bool) -> str:
    """`kvm` where a machine can be made, else `tcg`.

    With the memory guard it is `tcg`: the kernel does not map memfd_secret memory into KVM guests.
    """
    return "kvm" if not guarded and kvm_usable() else "tcg"


def kvm_usable() -> bool:
    """Whether a virtual machine can be created (the device's existence alone says little)."""
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if fcntl.ioctl(device, _GET_API_VERSION, 0) != _API:
            return False
        os.close(fcntl.ioctl(device, _CREATE_VM, 0))
    except OSError:
        return False
    finally:
        os.close(device)
    return True
