"""What the peers of our EROFS writer say of an image."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def complaints(made: Path, *options: str) -> list[str]:
    """What fsck.erofs has to say; its exit code is 0 even for images that it cannot read."""
    answer = subprocess.run(["fsck.erofs", *options, made], check=False, capture_output=True, text=True)
    return [line for line in answer.stderr.splitlines() if line.startswith("<E>")] + (
        [f"exit {answer.returncode}"] if answer.returncode else []
    )
