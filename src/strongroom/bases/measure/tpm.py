"""Local rooms and TPMs: the registers predicted from a base's files.

Spec: TCG PC Client Platform TPM Profile, "H-CRTM before TPM2_Startup"; TPM 2.0 Part 1, `_TPM_Hash_*`.
The node measures the launch record before the guest's first instruction, so that PCR 0 begins as
SHA-256(0…04 ‖ SHA-256(record)). SeaBIOS then extends PCR 0 to 7 with its own events; these are in the event log,
and replaying them is the verifier's work (`evidence.tpm`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.model.room.launch import LaunchRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

# Locality 4: an H-CRTM event came before start-up.
_H_CRTM_START = bytes(31) + b"\x04"


def hcrtm_pcr0(record: bytes) -> bytes:
    """PCR 0 (SHA-256 bank, 32 bytes) when the TPM has started after the H-CRTM event `record`."""
    return hashlib.sha256(_H_CRTM_START + hashlib.sha256(record).digest()).digest()


def launch_record(
    *, firmware: bytes, kernel: bytes, initrd: bytes, cmdline: bytes, machine: str, memory_guard: bool
) -> LaunchRecord:
    """The record that an honest node writes for these whole files. machine: QEMU's machine type, `q35`."""
    return LaunchRecord(
        firmware=digest.sha256(firmware),
        kernel=digest.sha256(kernel),
        initrd=digest.sha256(initrd),
        cmdline=digest.sha256(cmdline),
        machine=machine,
        memory_guard=memory_guard,
    )


def from_reference(reference: Mapping[str, str], *, memory_guard: bool) -> LaunchRecord:
    """The record behind the reference registers of a contract."""
    return LaunchRecord(
        firmware=reference["firmware"],
        kernel=reference["kernel"],
        initrd=reference["initrd"],
        cmdline=reference["cmdline"],
        machine=reference["machine"],
        memory_guard=memory_guard,
    )
