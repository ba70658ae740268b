"""What the memory guard costs: start of small programs, first touch of memory, boot of a small guest under QEMU.

Run as `python -m tests.bench.bench_guard`. Medians of 3; the rows are printed and returned by `run`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from strongroom.node.guard import launch
from tests.unit.node import tiny_guest, victims

ROUNDS = 3
_TOUCH = (
    "import time; t = time.monotonic(); b = bytearray(b'x') * (64 << 20); print('took', time.monotonic() - t)"
)
_WORK = (
    "import hashlib, os, time; b = os.urandom(1 << 20); hashlib.sha256(b); t = time.monotonic()\n"
    "for _ in range(200): hashlib.sha256(b).digest()\n"
    "print('took', time.monotonic() - t)"
)
_FORK = (
    "import os, time; t = time.monotonic()\n"
    "for _ in range(5):\n"
    "    p = os.fork()\n"
    "    if p == 0: os._exit(0)\n"
    "    os.waitpid(p, 0)\n"
    "print('took', (time.monotonic() - t) / 5)"
)


def started(argv: list[str], marker: bytes, *, guarded: bool) -> tuple[float, bytes]:
    """Seconds from the call until `marker` was printed, and the whole output."""
    out, theirs = os.pipe()
    began = time.monotonic()
    program = (
        launch.spawn(argv, stdin=subprocess.DEVNULL, stdout=theirs)
        if guarded
        else subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs)
    )
    os.close(theirs)
    try:
        text = victims.read_until(out, marker, 120)
        took = time.monotonic() - began
        if marker not in text:
            raise SystemExit(f"no {marker!r} from {argv[0]}: {text[-500:]!r}")
        return took, text
    finally:
        os.close(out)
        program.kill()
        program.wait()


def _inner(program: str, *, guarded: bool) -> float:
    _, text = started([sys.executable, "-I", "-S", "-c", program], b"\n", guarded=guarded)
    return float(text.split()[1])


def _boot(memory: int, *, guarded: bool) -> float:
    return started(tiny_guest.Boot(memory=memory).argv, b"MARKER", guarded=guarded)[0]


def run() -> list[tuple[str, float, float, str]]:
    """Rows (what, plain, guarded, unit), medians."""
    rows = []
    reason = launch.supported()
    if reason:
        raise SystemExit(f"no memory guard here: {reason}")
    measures = [
        ("start of /bin/echo", lambda g: started(["/bin/echo", "ready"], b"ready", guarded=g)[0]),
        ("SHA-256 of 200 MiB", lambda g: _inner(_WORK, guarded=g)),
        ("first touch of 64 MiB", lambda g: _inner(_TOUCH, guarded=g)),
        ("fork of a small Python", lambda g: _inner(_FORK, guarded=g)),
    ]
    if isinstance(tiny_guest.folder(), str):
        print(f"no guest to boot: {tiny_guest.folder()}", file=sys.stderr)
    else:
        measures += [
            ("boot to marker, 256 MiB", lambda g: _boot(256, guarded=g)),
            ("boot to marker, 512 MiB", lambda g: _boot(512, guarded=g)),
        ]
    for name, measure in measures:
        plain, guarded = [], []
        for _ in range(ROUNDS):  # in turns, so that a noisy neighbour hits both
            plain.append(measure(False))
            guarded.append(measure(True))
        rows.append((name, statistics.median(plain), statistics.median(guarded), "s"))
    return rows


def main() -> None:
    """Print the table."""
    print(f"{'memory guard':28} {'plain':>9} {'guarded':>9} {'added':>9} {'ratio':>7}")
    for name, plain, guarded, unit in run():
        print(
            f"{name:28} {plain:8.3f}{unit} {guarded:8.3f}{unit} {guarded - plain:8.3f}{unit} {guarded / plain:6.1f}x"
        )


if __name__ == "__main__":
    main()
