"""An environment for an installed Strongroom, and commands that run while the repository is out of reach."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
# What the repository brings; beside them stands the environment of the tests, which nothing below uses.
_HIDDEN = ("src", "docs", "locks", "tests", "tools")
_AWAY = 'for name in $HIDDEN; do mount -t tmpfs none "$REPOSITORY/$name"; done; unset HIDDEN REPOSITORY; exec "$@"'


@dataclass(frozen=True, kw_only=True)
class Place:
    """A virtual environment of its own, made by no installer that could reach further than its arguments."""

    folder: Path

    def add(self, packages: Mapping[str, bytes]) -> None:
        """Put packages in, by path below `site-packages`."""
        (site,) = self.folder.glob("lib/python3.*/site-packages")
        for name, content in packages.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(content)

    def run(self, *words: object, cwd: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs in `cwd`; empty folders stand where the repository's were."""
        program, *rest = map(str, words)
        return subprocess.run(
            ["unshare", "--mount", "sh", "-ec", _AWAY, "sh", str(self.folder / "bin" / program), *rest],
            cwd=cwd,
            env={"PATH": path, "HOME": str(cwd), "COLUMNS": "100", "REPOSITORY": str(ROOT), "HIDDEN": " ".join(_HIDDEN)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )  # fmt: skip


def install(folder: Path, wheel: Path) -> Place:
    """A new environment in `folder` with the wheel in it, as an installer lays it out, and nothing else."""
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(folder)], check=True)
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "-q", "--offline", "--no-deps", "--python", folder / "bin/python", wheel]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(command, check=True, env=environment)
    return Place(folder=folder)
