"""Small EFI programs for tests: the real stub, and a unified kernel image around it whose kernel is the stub again."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from strongroom.bases.formats import uki

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
needs_stub = pytest.mark.skipif(not STUB.exists(), reason="systemd-boot-efi is not installed")

INITRD = b"070701" + bytes(range(256)) * 20
CMDLINE = b"quiet panic=-1 strongroom.root=" + b"5" * 64
OSREL = b'ID=strongroom\nVERSION_ID="1"\n'
UNAME = b"6.1.0-54-cloud-amd64"


@functools.cache
def stub() -> bytes:
    return STUB.read_bytes()


def small(**changed: bytes) -> bytes:
    parts = {
        "stub": stub(),
        "kernel": stub(),
        "initrd": INITRD,
        "cmdline": CMDLINE,
        "osrel": OSREL,
        "uname": UNAME,
    }
    return uki.build(**{**parts, **changed})
