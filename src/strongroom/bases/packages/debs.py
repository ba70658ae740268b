"""Debian packages of the base: which ones, found and verified by apt, unpacked without being installed.

Packages of the release come by the machine's configuration of apt, which says from where and whose signatures count; those
of other suites by Strongroom's (base_apt). Downloads are kept by their SHA-256, which apt has from the signed index;
they are checked again whenever they are read. No maintainer script runs.
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

from strongroom.bases.packages import apt as base_apt
from strongroom.bases.profile import RELEASE
from strongroom.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strongroom.bases.profile import Profile

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
# The stub that makes a program of the firmware's out of a kernel.
STUB = "systemd-boot-efi"
ARCHITECTURE = "amd64"
OTHER_PACKAGES = "Debian's packages are not as this version of Strongroom knows them: build with a newer one"
MAX_DEB = 256 << 20
MAX_MEMBER = 64 << 20
MAX_UNPACKED = 1 << 30

_LINE = re.compile(r"'[^']*' (\S+)_([^_\s]+)_(amd64|all)\.deb ([0-9]+) SHA256:([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Deb:
    """One package that apt would install today. `size` in bytes; `digest` is of the .deb file."""

    name: str
    version: str
    digest: str
    size: int
    suite: str = RELEASE


@dataclass(frozen=True, kw_only=True)
class Archives:
    """Where packages are asked for. `lists` is the folder of Strongroom's own; `own` asks those for the release, too."""

    lists: Path
    own: bool = False

    def apt_for(self, suite: str) -> base_apt.Apt:
        """The machine's own for the release; Strongroom's for what a machine need not know."""
        if suite != RELEASE:
            return base_apt.own(self.lists, [suite])
        if self.own:
            return base_apt.own(self.lists, [RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security"])
        return base_apt.MACHINE


def candidates(profile: Profile, archives: Archives) -> tuple[Deb, ...]:
    """The packages of a base built now, sorted by name. Asks apt's lists, and the network for lists that are old.

    Raises `Unavailable` when apt knows them not.
    """
    names = names_of(profile)
    pattern, suite = profile.kernel.pattern, profile.kernel.suite
    apt = archives.apt_for(suite)
    listing = apt.run("apt-cache", "search", "--names-only", f"^{pattern.pattern.replace('(?:', '(')}$")
    kernels = [match for line in listing.splitlines() if (match := pattern.fullmatch(line.split(" ")[0]))]
    if not kernels:
        raise Unavailable(
            f"apt knows no kernel of {suite} for {profile.name}", code="no-packages", hint=apt.hint
        )
    kernel = max(kernels, key=lambda match: [int(number or 0) for number in match.groups()])[0]
    offered = [_offered(names, RELEASE, archives), _offered({kernel}, suite, archives)]
    return tuple(sorted((deb for debs in offered for deb in debs), key=lambda deb: deb.name))


def names_of(profile: Profile) -> set[str]:
    """The packages of a base by name, without its kernel's."""
    return {*RUNTIME, *STARTUP, *([STUB] if profile.uki else [])}


def _offered(names: set[str], suite: str, archives: Archives) -> list[Deb]:
    apt = archives.apt_for(suite)
    words = [f"{name}:{ARCHITECTURE}" for name in sorted(names)]
    text = apt.run("apt-get", "-qq", "download", "--print-uris", *words)
    debs = [_parse(line, suite) for line in text.splitlines()]
    if {deb.name for deb in debs} != names:
        missing = ", ".join(sorted(names - {deb.name for deb in debs}))
        raise Unavailable(f"apt offers no {missing}", code="no-packages", hint=apt.hint)
    return debs


def fetch(debs: Iterable[Deb], folder: Path, archives: Archives) -> dict[str, Path]:
    """Every package's file by name, downloaded into `folder` unless it is there. Raises `Unavailable`."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {deb.name: deb for deb in debs}
    files = {name: folder / f"{deb.digest.removeprefix('sha256:')}.deb" for name, deb in wanted.items()}
    missing = [deb for name, deb in wanted.items() if not files[name].is_file()]
    for suite in sorted({deb.suite for deb in missing}):
        part = [deb for deb in missing if deb.suite == suite]
        apt = archives.apt_for(suite)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as text:
            incoming = Path(text)
            words = [f"{deb.name}:{ARCHITECTURE}={deb.version}" for deb in part]
            apt.run("apt-get", "-qq", "download", *words, folder=incoming)
            by_digest = {digest_of(path): path for path in incoming.iterdir() if path.suffix == ".deb"}
            for deb in part:
                path = by_digest.get(deb.digest)
                if path is None:
                    raise Unavailable(
                        f"downloading {deb.name}: no file of digest {deb.digest} came",
                        code="no-packages",
                        hint=apt.hint,
                    )
                path.replace(files[deb.name])
    return files


def unpack(
    file: Path, deb: Deb, wanted: Callable[[str], bool]
) -> tuple[dict[str, tuple[int, bytes]], dict[str, str], int]:
    """The wanted files of one package: regular ones as (mode, content), links as their targets, and the newest time.

    Raises `Malformed` when the file is not what apt said, or not a package.
    """
    if digest_of(file) != deb.digest:
        raise Malformed(
            f"{file}: not the package {deb.name} {deb.version}",
            code="bad-package",
            hint="remove that file and build again",
        )
    regular: dict[str, tuple[int, bytes]] = {}
    links: dict[str, str] = {}
    newest = total = 0
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE, env=base_apt.ENVIRONMENT
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
                            raise Malformed(
                                f"{deb.name}: {path}: {member.size} bytes, expected at most {MAX_MEMBER}, and {MAX_UNPACKED} in all",
                                code="too-large",
                                hint=OTHER_PACKAGES,
                            )
                        source = archive.extractfile(member)
                        regular[path] = (member.mode & 0o111, source.read() if source else b"")
        except tarfile.TarError as cause:
            raise Malformed(
                f"unpacking {deb.name}: {cause}",
                code="bad-package",
                hint="remove the downloaded packages, `strongroom base clean`, and build again",
            ) from None
        finally:
            process.stdout.close() if process.stdout else None
            process.wait()
    if process.returncode:
        raise Malformed(
            f"unpacking {deb.name}: dpkg-deb ended with {process.returncode}",
            code="bad-package",
            hint="remove the downloaded packages, `strongroom base clean`, and build again",
        )
    return regular, links, newest


def _parse(line: str, suite: str) -> Deb:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise Unavailable(
            f"apt's answer is not understood: {line[:200]!r}", code="no-packages", hint=base_apt.HINT
        )
    name, version, _, size, hexadecimal = match.groups()
    if int(size) > MAX_DEB:
        raise Malformed(
            f"{name}: {size} bytes, expected at most {MAX_DEB}", code="too-large", hint=OTHER_PACKAGES
        )
    return Deb(
        name=name,
        version=urllib.parse.unquote(version),
        digest=f"sha256:{hexadecimal}",
        size=int(size),
        suite=suite,
    )


def digest_of(path: Path) -> str:
    """A file's SHA-256, as packages.json has it."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
