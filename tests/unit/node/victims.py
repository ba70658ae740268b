"""A program that holds a canary in every kind of memory, and looking at processes from outside."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Reads a hex canary from standard input, keeps the bytes on the heap, in a big block, on the stack of the
# main thread and of another, and prints "ready". The year goes to libc's static buffer of asctime (.bss).
PROGRAM = r"""
import ctypes, sys, threading, time
libc = ctypes.CDLL(None)
line, year = sys.stdin.readline().split()
canary = bytes.fromhex(line)
del line
heap = [canary + b"%d" % number for number in range(100)]
big = bytearray(canary * ((4 << 20) // len(canary)))
class Moment(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in "sec min hour day month year wday yday dst pad".split()]
    zone = ctypes.c_void_p
libc.asctime.restype = ctypes.c_void_p
libc.asctime(ctypes.byref(Moment(0, 0, 0, 1, 1, int(year) - 1900, 1, 1, 0)))
class Block(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char * 4096)]
def hold(seconds):
    # A structure this large is passed by value on the stack.
    libc.sleep.argtypes = [ctypes.c_uint, Block]
    libc.sleep(seconds, Block(canary * 32))
threading.Thread(target=hold, args=(300,), daemon=True).start()
time.sleep(0.2)
print("ready", flush=True)
hold(300)
"""


def argv() -> list[str]:
    return [sys.executable, "-I", "-S", "-c", PROGRAM]


def until(holds: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether that comes to hold; waits for it no longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def in_session(session: int) -> list[int]:
    """The processes of a session that are not zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


def wait_until_gone(session: int, seconds: float = 10.0) -> list[int]:
    """Wait for a session to end; returns what is left of it."""
    deadline = time.monotonic() + seconds
    while (left := in_session(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def read_until(fd: int, marker: bytes, seconds: float = 60.0) -> bytes:
    """Read a descriptor until `marker` came or it ended."""
    os.set_blocking(fd, False)
    deadline = time.monotonic() + seconds
    data = b""
    while marker not in data and time.monotonic() < deadline:
        try:
            more = os.read(fd, 65536)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        if not more:
            break
        data += more
    return data


def names(folder: str) -> list[str]:
    """What is in a folder of /proc."""
    return [entry.name for entry in Path(folder).iterdir()]


def link(path: str) -> str:
    """What a link of /proc says."""
    return str(Path(path).readlink())
