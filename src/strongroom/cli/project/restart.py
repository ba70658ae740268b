"""`strongroom restart`: services in new rooms."""

from __future__ import annotations

from typing import Annotated

import typer

from strongroom.cli.project.options import FileOption, compose_file


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("restart")(restart)


def restart(
    service: Annotated[
        list[str], typer.Argument(help="Which services; all by default.", metavar="[SERVICE…]")
    ] = [],  # noqa: B006
    file: FileOption = None,
) -> None:
    """End the rooms of services and start new ones, which prove themselves anew. Every other goes on."""
    from strongroom.cli.printable import say
    from strongroom.project import folder, upkeep

    state = folder.existing(compose_file(file))
    chosen = upkeep.restart(state, service)
    rows = upkeep.watch(state, on_change=lambda _row: None)
    for row in rows:
        if row.planned.name in chosen:
            say(f"{row.planned.name}: {row.state}")
