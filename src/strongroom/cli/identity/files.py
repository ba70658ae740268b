"""An identity and its party file on the command line: their options, and how they are opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files, passphrase
from strongroom.errors import Malformed, Misuse, of_file
from strongroom.model import identity as identity_model
from strongroom.model import party as party_model

PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", help="Read the passphrase from this file descriptor.")
]
NewPassphraseFd = Annotated[
    int | None,
    typer.Option("--new-passphrase-fd", help="Read the new passphrase from this file descriptor."),
]
IdentityFile = Annotated[Path, typer.Option("--identity", "-i", help="Your identity file.")]


def load(path: Path, fd: int | None, *, option: str = "") -> identity_model.Identity:
    """Open an identity file, asking for its passphrase. option: the one that `fd` came from, if not --passphrase-fd."""
    with of_file(path):
        data = files.read(path, max_bytes=identity_model.MAX_BYTES)
        identity_model.read_public(data)  # complain about a wrong file before asking for a passphrase
        return identity_model.unlock(
            data, passphrase.read(fd, what=f"passphrase of {path.name}", option=option)
        )


def party_file(identity: Path, name: str) -> Path:
    """Where the party file of an identity is, unless one says otherwise: beside it, under the party's name."""
    return identity.with_name(f"{name}.party.json")


def refuse_foreign(target: Path, owner: party_model.Party) -> None:
    """The only thing that a party file is written over is an older one of the same party."""
    if not os.path.lexists(target):
        return
    try:
        known = files.parsed(target, party_model.parse, max_bytes=party_model.MAX_BYTES)
    except (Malformed, OSError):
        known = None
    if known is None or (known.name, known.keyid) != (owner.name, owner.keyid):
        raise Misuse(
            f"{target}: is there, and is not {owner.name}'s party file",
            code="exists",
            hint="name another file with --party",
        )
