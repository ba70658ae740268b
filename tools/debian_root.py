"""A Debian root file system for an image, made of packages and their dependencies; nothing of it is installed here.

    debs = debian_root.closure(["nginx-light", "curl"])        # what apt would install on a bare machine today
    debian_root.unpack(debs, root, accounts=("postgres",))     # files, as in Debian's own images

apt resolves and fetches with a status of its own (nothing is installed yet, as far as it knows) and takes
Debian's packages alone, whatever else this machine's sources offer. No maintainer script runs: `unpack` does
what those of the basic packages would do (merged /usr, accounts, /bin/sh, the cache of libraries).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What Debian's own images hold at least, and programs count on.
BASIC = ("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "findutils", "grep", "hostname", "libc-bin", "mawk", "sed")  # fmt: skip
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_LINE = re.compile(r"'[^']+' (\S+\.deb) ([0-9]+) SHA256:([0-9a-f]{64})")
_PIN = "Package: *\nPin: release o=Debian\nPin-Priority: 1001\n\nPackage: *\nPin: release o=*\nPin-Priority: -1\n"
_DROPPED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")


@dataclass(frozen=True, kw_only=True)
class Deb:
    """A package's file, as apt names it, and its digest from Debian's signed index."""

    file: str
    sha256: str


def closure(packages: Sequence[str]) -> tuple[Deb, ...]:
    """The packages and all they depend on, sorted by name. Asks apt's lists, not the network."""
    with _apt(None) as options:
        told = _run(["apt-get", "install", "--print-uris", *options, *packages])
    found = [Deb(file=row[1], sha256=row[3]) for line in told.splitlines() if (row := _LINE.fullmatch(line))]
    if not found:
        raise RuntimeError(f"apt knows none of {packages}: run apt-get update")
    return tuple(sorted(found, key=lambda one: one.file))


def fetch(packages: Sequence[str], folder: Path) -> list[Path]:
    """Download the closure into `folder`, where what is there already is kept; apt checks every digest."""
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    with _apt(folder) as options:
        _run(["apt-get", "install", "--download-only", *options, *packages])
    return [folder / one.file for one in closure(packages)]


def unpack(debs: Sequence[Path], root: Path, *, accounts: Sequence[str] = ()) -> None:
    """Unpack into the new folder `root`. `accounts` are system users to add, from uid 101 on, as adduser does."""
    root.mkdir()
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as source:
            subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "-p", "-C", str(root)],
                stdin=source.stdout,
                check=True,
            )
        if source.returncode:
            raise RuntimeError(f"{deb.name} does not unpack")
    for name in _DROPPED:
        subprocess.run(["rm", "-rf", str(root / name)], check=True)
    _as_installed(root, accounts)


def _as_installed(root: Path, accounts: Sequence[str]) -> None:
    if not (root / "etc/passwd").exists() and (root / "usr/share/base-passwd").is_dir():
        for name in ("passwd", "group"):
            lines = (root / f"usr/share/base-passwd/{name}.master").read_text()
            own = "{0}:x:{1}:{1}::/var/lib/{0}:/bin/sh\n" if name == "passwd" else "{0}:x:{1}:\n"
            lines += "".join(own.format(one, 101 + number) for number, one in enumerate(accounts))
            (root / "etc" / name).write_text(lines)
    if (root / "usr/share/libc-bin/nsswitch.conf").exists():
        text = (root / "usr/share/libc-bin/nsswitch.conf").read_text()
        (root / "etc/nsswitch.conf").write_text(text)
    for link, target in (("bin/sh", "dash"), ("usr/bin/awk", "mawk"), ("usr/bin/which", "which.debianutils")):
        if (root / "usr/bin" / target).exists() and not os.path.lexists(root / link):
            (root / link).symlink_to(target)
    for name in ("run", "run/lock"):
        place = root / "var" / name.rpartition("/")[2]
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
            place.symlink_to(f"/{name}")
    if (root / "usr/bin/python3.11").exists():
        # Files that are checked by content do not care for times.
        command = [chroot(), str(root), "/usr/bin/python3.11", "-m", "compileall", "-q"]
        command += ["--invalidation-mode", "unchecked-hash", "/usr/lib/python3", "/usr/lib/python3.11"]
        # Some of Debian's own files are for another version of Python.
        subprocess.run(command, env={"LC_ALL": "C.UTF-8"}, stdout=subprocess.DEVNULL, check=False)
    if (root / "usr/sbin/ldconfig").exists():
        subprocess.run([chroot(), str(root), "/usr/sbin/ldconfig"], check=True)
        subprocess.run(["rm", "-rf", str(root / "var/cache/ldconfig")], check=True)


def _apt(archives: Path | None) -> _Private:
    return _Private(archives)


class _Private:
    """apt's options for a state of its own, in a folder that goes away."""

    def __init__(self, archives: Path | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="strongroom-apt-")
        self._archives = archives

    def __enter__(self) -> list[str]:
        folder = Path(self._folder.name)
        (folder / "status").write_bytes(b"")
        (folder / "preferences").mkdir()
        (folder / "preferences/debian").write_text(_PIN)
        archives = self._archives or folder / "archives"
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        settings = {
            "Dir::State::status": folder / "status",
            "Dir::State::extended_states": folder / "extended",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": folder / "preferences",
            "Dir::Cache::archives": archives,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
            "Acquire::ForceHash": "SHA256",
            "Debug::NoLocking": "1",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["-q", "-y", "--no-install-recommends", *options]

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def chroot() -> str:
    return next((path for path in ("/usr/sbin/chroot", "/usr/bin/chroot") if Path(path).exists()), "chroot")


def names(debs: Sequence[Deb]) -> Iterator[str]:
    """Package file names, for a cache's key."""
    for one in debs:
        yield f"{one.file} {one.sha256}"
