"""The seccomp filter of a guarded program: which system calls stop for the guardian.

Every stop costs two context switches, so the filter decides all that it can by itself. It knows one
secret of the layout: new secret mappings are placed in a window of addresses, so that a call that
concerns only them is seen by its address. Nothing in here trusts the program to behave; a call that
the filter does not understand (another instruction set, a newer futex interface) is refused.
"""

from __future__ import annotations

import struct

# Where the guardian places new secret mappings: between where Linux puts position-independent
# programs (0x55…) and libraries (0x7f…).
WINDOW_START = 0x6000_0000_0000
WINDOW_END = 0x7000_0000_0000

# The page of the guardian's own code in the program; calls made from it are not looked at.
STUB = 0x10_0000
STUB_CODE = 4096

_ARCH = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000
_ALLOW, _TRACE, _ERRNO, _KILL = 0x7FFF0000, 0x7FF00000, 0x00050000, 0x80000000
_ENOMEM, _ENOSYS = 12, 38

MMAP, MPROTECT, BRK, MREMAP, FUTEX, PKEY_MPROTECT = 9, 10, 12, 25, 202, 329
# clone3 takes its flags from memory, which nobody can read once it is secret: libraries fall back to
# clone. The futex2 calls would need the treatment of futex; libraries fall back to futex.
_ABSENT = (435, 449, 454, 455, 456)

_PRIVATE_FUTEX = 128
_NR, _ARCHITECTURE, _IP = 0, 4, 8
_Step = tuple[str, int, str]


def _low(argument: int) -> int:
    return 16 + 8 * argument


def _high(argument: int) -> int:
    return 20 + 8 * argument


_STEPS: tuple[_Step | str, ...] = (
    ("load", _ARCHITECTURE, ""),
    ("unless", _ARCH, "kill"),
    ("load", _IP + 4, ""),
    ("unless", 0, "program"),
    ("load", _IP, ""),
    ("below", STUB, "program"),
    ("from", STUB + STUB_CODE, "program"),
    ("return", _ALLOW, ""),
    "program",
    ("load", _NR, ""),
    ("from", _X32, "absent"),
    ("if", MMAP, "mmap"),
    ("if", BRK, "trace"),
    ("if", MREMAP, "mremap"),
    ("if", MPROTECT, "mprotect"),
    ("if", PKEY_MPROTECT, "mprotect"),
    ("if", FUTEX, "futex"),
    *(("if", number, "absent") for number in _ABSENT),
    ("return", _ALLOW, ""),
    "mmap",
    # Shared mappings are the program's own wish. Private ones: anonymous, or of a file and writable.
    ("load", _low(3), ""),
    ("mask", 0xF, ""),
    ("unless", 2, "allow"),
    ("load", _low(3), ""),
    ("any", 0x20, "anonymous"),
    ("load", _low(2), ""),
    ("mask", 6, ""),
    ("if", 2, "trace"),
    ("return", _ALLOW, ""),
    "anonymous",
    # Executable memory cannot be secret: code that a program writes for itself stays ordinary.
    ("load", _low(2), ""),
    ("any", 4, "allow"),
    ("return", _TRACE, ""),
    "mprotect",
    ("load", _low(2), ""),
    ("any", 4, "trace"),
    ("any", 2, "writable"),
    ("return", _ALLOW, ""),
    "writable",
    ("load", _high(0), ""),
    ("below", WINDOW_START >> 32, "trace"),
    ("from", WINDOW_END >> 32, "trace"),
    ("return", _ALLOW, ""),
    "mremap",
    # A secret mapping cannot grow: its file has a fixed size. Libraries then copy.
    ("load", _high(0), ""),
    ("below", WINDOW_START >> 32, "trace"),
    ("from", WINDOW_END >> 32, "trace"),
    ("return", _ERRNO | _ENOMEM, ""),
    "futex",
    ("load", _low(1), ""),
    ("any", _PRIVATE_FUTEX, "allow"),
    ("return", _TRACE, ""),
    "trace",
    ("return", _TRACE, ""),
    "absent",
    ("return", _ERRNO | _ENOSYS, ""),
    "kill",
    ("return", _KILL, ""),
    "allow",
    ("return", _ALLOW, ""),
)

# Classic BPF: opcode, and whether the jump is taken when the comparison holds.
_CODES = {
    "load": 0x20,
    "mask": 0x54,
    "return": 0x06,
    "if": 0x15,
    "unless": 0x15,
    "from": 0x35,
    "below": 0x35,
    "any": 0x45,
}


def program() -> bytes:
    """The filter as an array of `struct sock_filter`, 8 bytes each."""
    places: dict[str, int] = {}
    count = 0
    for step in _STEPS:
        if isinstance(step, str):
            places[step] = count
        else:
            count += 1
    code = bytearray()
    for number, (name, value, target) in enumerate(step for step in _STEPS if not isinstance(step, str)):
        distance = places[target] - number - 1 if target else 0
        holds, fails = (0, distance) if name in {"unless", "below"} else (distance, 0)
        code += struct.pack("<HBBI", _CODES[name], holds, fails, value)
    return bytes(code)
