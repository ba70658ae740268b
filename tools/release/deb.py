"""The Debian package, for Debian 12: the program under /usr/lib/strongroom, with the libraries that Debian 12 has too old.

    apt-get install ./strongroom_VERSION_amd64.deb

dpkg-deb builds it from the files beside this one (debian/) and the release's own tree; the same bytes from the same tree.
"""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import os
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tools.release import places
from tools.release.places import File

if TYPE_CHECKING:
    from collections.abc import Mapping

RECIPE = Path(__file__).parent / "debian"
ROOT = Path(__file__).parents[2]
_CHANGES = """\
strongroom ({version}) unstable; urgency=medium

  * As CHANGELOG.md beside this file says.

 -- {maintainer}  {date}
"""
_SCRIPTS = ("postinst", "prerm")


def build(out: Path, tree: Mapping[str, File], *, version: str, epoch: int) -> Path:
    """Write strongroom_VERSION_amd64.deb into `out`."""
    target = out / f"strongroom_{version}_amd64.deb"
    files = {**tree, **places.printed(), **_documents(version, epoch)}
    files = {name: _compressed(name, file) for name, file in files.items()}
    files = {name + (".gz" if _packed(name) else ""): file for name, file in files.items()}
    with tempfile.TemporaryDirectory(prefix="strongroom-deb-") as name:
        root = Path(name) / "root"
        root.mkdir()
        root.chmod(0o755)
        places.write(root, files)
        places.write(root, _control(files, version))
        for path in (*root.rglob("*"), root):
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        subprocess.run(
            [
                "dpkg-deb",
                "--root-owner-group",
                "--threads-max=1",
                "-Zxz",
                "-z1",
                "--build",
                str(root),
                str(target),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )
    return target


def maintainer() -> str:
    """Who the package is of, as `pyproject.toml` names them: `NAME <ADDRESS>`."""
    (one,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["maintainers"]
    return email.utils.formataddr((one["name"], one["email"]))


def _documents(version: str, epoch: int) -> dict[str, File]:
    folder = "usr/share/doc/strongroom"
    changes = _CHANGES.format(version=version, maintainer=maintainer(), date=email.utils.formatdate(epoch))
    overrides = (RECIPE / "lintian-overrides").read_bytes()
    return {
        f"{folder}/copyright": File(content=(RECIPE / "copyright").read_bytes()),
        f"{folder}/CHANGELOG.md": File(content=(ROOT / "CHANGELOG.md").read_bytes()),
        f"{folder}/changelog": File(content=changes.encode()),
        "usr/share/lintian/overrides/strongroom": File(content=overrides),
    }


def _packed(name: str) -> bool:
    return name.startswith("usr/share/man/") or name.endswith(("/changelog", "/CHANGELOG.md"))


def _compressed(name: str, file: File) -> File:
    """Debian's policy, 12.1 and 12.3."""
    return File(content=gzip.compress(file.content, 9, mtime=0), mode=file.mode) if _packed(name) else file


def _control(files: Mapping[str, File], version: str) -> dict[str, File]:
    size = sum(len(file.content) for file in files.values()) // 1024
    text = (
        (RECIPE / "control")
        .read_text()
        .replace("@VERSION@", version)
        .replace("@SIZE@", str(size))
        .replace("@MAINTAINER@", maintainer())
    )
    sums = [
        f"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}  {name}\n"
        for name, file in sorted(files.items())
    ]
    out = {
        "DEBIAN/control": File(content=text.encode()),
        "DEBIAN/md5sums": File(content="".join(sums).encode()),
    }
    out |= {f"DEBIAN/{name}": File(content=(RECIPE / name).read_bytes(), mode=0o755) for name in _SCRIPTS}
    return out
