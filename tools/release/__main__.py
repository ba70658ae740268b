"""`make dist`: all that a release consists of, into dist/. The same bytes from the same commit and packages.

SOURCE_DATE_EPOCH is the commit's time unless it is set. Debian 12, as root: the image's files are unpacked with their owners.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tools.release import broker_image, deb, places, python_dist

import strongroom


def main() -> None:
    if os.geteuid() != 0:
        sys.exit(
            "make dist: expected root, got user "
            f"{os.geteuid()}: the broker's image is unpacked with its files' owners, and compiled within it (chroot, mount)\n"
            "hint: type `sudo make dist`, on a machine or in a container of Debian 12 that is yours"
        )
    parser = argparse.ArgumentParser(description="Build what a release consists of.")
    parser.add_argument("--out", type=Path, default=python_dist.ROOT / "dist", help="folder to write into")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for path in build(out, epoch=_epoch()):
        print(path)


def build(out: Path, *, epoch: int) -> list[Path]:
    """Each file, and SHA256SUMS over them."""
    os.umask(0o022)  # the interpreter that compiles the image's modules gives them the modes that this leaves
    version = strongroom.__version__
    wheel, sdist = python_dist.build(out, epoch=epoch)
    package = deb.build(out, places.tree(wheel, {"all"}), version=version, epoch=epoch)
    image = broker_image.build(out, places.tree(wheel, {"cli", "rooms", "server"}), version=version)
    made = [wheel, sdist, package, image]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    (out / "SHA256SUMS").write_text("".join(sorted(lines, key=lambda line: line.split()[1])))
    return [*made, out / "SHA256SUMS"]


def _epoch() -> int:
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    command = ["git", "-C", str(python_dist.ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
