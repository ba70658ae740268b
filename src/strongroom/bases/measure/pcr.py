"""PCRs as a chain of extensions, and the events that UEFI firmware adds to everybody's boot.

Specs: TCG TPM 2.0 Part 1, "TPM2_PCR_Extend"; TCG PC Client Platform Firmware Profile (PFP) 1.06, sections 3.3.4 and 10.4.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from strongroom.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable

BANKS = ("sha256", "sha384")
SEPARATOR = bytes(4)
BOOT_ATTEMPT = b"Calling EFI Application from Boot Option"
EXIT_BOOT_SERVICES = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")

_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_IMAGE_SECURITY = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")


def digest(bank: str, data: bytes) -> bytes:
    """The digest that an event of `data` is extended with. Raises `Misuse` for a bank that nobody quotes."""
    if bank not in BANKS:
        raise Misuse(f"PCR bank {bank[:20]!r}: nobody quotes it", hint=f"one of {', '.join(BANKS)}")
    return hashlib.new(bank, data).digest()


def extended(bank: str, digests: Iterable[bytes]) -> str:
    """A PCR that began as zeros, after `digests` in their order; hexadecimal."""
    value = bytes(hashlib.new(bank).digest_size)
    for extension in digests:
        value = hashlib.new(bank, value + extension).digest()
    return value.hex()


def no_secure_boot(bank: str) -> tuple[str, str]:
    """PCR 7 of firmware with secure boot off and no keys enrolled (PFP 3.3.4.8): where its variable says so, and where
    the firmware, built without secure boot, has no such variable.
    """
    off, absent = (
        extended(bank, [digest(bank, event) for event in (*secure_boot_variables(state), SEPARATOR)])
        for state in (b"\0", b"")
    )
    return off, absent


def secure_boot_variables(state: bytes) -> tuple[bytes, ...]:
    """The events of secure boot's variables where no keys are enrolled. state: the value of the one that says so."""
    variables = (
        (_GLOBAL_VARIABLE, "SecureBoot", state),
        (_GLOBAL_VARIABLE, "PK", b""),
        (_GLOBAL_VARIABLE, "KEK", b""),
        (_IMAGE_SECURITY, "db", b""),
        (_IMAGE_SECURITY, "dbx", b""),
    )
    return tuple(
        owner + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value
        for owner, name, value in variables
    )
