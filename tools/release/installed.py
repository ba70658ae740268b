"""Strongroom and the packages that it needs as a tree of files, for a machine that installs nothing from PyPI.

The packages are those of this environment, which the lock file filled; each file is held to its wheel's RECORD before
it is taken. Programs that packages would install, their compiled modules and notes of who installed them are left out.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_NOTES = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}


def closure(wheel: Path, extras: set[str]) -> list[str]:
    """The names of all that `strongroom[extras]` needs, as the wheel and they themselves say; sorted."""
    found: dict[str, set[str]] = {}
    todo = [(requirement, extras) for requirement in _requirements(wheel)]
    while todo:
        text, wanted = todo.pop()
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
            continue
        name = canonicalize_name(requirement.name)
        if name == "strongroom":  # the extra `all` is made of the others
            todo += [(one, set(requirement.extras)) for one in _requirements(wheel)]
            continue
        if name in found and requirement.extras <= found[name]:
            continue
        found.setdefault(name, set()).update(requirement.extras)
        todo += [(one, found[name]) for one in metadata.requires(name) or ()]
    return sorted(found)


def files(names: list[str]) -> dict[str, bytes]:
    """The installed packages' files by path below `site-packages`. Raises `ValueError` for an altered one."""
    out: dict[str, bytes] = {}
    for name in names:
        for entry in metadata.distribution(name).files or ():
            path = PurePosixPath(entry.as_posix())
            if ".." in path.parts or "__pycache__" in path.parts or path.name in _NOTES:
                continue
            content = Path(str(entry.locate())).read_bytes()
            if entry.hash is None:
                if path.name != "RECORD":
                    raise ValueError(f"{name}: {path} is not recorded")
                content = _record(content)
            elif entry.hash.value != _digest(content):
                raise ValueError(f"{name}: {path} is not the file that the wheel brought")
            out[str(path)] = content
    return out


def unpacked(wheel: Path) -> dict[str, bytes]:
    """The wheel's own files by path."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return metadata.PathDistribution(zipfile.Path(archive, name.rpartition("/")[0] + "/")).requires or []


def _record(content: bytes) -> bytes:
    """RECORD without the lines of what is left out, in one order whoever installed."""
    kept = [
        line
        for line in content.decode().splitlines()
        for path in [PurePosixPath(line.partition(",")[0].strip('"'))]
        if ".." not in path.parts and "__pycache__" not in path.parts and path.name not in _NOTES
    ]
    return ("\n".join(sorted(kept)) + "\n").encode()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
