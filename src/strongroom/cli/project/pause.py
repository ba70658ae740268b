"""`strongroom pause`: of a Compose file's rooms, at the owner's own broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.project.options import FileOption, compose_file

if TYPE_CHECKING:
    from pathlib import Path

Service = Annotated[
    str | None,
    typer.Argument(help="The service; every one by default.", metavar="[SERVICE]", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("pause")(pause)


def pause(service: Service = None, file: FileOption = None) -> None:
    """Pause the rooms of a Compose file: they end within seconds, and get no key and no certificate until you resume."""
    record(compose_file(file), service, resume=False)
    print("rooms that run are told within seconds, and end; `strongroom resume` takes the pause back")


def record(compose: Path, service: str | None, *, resume: bool) -> None:
    """Record the pause, or that it is taken back, and say so."""
    from strongroom.cli.printable import say
    from strongroom.ledger.describe import describe_entry
    from strongroom.project import pause as pausing

    proof = pausing.pause(compose, service, resume=resume)
    say(f"ledger entry {proof.index}: {describe_entry(proof.entry)}")
