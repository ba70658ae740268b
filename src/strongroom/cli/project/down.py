"""`strongroom down`: every room ends."""

from __future__ import annotations

import typer

from strongroom.cli.project.options import FileOption, compose_file


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("down")(down)


def down(file: FileOption = None) -> None:
    """End the rooms of a Compose file and its broker. Identity, keys, contracts, results and records stay in .strongroom/."""
    from strongroom.project import folder, upkeep

    state = folder.existing(compose_file(file))
    print(f"{state.path}: {'everything has ended' if upkeep.down(state) else 'nothing ran'}")
