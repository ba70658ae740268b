"""`strongroom resume`: the end of a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.cli.project.options import FileOption, compose_file
from strongroom.cli.project.pause import Service, record

if TYPE_CHECKING:
    import typer


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("resume")(resume)


def resume(service: Service = None, file: FileOption = None) -> None:
    """Take a pause back: rooms get keys again. Those that it ended are started anew by `restart`."""
    record(compose_file(file), service, resume=True)
    print("rooms may attest again; `strongroom restart` starts those that the pause ended")
