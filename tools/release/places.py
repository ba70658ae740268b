"""Where things lie on a machine that installs nothing from PyPI: one tree, for the Debian package and for the image."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.release import installed

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = "usr/lib/strongroom"
# -I: nobody's PYTHONPATH, working folder or own packages are looked into.
_PROGRAM = """\
#!/usr/bin/python3.11 -I
import sys

sys.path.insert(0, "/usr/lib/strongroom")

from strongroom.cli.entry import main

main()
"""
# Beside what is read as text: what `strongroom …` prints, and where systems look for it.
PRINTED = {
    "usr/share/man/man1/strongroom.1": ("manual",),
    "usr/share/bash-completion/completions/strongroom": ("completion", "bash"),
    "usr/share/zsh/vendor-completions/_strongroom": ("completion", "zsh"),
    "usr/share/fish/vendor_completions.d/strongroom.fish": ("completion", "fish"),
}


@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file of root's."""

    content: bytes
    mode: int = 0o644


def tree(wheel: Path, extras: set[str]) -> dict[str, File]:
    """The program with all that it imports, by path below the root."""
    modules = installed.files(installed.closure(wheel, extras)) | installed.unpacked(wheel)
    out = {f"{LIBRARY}/{name}": File(content=content) for name, content in sorted(modules.items())}
    out["usr/bin/strongroom"] = File(content=_PROGRAM.encode(), mode=0o755)
    return out


def printed() -> dict[str, File]:
    """The manual page and the completions."""
    return {path: File(content=_run(*words)) for path, words in PRINTED.items()}


def write(root: Path, files: dict[str, File]) -> None:
    """Write files below `root`, folders as everybody may enter them, whatever the umask."""
    for name, file in files.items():
        path = root / name
        for folder in reversed(path.relative_to(root).parents):
            if not (root / folder).is_dir():
                (root / folder).mkdir()
                (root / folder).chmod(0o755)
        path.write_bytes(file.content)
        path.chmod(file.mode)


def _run(*words: str) -> bytes:
    line = [sys.executable, "-m", "strongroom.cli.main", *words]
    return subprocess.run(line, capture_output=True, check=True).stdout
