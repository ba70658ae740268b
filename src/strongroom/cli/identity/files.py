"""An identity and its party file on the command line: their options, and how they are opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import passphrase

if TYPE_CHECKING:
    from strongroom.model.identity import Identity

PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", help="Read the passphrase from this file descriptor.")
]
NewPassphraseFd = Annotated[
    int | None,
    typer.Option("--new-passphrase-fd", help="Read the new passphrase from this file descriptor."),
]
IdentityFile = Annotated[Path, typer.Option("--identity", "-i", help="Your identity file.")]


def load(path: Path, fd: int | None, *, option: str = "") -> Identity:
    """Open an identity file, asking for its passphrase. option: the option that `fd` came from, if not --passphrase-fd."""
    from strongroom.parties import papers

    return papers.open_identity(
        path, passphrase=lambda: passphrase.read(fd, what=f"passphrase of {path.name}", option=option)
    )
