"""The wheel and the sdist, by `uv build`; written once more so that no byte of them depends on the machine.

uv asks the build backend of pyproject.toml, with what the lock files installed and without the network. What differs between
two machines is when and by whom files were checked out: order, times, owners and modes are set here.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(out: Path, *, epoch: int) -> tuple[Path, Path]:
    """(wheel, sdist), written into the folder `out`; every time in them is `epoch`."""
    with tempfile.TemporaryDirectory(prefix="strongroom-dist-") as name:
        raw = Path(name)
        command = [
            str(Path(sys.executable).with_name("uv")),
            "build",
            "-q",
            "--offline",
            "--no-build-isolation",
        ]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        subprocess.run([*command, "--out-dir", str(raw), str(ROOT)], check=True, env=environment)
        (wheel,), (sdist,) = raw.glob("*.whl"), raw.glob("*.tar.gz")
        out.mkdir(parents=True, exist_ok=True)
        (out / wheel.name).write_bytes(_wheel(wheel, epoch))
        (out / sdist.name).write_bytes(_sdist(sdist, epoch))
    return out / wheel.name, out / sdist.name


def _wheel(source: Path, epoch: int) -> bytes:
    target = io.BytesIO()
    moment = time.gmtime(epoch)[:6]
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        # The metadata comes last, as PEP 427 recommends.
        for name in sorted(given.namelist(), key=lambda one: (".dist-info/" in one, one)):
            info = zipfile.ZipInfo(name, moment)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            made.writestr(info, given.read(name))
    return target.getvalue()


def _sdist(source: Path, epoch: int) -> bytes:
    target = io.BytesIO()
    with (
        tarfile.open(source) as given,
        tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as made,
    ):
        for member in sorted(given.getmembers(), key=lambda one: one.name):
            info = tarfile.TarInfo(member.name)
            info.type, info.size, info.mtime = member.type, member.size, epoch
            info.mode = 0o755 if member.isdir() else 0o644
            made.addfile(info, given.extractfile(member) if member.isfile() else None)
    return gzip.compress(target.getvalue(), mtime=0)
