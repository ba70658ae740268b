"""The Compose file that verbs are about: as it is named, or the usual one of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.errors import NotFound

USUAL = ("compose.yaml", "compose.yml")
FileOption = Annotated[
    Path | None, typer.Option("--file", help="The Compose file; compose.yaml or compose.yml here by default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def compose_file(named: Path | None) -> Path:
    """The file. Raises `NotFound` where none is named and none of the usual is here."""
    if named is not None:
        return named
    for name in USUAL:
        if Path(name).is_file():
            return Path(name)
    raise NotFound(
        f"no {' or '.join(USUAL)} here",
        code="no-such-file",
        hint="name the Compose file; `strongroom init IMAGE` writes one",
    )
