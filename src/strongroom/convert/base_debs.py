"""Debian packages of the base: which ones, found and verified by apt, unpacked without being installed.

apt's own configuration says where packages come from and whose signatures count. Downloads are kept by their
SHA-256, which apt has from the signed index; they are checked again whenever they are read. No maintainer script runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tarfile
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


# In the base's tree.
RUNTIME = (
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "python3.11-minimal",
    "zlib1g",
)
# In the initrd.
STARTUP = (
    "busybox-static",
    "dmsetup",
    "libdevmapper1.02.1",
    "libpcre2-8-0",
    "libselinux1",
    "libudev1",
)
# The cloud flavour of Debian 12's kernel: LZ4, so that it unpacks fast under emulation.
KERNEL = re.compile(r"linux-image-6\.1\.0-([0-9]+)-cloud-amd64")
ARCHITECTURE = "amd64"
MAX_DEB = 256 << 20
MAX_MEMBER = 64 << 20
MAX_UNPACKED = 1 << 30

_LINE = re.compile(r"'[^']*' (\S+)_([^_\s]+)_(amd64|all)\.deb ([0-9]+) SHA256:([0-9a-f]{64})")
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_APT_HINT = "run `apt-get update` as root, and see that Debian 12 (main and security) is among apt's sources"


@dataclass(frozen=True, kw_only=True)
class Deb:
    """One package that apt would install today. `size` in bytes; `digest` is of the .deb file."""

    name: str
    version: str
    digest: str
    size: int


def candidates() -> tuple[Deb, ...]:
    """The packages of a base built now, sorted by name. Asks apt's cache, not the network.

    Raises `Unavailable` when apt knows them not.
    """
    found = _run(["apt-cache", "search", "--names-only", f"^{KERNEL.pattern}$"])
    kernels = [match for line in found.splitlines() if (match := KERNEL.fullmatch(line.split(" ")[0]))]
    if not kernels:
        raise Unavailable("apt knows no Debian 12 cloud kernel", code="no-packages", hint=_APT_HINT)
    kernel = max(kernels, key=lambda match: int(match[1]))[0]
    names = {*RUNTIME, *STARTUP, kernel}
    text = _run(
        ["apt-get", "-qq", "download", "--print-uris", *(f"{name}:{ARCHITECTURE}" for name in sorted(names))]
    )
    debs = tuple(sorted(map(_parse, text.splitlines()), key=lambda deb: deb.name))
    if {deb.name for deb in debs} != names:
        missing = ", ".join(sorted(names - {deb.name for deb in debs}))
        raise Unavailable(f"apt offers no {missing}", code="no-packages", hint=_APT_HINT)
    return debs


def fetch(debs: Iterable[Deb], folder: Path) -> dict[str, Path]:
    """Every package's file by name, downloaded into `folder` unless it is there. Raises `Unavailable`."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {deb.name: deb for deb in debs}
    files = {name: folder / f"{deb.digest.removeprefix('sha256:')}.deb" for name, deb in wanted.items()}
    missing = [deb for name, deb in wanted.items() if not files[name].is_file()]
    if missing:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as text:
            incoming = Path(text)
            _run(
                [
                    "apt-get",
                    "-qq",
                    "download",
                    *(f"{deb.name}:{ARCHITECTURE}={deb.version}" for deb in missing),
                ],
                folder=incoming,
            )
            by_digest = {_digest(path): path for path in incoming.iterdir() if path.suffix == ".deb"}
            for deb in missing:
                path = by_digest.get(deb.digest)
                if path is None:
                    raise Unavailable(
                        f"downloading {deb.name}: no file of digest {deb.digest} came",
                        code="no-packages",
                        hint=_APT_HINT,
                    )
                path.replace(files[deb.name])
    return files


def unpack(
    file: Path, deb: Deb, wanted: Callable[[str], bool]
) -> tuple[dict[str, tuple[int, bytes]], dict[str, str], int]:
    """The wanted files of one package: regular ones as (mode, content), links as their targets, and the newest time.

    Raises `Malformed` when the file is not what apt said, or not a package.
    """
    if _digest(file) != deb.digest:
        raise Malformed(
            f"{file}: not the package {deb.name} {deb.version}",
            code="bad-package",
            hint="remove that file and build again",
        )
    regular: dict[str, tuple[int, bytes]] = {}
    links: dict[str, str] = {}
    newest = total = 0
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE, env=_ENVIRONMENT
    ) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    path = os.path.normpath(member.name)
                    newest = max(newest, int(member.mtime))
                    if path.startswith(("/", "..")) or not wanted(path):
                        continue
                    if member.issym():
                        links[path] = os.path.normpath(Path("/", path).parent / member.linkname).lstrip("/")
                    elif member.isreg():
                        total += member.size
                        if member.size > MAX_MEMBER or total > MAX_UNPACKED:
                            raise Malformed(f"{deb.name}: {path} is too large", code="too-large")
                        source = archive.extractfile(member)
                        regular[path] = (member.mode & 0o111, source.read() if source else b"")
        except tarfile.TarError as cause:
            raise Malformed(f"unpacking {deb.name}: {cause}", code="bad-package") from None
        finally:
            process.stdout.close() if process.stdout else None
            process.wait()
    if process.returncode:
        raise Malformed(f"unpacking {deb.name}: dpkg-deb ended with {process.returncode}", code="bad-package")
    return regular, links, newest


def _parse(line: str) -> Deb:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise Unavailable(
            f"apt's answer is not understood: {line[:200]!r}", code="no-packages", hint=_APT_HINT
        )
    name, version, _, size, hexadecimal = match.groups()
    if int(size) > MAX_DEB:
        raise Malformed(f"{name}: {size} bytes is too large for a package", code="too-large")
    return Deb(
        name=name, version=urllib.parse.unquote(version), digest=f"sha256:{hexadecimal}", size=int(size)
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _run(arguments: list[str], *, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            arguments, cwd=folder, env=_ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600
        )
    except FileNotFoundError:
        raise NotFound(
            f"{arguments[0]} is not installed", code="no-apt", hint="bases are built on Debian 12"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"{arguments[0]} does not come to an end", code="timed-out", hint=_APT_HINT
        ) from None
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("E:")), "it failed")
        raise Unavailable(f"{' '.join(arguments[:3])}: {reason}", code="no-packages", hint=_APT_HINT)
    return done.stdout
