"""A program that makes system calls of a test's choice and writes what each returned: static, of a few bytes, for any root.

`program(calls)` gives the ELF file; it writes 56 bytes for each call to its standard output, which `answers` reads.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

BASE = 0x400000
_HEADERS = 64 + 56
_ROW = 56

# For each row of the table: number into rax, arguments into rdi, rsi, rdx, r10, r8, r9; what it returned into the row.
_EACH = bytes.fromhex("488b03 488b7b08 488b7310 488b5318 4c8b5320 4c8b4328 4c8b4b30 0f05 488903 4883c338")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call. Arguments that are bytes are passed as the address of these bytes."""

    name: str
    number: int
    arguments: tuple[int | bytes, ...] = ()


def program(calls: tuple[Call, ...]) -> bytes:
    """The ELF file: headers, code, table of calls, and what their arguments point to."""
    code_size = len(_code(table=0, count=1))
    table = BASE + _HEADERS + code_size
    kept = bytearray()
    rows = b""
    for call in calls:
        values = [call.number]
        for argument in call.arguments:
            if isinstance(argument, bytes):
                values.append(table + len(calls) * _ROW + len(kept))
                kept += argument + b"\0"
            else:
                values.append(argument & 0xFFFFFFFFFFFFFFFF)
        rows += struct.pack("<7Q", *values, *(0,) * (7 - len(values)))
    body = _code(table=table, count=len(calls)) + rows + bytes(kept)
    size = _HEADERS + len(body)
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, size, 4096)
    return head + segment + body


def _code(*, table: int, count: int) -> bytes:
    begin = b"\x48\xbb" + struct.pack("<Q", table) + b"\x41\xbf" + struct.pack("<I", count)  # rbx, r15d
    turn = b"\x41\xff\xcf\x75" + struct.pack("<b", -(len(_EACH) + 5))  # dec r15d; jnz to the first of them
    write = b"\xb8\1\0\0\0\xbf\1\0\0\0\x48\xbe" + struct.pack("<Q", table)
    write += b"\xba" + struct.pack("<I", count * _ROW) + b"\x0f\x05"
    leave = b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"
    return begin + _EACH + turn + write + leave


def answers(calls: tuple[Call, ...], written: bytes) -> dict[str, str]:
    """By name, `ok` or the error's name."""
    if len(written) != len(calls) * _ROW:
        raise AssertionError(f"{len(written)} bytes for {len(calls)} calls")
    values = [struct.unpack_from("<q", written, at * _ROW)[0] for at in range(len(calls))]
    return {
        call.name: "ok" if value >= 0 else errno.errorcode[-value]
        for call, value in zip(calls, values, strict=True)
    }


def _open(path: str, flags: int) -> Call:
    return Call(name=f"open {path}", number=2, arguments=(path.encode(), flags))


def _node(kind: str, mode: int, major: int, minor: int) -> Call:
    return Call(name=f"make a {kind} device", number=133, arguments=(b"/tmp/device", mode | 0o600, major << 8 | minor))  # fmt: skip


_INET = struct.pack(">HH", 0x0200, 80)  # family (little-endian 2), port 80
_HOST = _INET + bytes((10, 0, 2, 2)) + bytes(8)  # QEMU's own address for the host
_ABROAD = _INET + bytes((192, 0, 2, 1)) + bytes(8)
_ABROAD_6 = struct.pack(">HHI", 0x0A00, 80, 0) + bytes.fromhex("20010db8" + "00" * 11 + "01") + bytes(4)
_THIRD = 3  # the first descriptor after the standard ones; `close` before each socket keeps it so

# What nobody in a room may do, whoever they are: what to try, and the errors of which it must fail with one.
NETWORK: tuple[tuple[Call, set[str]], ...] = (
    (Call(name="close the rest", number=436, arguments=(3, 0xFFFFFFFF, 0)), {"ok"}),
    (Call(name="a TCP socket", number=41, arguments=(2, 1, 0)), {"ok"}),
    (Call(name="connect to the host", number=42, arguments=(_THIRD, _HOST, 16)), {"ENETUNREACH"}),
    (Call(name="connect abroad", number=42, arguments=(_THIRD, _ABROAD, 16)), {"ENETUNREACH"}),
    (Call(name="close it", number=3, arguments=(_THIRD,)), {"ok"}),
    (Call(name="a UDP socket", number=41, arguments=(2, 2, 0)), {"ok"}),
    (Call(name="send abroad", number=44, arguments=(_THIRD, b"data", 4, 0, _ABROAD, 16)), {"ENETUNREACH"}),
    (Call(name="close that", number=3, arguments=(_THIRD,)), {"ok"}),
    (Call(name="an IPv6 socket", number=41, arguments=(10, 1, 0)), {"ok"}),
    (Call(name="connect abroad by IPv6", number=42, arguments=(_THIRD, _ABROAD_6, 28)), {"ENETUNREACH"}),
    (Call(name="a raw socket", number=41, arguments=(2, 3, 1)), {"EPERM"}),
    (Call(name="a packet socket", number=41, arguments=(17, 3, 0)), {"EAFNOSUPPORT"}),
    (Call(name="a socket to the machine's host", number=41, arguments=(40, 1, 0)), {"EAFNOSUPPORT"}),
    (Call(name="a socket to the kernel's ciphers", number=41, arguments=(38, 5, 0)), {"EAFNOSUPPORT"}),
)
DEVICES: tuple[tuple[Call, set[str]], ...] = (
    (_node("block", 0o060000, 254, 0), {"EPERM"}),
    (_node("character", 0o020000, 1, 1), {"EPERM"}),
    *(
        (_open(f"/dev/{name}", 0), {"ENOENT"})
        for name in ("mem", "kmsg", "port", "vda", "vdb", "vport0p1", "vport1p1", "vsock", "tpm0", "dm-0", "ptmx",
                     "mapper/control", "loop-control", "fuse", "kvm")
    ),
    (_open("/proc/sys/kernel/core_pattern", 1), {"EACCES", "EPERM", "ENOENT", "EROFS"}),
)  # fmt: skip
RIGHTS: tuple[tuple[Call, set[str]], ...] = (
    (_open("/proc/1/mem", 2), {"EACCES", "EPERM", "ENOENT"}),
    (_open("/proc/1/environ", 0), {"EACCES", "EPERM", "ENOENT"}),
    (_open("/proc/1/root/init", 0), {"EACCES", "EPERM", "ENOENT"}),
    (Call(name="become another user", number=105, arguments=(4242,)), {"EPERM", "EINVAL"}),
    (Call(name="drop its groups", number=116, arguments=(0, 0)), {"EPERM"}),
    (Call(name="mount", number=165, arguments=(b"none", b"/tmp", b"tmpfs", 0, 0)), {"EPERM"}),
    (Call(name="another root", number=161, arguments=(b"/tmp",)), {"EPERM"}),
    (Call(name="a user namespace", number=272, arguments=(0x10000000,)), {"EPERM"}),
    (Call(name="trace its init", number=101, arguments=(16, 1, 0, 0)), {"EPERM"}),
    (Call(name="load a module", number=175, arguments=(b"", 0, b"")), {"EPERM"}),
    (Call(name="another kernel", number=246, arguments=(0, 0, 0, 0)), {"EPERM"}),
    (Call(name="switch off", number=169, arguments=(0xFEE1DEAD, 672274793, 0x4321FEDC, 0)), {"EPERM"}),
    (Call(name="a BPF program", number=321, arguments=(5, b"", 0)), {"EPERM"}),
    (Call(name="ports", number=172, arguments=(3,)), {"EPERM"}),
    (Call(name="the clock", number=164, arguments=(bytes(16), 0)), {"EPERM"}),
    (Call(name="the kernel's log", number=103, arguments=(3, b"", 0)), {"EPERM"}),
    (Call(name="keys", number=250, arguments=(0, 0, 0)), {"EPERM"}),
    (Call(name="a ring of calls", number=425, arguments=(1, 0)), {"EPERM"}),
)
FORBIDDEN = (*NETWORK, *DEVICES, *RIGHTS)
