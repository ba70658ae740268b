"""How fast a disk is sealed and verified, against what one core does with AES-XTS and SHA-256 alone; and in what memory.

The disks lie in memory (/dev/shm) where there is room, so that no storage is measured; a second row says what the
storage makes of it. The yardstick is taken anew before every run, on the same machine in the same state: seconds for
one buffer through AES-256-XTS in one go, and then SHA-256 in one go, on one core.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from strongroom.crypto import sign
from strongroom.seal import disk, folder

SIZE = 512 << 20
LARGE = 2 << 30
ROUNDS = 5
KEY = bytes(range(64))
GB = 1e9

# In a process of its own, so that its peak memory is the seal's alone.
PEAK = """
import re, resource, sys
from pathlib import Path
from tests.bench import bench_seal
bench_seal.seal(Path(sys.argv[1]), Path(sys.argv[2]))
# Not ru_maxrss of this process: that starts with what its parent had before exec.
own = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(max(int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


def run() -> list[tuple[str, str, str]]:
    """Rows of (what, measured, aim)."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 3 * SIZE
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as name:
        work = Path(name)
        source = _source(work, SIZE)
        plain, sealed, verified, undisturbed = [], [], [], []
        for index in range(ROUNDS):
            plain.append(_yardstick())
            begin, spent = time.perf_counter(), _processor_seconds()
            made = seal(source, work / f"{index}.disk")
            sealed.append(made.data_bytes / (time.perf_counter() - begin) / GB)
            undisturbed.append(2 * made.data_bytes / (_processor_seconds() - spent) / GB)
            begin = time.perf_counter()
            disk.verify(work / f"{index}.disk", made)
            verified.append(made.data_bytes / (time.perf_counter() - begin) / GB)
            (work / f"{index}.disk").unlink()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = _source(work, SIZE)
        os.sync()
        begin = time.perf_counter()
        made = seal(source, work / "f.disk")
        stored = made.data_bytes / (time.perf_counter() - begin) / GB
    base = statistics.median(plain)
    return [
        ("one core, AES-XTS then SHA-256", f"{base:.2f} GB/s", "the yardstick"),
        ("seal", _against(sealed, plain), "≥ 70 % of one core"),
        ("seal, by CPU time on two free cores", _against(undisturbed, plain), "upper bound"),
        ("verify", _against(verified, plain), "≥ 70 % of one core"),
        ("seal to this storage, with fsync", f"{stored:.2f} GB/s", "as the storage allows"),
        (
            "load average (1 min), cores",
            f"{os.getloadavg()[0]:.1f}, {os.cpu_count()}",
            "≤ 1 before a fair run",
        ),
        ("peak memory of seal, 2 GB", f"{_peak_mb():.0f} MB", "≤ 200 MB"),
    ]


def seal(source: Path, target: Path) -> disk.Manifest:
    """One seal, as the command does it."""
    return disk.seal(
        folder.from_paths([source]),
        kind="dataset",
        name="bench",
        owner_key=sign.SigningKey(bytes(32)),
        key=KEY,
        image=None,
        target=target,
    )


def _against(speeds: list[float], plain: list[float]) -> str:
    ratio = statistics.median(one / other for one, other in zip(speeds, plain, strict=True))
    return f"{statistics.median(speeds):.2f} GB/s, {100 * ratio:.0f} %"


def _processor_seconds() -> float:
    """User and system time of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _yardstick() -> float:
    """GB/s of one core by its own processor time: each byte once through AES-256-XTS, once through SHA-256, in large buffers."""
    piece = bytearray(os.urandom(1 << 20))
    out = bytearray(len(piece) + 15)
    count = 64
    begin = time.thread_time()
    for index in range(count):
        run = Cipher(algorithms.AES(KEY), modes.XTS(index.to_bytes(16, "little"))).encryptor()
        run.update_into(piece, out)
        hashlib.sha256(out).digest()
    return count * len(piece) / (time.thread_time() - begin) / GB


def _source(work: Path, size: int) -> Path:
    root = work / "in"
    root.mkdir()
    noise = os.urandom(1 << 20)
    with (root / "data").open("wb") as out:
        for _ in range(size >> 20):
            out.write(noise)
    return root


def _peak_mb() -> float:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = _source(work, LARGE)
        words = [sys.executable, "-c", PEAK, source, work / "f.disk"]
        answer = subprocess.run(words, check=True, capture_output=True, text=True)
    return int(answer.stdout) * 1024 / 1e6


def main() -> None:
    """Print the rows."""
    for what, measured, aim in run():
        print(f"{what:36}  {measured:>22}  {aim}")


if __name__ == "__main__":
    main()
