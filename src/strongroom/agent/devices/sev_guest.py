"""`/dev/sev-guest`: reports of SEV-SNP by ioctl, on kernels without configfs-tsm (Linux 5.19 and later).

Specs: Linux include/uapi/linux/sev-guest.h; AMD 56860, section 7.3 (MSG_REPORT_RSP: status, size, report at 20h);
AMD 56421, section 4.1.8.1 (the certificate table of an extended request: GUID, offset, length; a zero GUID ends it).

  SNP_GET_EXT_REPORT   tried first: the report, and the certificates that the host hands out with it
  SNP_GET_REPORT       where the host knows no extended request: the report alone
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from strongroom.agent.devices import character
from strongroom.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from strongroom.agent.devices.character import Caller

_REPORT_SIZE = "the kernel's sev-guest is of another version than this base: run it on the kernel of the base"

PATH = "/dev/sev-guest"
REQUEST_BYTES = 32  # struct snp_guest_request_ioctl: version, two pointers, the error
RESPONSE_BYTES = 4000
TABLE_BYTES = 16 * 1024  # what the kernel takes at most (SEV_FW_BLOB_MAX_SIZE)
GET_REPORT = character.both_ways(ord("S"), 0, REQUEST_BYTES)
GET_EXT_REPORT = character.both_ways(ord("S"), 2, REQUEST_BYTES)
LEVELS = range(4)
_MESSAGE_VERSION = 1
_HEAD = 32
_REPORT = 1184


def ask(device: Caller, data: bytes) -> tuple[bytes, bytes]:
    """The report that carries the 64 bytes `data`, and the certificate table, empty where the host gives none.

    The most privileged level (VMPL) that the firmware grants: under a paravisor that is not 0, and the report says so.
    Raises `Unavailable`, or `Malformed` when the answer is none.
    """
    refused: OSError | None = None
    for level in LEVELS:
        request = data + level.to_bytes(4, "little") + bytes(28)
        try:
            return _extended(device, request)
        except OSError as cause:
            refused = cause
        try:
            return _call(device, GET_REPORT, bytearray(request)), b""
        except OSError as cause:
            refused = cause
    raise Unavailable(
        f"asking {PATH} for a report: {refused.strerror if refused else 'no level'}",
        code="sev-guest-failed",
        hint="the kernel's log says what the firmware refused",
    )


def _extended(device: Caller, request: bytes) -> tuple[bytes, bytes]:
    table = bytearray(TABLE_BYTES)
    asked = request + character.word(character.address(table)) + len(table).to_bytes(4, "little") + bytes(4)
    report = _call(device, GET_EXT_REPORT, bytearray(asked))
    return report, bytes(table)


def _call(device: Caller, request: int, asked: bytearray) -> bytes:
    response = bytearray(RESPONSE_BYTES)
    argument = bytearray(
        character.word(_MESSAGE_VERSION)
        + character.word(character.address(asked))
        + character.word(character.address(response))
        + bytes(8)
    )
    device.call(request, argument)
    status = int.from_bytes(response[:4], "little")
    if any(argument[24:]) or status:
        raise OSError(errno.EIO, f"the firmware answered {argument[24:].hex()}, status {status:#x}")
    if int.from_bytes(response[4:8], "little") != _REPORT:
        raise Malformed(
            f"{PATH}: a report of another size than {_REPORT} bytes", code="bad-length", hint=_REPORT_SIZE
        )
    return bytes(response[_HEAD : _HEAD + _REPORT])
