"""apt, asked in two ways: as the machine is configured, and by a configuration of Strongroom's own.

The second knows other suites of Debian than the machine does (a fresh Debian 12 has no backports). Its lists and caches
lie in Strongroom's cache and nothing of the machine's is touched, so that no root is needed. Packages come from the
mirror that the machine uses for Debian, and apt verifies signatures against Debian's own archive keys; the machine's
further sources and keys do not count.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.bases.profile import RELEASE
from strongroom.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"  # where the machine names none; what comes is verified by signature
SECURITY = "http://deb.debian.org/debian-security"
LISTS_SECONDS = 24 * 3600  # for which lists of packages are good
HINT = "run `apt-get update` as root, and see that Debian 12 (main and security) is among apt's sources"

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
# What apt-get indextargets prints of each list of packages.
_TARGET = "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)"


@dataclass(frozen=True, kw_only=True)
class Apt:
    """A way to ask: `options` stand on the command line before everything else."""

    options: tuple[str, ...] = ()
    hint: str = HINT

    def run(self, program: str, *words: str, folder: Path | None = None) -> str:
        """The standard output of apt-get or apt-cache. Raises `Unavailable`, `NotFound` where there is no apt."""
        try:
            completed = subprocess.run(
                [program, *self.options, *words],
                cwd=folder,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                check=False,
                timeout=600,  # seconds
            )
        except FileNotFoundError:
            raise NotFound(
                f"{program} is not installed", code="no-apt", hint="bases are built on Debian 12"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"{program} does not come to an end", code="timed-out", hint=self.hint
            ) from None
        if completed.returncode:
            reason = next(
                (line for line in completed.stderr.splitlines() if line.startswith("E:")), "it failed"
            )
            raise Unavailable(
                f"{' '.join([program, *words[:2]])}: {reason}", code="no-packages", hint=self.hint
            )
        return completed.stdout


MACHINE = Apt()


def own(folder: Path, suites: Iterable[str]) -> Apt:
    """Strongroom's own configuration for `suites`, its lists in `folder`, fetched anew when they are a day old.

    Raises `Unavailable` when there are no lists and none can be had; lists that cannot be renewed serve on.
    """
    wanted = sorted(set(suites))
    home = folder / "+".join(wanted)
    if not KEYRING.is_file():
        raise NotFound(
            f"{KEYRING}: Debian's archive keys are not there",
            code="no-keyring",
            hint="install the package debian-archive-keyring",
        )
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    # Hooks of the machine would run on every update. A setting that is a list can only be added to, so that these are cleared first.
    (home / "apt.conf").write_text("#clear APT::Update;\n#clear DPkg;\n#clear Dir::Etc::trustedparts;\n")
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": home / "parts",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::Etc::Trusted": "/dev/null",
        "Dir::Etc::TrustedParts": "/dev/null",
        "Dir::State": home,
        "Dir::State::Lists": home / "lists",
        "Dir::State::Status": home / "status",
        "Dir::Cache": home / "cache",
        "Dir::Cache::pkgcache": "pkgcache.bin",  # some machines switch these off
        "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # the folder need not be readable for apt's own user
        "APT::Default-Release": "",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
    }
    options = ["-c", str(home / "apt.conf")]
    for name, value in settings.items():
        options += ["-o", f"{name}={value}"]
    apt = Apt(options=tuple(options), hint="a mirror of Debian must be reachable, with its backports")
    with _alone(home):
        _renew(apt, home, wanted)
    return apt


def _renew(apt: Apt, home: Path, suites: list[str]) -> None:
    """Fetch lists where there are none, or where the file system says that they are a day older than now."""
    # Two empty files, whose times the same file system wrote: of the last update, and of now.
    fetched = home / "fetched"
    had = fetched.is_file()
    before = fetched.stat().st_mtime if had else 0.0
    asked = fetched.with_name("asked")
    asked.touch()
    if had and 0 <= asked.stat().st_mtime - before < LISTS_SECONDS:
        return
    (home / "parts" / "debian.sources").write_text(_sources(suites))
    try:
        apt.run("apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update")
    except Unavailable:
        if not had:
            raise
    else:
        fetched.touch()


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """While open, no other process of Strongroom renews the lists in `home`."""
    fd = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sources(suites: list[str]) -> str:
    mirror, security = _mirrors()
    parts = [
        f"Types: deb\nURIs: {security if suite.endswith('-security') else mirror}\nSuites: {suite}\n"
        f"Components: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n"
        for suite in suites
    ]
    return "\n".join(parts)


def _mirrors() -> tuple[str, str]:
    """The machine's mirrors of Debian and of its security archive."""
    addresses: dict[str, str] = {}
    try:
        listed = MACHINE.run("apt-get", "indextargets", "--format", _TARGET, "Created-By: Packages")
    except Unavailable:
        listed = ""
    for line in listed.splitlines():
        origin, _, fields = line.partition("|")
        codename, component, address = [*fields.split("|", 2), "", ""][:3]
        if origin == "Debian" and component == "main" and _ADDRESS.fullmatch(address):
            addresses.setdefault(codename, address)
    return addresses.get(RELEASE, MIRROR), addresses.get(f"{RELEASE}-security", SECURITY)
