"""How fast an image is converted, against the tools that do the same by hand: tar, mkfs.erofs, veritysetup, sha256sum.

Two images of two layers each, in memory (/dev/shm) where there is room, both ways in turn. The second conversion of the same image is taken from the cache. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from strongroom.crypto import sign
from strongroom.images import cache as caches
from strongroom.images import load as image
from strongroom.seal import disk

# (what, files, mean of the logarithm of their sizes, gzip or not)
SHAPES = (
    ("240 MB, 3,000 files, gzip", 3000, 10.3, True),
    ("160 MB, 20,000 files, plain", 20_000, 7.9, False),
)
ROUNDS = 3
MB = 1e6
OWNER = sign.SigningKey(b"\7" * 32)

PEAK = """
import re, resource, sys
from pathlib import Path
from tests.bench import bench_convert
bench_convert.convert(Path(sys.argv[1]), Path(sys.argv[2]), None)
own = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(max(int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


def run() -> list[tuple[str, str, str]]:
    """Rows of (what, measured, aim)."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 3 << 30
    rows = []
    for what, files, spread, compressed in SHAPES:
        with tempfile.TemporaryDirectory(dir=memory if roomy else None) as name:
            work = Path(name)
            layout, layers = _layout(work / "layout", files, spread, compressed=compressed)
            rows += [(f"{what}: {told}", got, aim) for told, got, aim in _measure(layout, layers, work)]
    load = f"{os.getloadavg()[0]:.1f}, {os.cpu_count()}"
    return [*rows, ("load average (1 min), cores", load, "≤ 1 before a fair run")]


def _measure(layout: Path, layers: list[Path], work: Path) -> list[tuple[str, str, str]]:
    bare, ours, again, shares = [], [], [], []
    size = 0
    cache = caches.Cache(folder=work / "cache")
    for number in range(ROUNDS):
        begin, spent = time.perf_counter(), _processor_seconds()
        _by_hand(layers, work)
        by_hand = time.perf_counter() - begin, _processor_seconds() - spent
        begin, spent = time.perf_counter(), _processor_seconds()
        size = convert(layout, work, None)
        own = time.perf_counter() - begin, _processor_seconds() - spent
        bare.append(by_hand[0])
        ours.append(own[0])
        shares.append((own[0] / by_hand[0], own[1] / by_hand[1]))
        if number == 0:
            convert(layout, work, cache)
        begin = time.perf_counter()
        convert(layout, work, cache)
        again.append(time.perf_counter() - begin)
    peak = subprocess.run(
        [sys.executable, "-c", PEAK, str(layout), str(work)], capture_output=True, check=True, text=True
    ).stdout

    def rate(seconds: list[float]) -> str:
        return f"{size / MB / statistics.median(seconds):.0f} MB/s"

    wall, processor = (statistics.median(column) for column in zip(*shares, strict=True))
    return [
        ("by hand (sha256sum, tar, mkfs.erofs, veritysetup)", rate(bare), "the bare cost"),
        ("convert", rate(ours), ""),
        ("time of convert to that by hand", f"{wall:.2f}", "≤ 1.5"),
        ("processor time of convert to that by hand", f"{processor:.2f}", "≤ 1.5"),
        ("the same image again", f"{statistics.median(again):.2f} s, {rate(again)}", "a copy and a check"),
        ("peak memory", f"{int(peak) / 1024:.0f} MB", "≤ 200 MB"),
    ]


def convert(layout: Path, work: Path, cache: caches.Cache | None) -> int:
    """What the verb does, without its start-up; returns the disk's data size."""
    target = work / "own.disk"
    chosen = image.identify(layout, digest=None, platform=image.PLATFORM)
    assert chosen is not None
    kept = None if cache is None else cache.find(cache.key(chosen.digest, chosen.config))
    if kept is not None:
        made = disk.reseal(
            kept.manifest,
            name="own",
            owner_key=OWNER,
            target=target,
            write=lambda fd: caches.copy(kept.disk, fd),
        )
    else:
        with image.load(layout, scratch=work, cache=cache) as loaded:
            made = disk.seal(
                loaded.entries,
                kind="image",
                name="own",
                owner_key=OWNER,
                key=None,
                image=loaded.settings,
                target=target,
            )
            if cache is not None:
                cache.keep(cache.key(loaded.digest, loaded.config), target, made, loaded.summary)
    target.unlink()
    disk.beside(target, disk.MANIFEST_SUFFIX).unlink()
    return made.data_bytes


def _by_hand(layers: list[Path], work: Path) -> None:
    root, made = work / "root", work / "hand.img"
    root.mkdir()
    for layer in layers:
        subprocess.run(["sha256sum", layer], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["tar", "-xpf", layer, "-C", root], check=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["mkfs.erofs", "-T0", made, root], check=True, **quiet)
    subprocess.run(["veritysetup", "format", made, work / "hand.hash"], check=True, **quiet)
    shutil.rmtree(root)
    made.unlink()
    (work / "hand.hash").unlink()


def _layout(path: Path, files: int, spread: float, *, compressed: bool) -> tuple[Path, list[Path]]:
    dice = random.Random(3)  # noqa: S311
    words = [dice.randbytes(dice.randrange(4, 24)) for _ in range(5000)]
    rows, diff_ids, layers = [], [], []
    (path / "blobs/sha256").mkdir(parents=True)
    for layer in range(2):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as out:
            for number in range(files // 2):
                info = tarfile.TarInfo(f"usr/lib/{layer}-{number // 50}/{number}")
                wanted = int(dice.lognormvariate(spread, 1.5))
                content = b"".join(dice.choices(words, k=wanted // 14))
                info.size, info.mode = len(content), 0o644
                out.addfile(info, io.BytesIO(content))
        plain = held.getvalue()
        packed = gzip.compress(plain, compresslevel=5, mtime=0) if compressed else plain
        diff_ids.append("sha256:" + hashlib.sha256(plain).hexdigest())
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compressed else "")
        rows.append({"mediaType": kind, **_blob(path, packed)})
        layers.append(path / "blobs/sha256" / hashlib.sha256(packed).hexdigest())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Entrypoint": ["/usr/lib/0-0/0"]},
    }
    described = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        **_blob(path, json.dumps(config).encode()),
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": rows}
    index = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": kind, **_blob(path, json.dumps(manifest).encode())}],
    }
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path, layers


def _blob(path: Path, data: bytes) -> dict[str, object]:
    name = hashlib.sha256(data).hexdigest()
    (path / "blobs/sha256" / name).write_bytes(data)
    return {"digest": "sha256:" + name, "size": len(data)}


def _processor_seconds() -> float:
    """Of this process and those that have ended below it."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
