"""`strongroom logs`: what rooms' nodes say, and what programs printed in runs that ended."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.printable import say
from strongroom.cli.project.options import AsJson, FileOption, compose_file

if TYPE_CHECKING:
    from strongroom.project.upkeep import LogLine


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("logs")(logs)


def logs(
    service: Annotated[
        list[str], typer.Argument(help="Of which services; all by default.", metavar="[SERVICE…]")
    ] = [],  # noqa: B006
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    tail: Annotated[
        int | None, typer.Option(help="Of each service the last so many lines alone.", min=0)
    ] = None,
    file: FileOption = None,
    as_json: AsJson = False,
) -> None:
    """Show what the services' rooms said: the node's lines, and once a run has ended what the program printed, which you may open."""
    from strongroom.project import folder, upkeep

    state = folder.existing(compose_file(file))
    with contextlib.suppress(KeyboardInterrupt):
        for line in upkeep.log_lines(state, service, follow=follow, tail=tail):
            print_line(line, as_json=as_json)


def print_line(line: LogLine, *, as_json: bool) -> None:
    """One line, with whose it is."""
    if as_json:
        print(json.dumps({"service": line.name, "program": line.of_program, "line": line.text}), flush=True)
    else:
        say(f"{line.name}{' |' if line.of_program else ' :'} {line.text}")
