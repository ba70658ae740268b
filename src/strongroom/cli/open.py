"""`strongroom open`: what is yours, in the clear: your sealed disk, or a result that was sealed to you."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import interruption, meter
from strongroom.cli.identity.files import IdentityFile, PassphraseFd, load


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("open")(open_file)


def open_file(
    file: Annotated[Path, typer.Argument(help="A sealed disk of yours, or an age file sealed to you.")],
    identity: IdentityFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A new or empty folder for what is inside; by default FILE's name without .tar.age, .age or .disk, here."
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="The disk's manifest; the one beside it by default.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The disk's NAME.key.age; the one beside it by default.")
    ] = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Open a sealed disk or a sealed result into a folder: whole, or not at all."""
    from strongroom.parties import open as opening

    opening.check_sealed(file)
    mine = load(identity, passphrase_fd)
    with interruption.orderly():
        opened = opening.open_sealed(
            file, identity=mine, out=out, manifest=manifest, key_file=key_file, steps=meter.meter
        )
    print(f"opened  {file} into {opened}")
