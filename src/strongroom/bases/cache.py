"""The cache of bases: one build at a time, results whole or not at all, those used last kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.bases import document
from strongroom.bases import profile as base_profile
from strongroom.crypto import digest
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.bases.document import Base

FOLDERS = ("base", "compiled", "debs", "apt", "unpacked")
SCANS = "imports.json"
_CURRENT = "current"
# How many old results a cache keeps; every change of the agent makes a base, and each is some 60 MB.
_KEPT = {"base": 4, "unpacked": 6}


def default(environment: dict[str, str]) -> Path:
    """$XDG_CACHE_HOME/strongroom, or ~/.cache/strongroom."""
    home = environment.get("XDG_CACHE_HOME", "")
    folder = Path(home) if home.startswith("/") else Path(environment.get("HOME") or "/root") / ".cache"
    return folder / "strongroom"


def pointer(cache: Path, profile: str) -> Path:
    """The link to the base of a profile that was built or confirmed last."""
    return cache / "base" / (_CURRENT if profile == base_profile.LOCAL.name else f"{_CURRENT}-{profile}")


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One build at a time: others wait."""
    cache.mkdir(parents=True, exist_ok=True)
    fd = os.open(cache / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _sweep(cache)
        yield
    finally:
        os.close(fd)


def _sweep(cache: Path) -> None:
    """Remove what an interrupted build left: only builds make these names, and only one runs."""
    for folder in (cache / name for name in FOLDERS if name != "apt"):
        for path in folder.glob(".*") if folder.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def prune(cache: Path, used: Path) -> None:
    """Remove all but the results used last, `used` being one of them, and those that a pointer names."""
    os.utime(used)
    pointed = {link.resolve() for link in (cache / "base").glob(f"{_CURRENT}*")}
    for name, count in _KEPT.items():
        paths = [path for path in (cache / name).glob("[0-9a-f]*") if path.is_dir() and not path.is_symlink()]
        for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)[count:]:
            if path.resolve() in pointed:
                continue
            shutil.rmtree(path, ignore_errors=True)


def clean(cache: Path) -> None:
    """Remove all that builds have kept; what else lies in `cache` stays."""
    for name in FOLDERS:
        if (cache / name).is_dir():
            shutil.rmtree(cache / name)
    (cache / SCANS).unlink(missing_ok=True)


@contextlib.contextmanager
def scans(path: Path) -> Iterator[dict[str, list[str]]]:
    """The remembered imports of modules, by content."""
    scans: dict[str, list[str]] = {}
    with contextlib.suppress(OSError, Malformed):
        loaded = canonical.loads(path.read_bytes(), what=path.name, max_bytes=64 << 20)
        scans = {key: [str(name) for name in names] for key, names in loaded.items()}
    before = len(scans)
    yield scans
    if len(scans) != before:
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(canonical.dumps(scans))
        part.replace(path)


def cached(folder: Path) -> Base | None:
    """The base in the cache, if every byte is what its document says."""
    try:
        base = document.load(folder)
        for name, (_, expected) in base.files.items():
            if digest.sha256(document.read(folder / name, document.MAX_PART)) != expected:
                return None
        if digest.sha256(document.read(folder / document.PACKAGES, 1 << 20)) != base.packages:
            return None
        document.read(folder / document.SBOM, document.MAX_PART)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, building again is the answer
        return None
    return base


def publish(folder: Path, files: dict[str, bytes]) -> None:
    """Put `files` at `folder`, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        for name, content in files.items():
            with (part / name).open("wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def point(link: Path, target: str) -> None:
    """Let `link` name `target`, in one step."""
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def copy(folder: Path, out: Path, *, force: bool) -> None:
    """A copy of a base at `out`. Raises `Misuse` when something else is there."""
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if out.exists():
        with contextlib.suppress(OSError):
            if all((out / name).read_bytes() == content for name, content in contents.items()):
                return
        if not force:
            raise Misuse(
                f"{out}: exists already and is not this base", hint="name another folder, or give --force"
            )
        if not (out / document.BASE).is_file():
            raise Misuse(f"{out}: is not a base, so it is not replaced", hint="name another folder")
    publish(out.absolute(), contents)
