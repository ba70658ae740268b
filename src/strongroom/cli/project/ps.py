"""`strongroom ps`: the services of a Compose file that is up, and how they are."""

from __future__ import annotations

import json

import typer

from strongroom.cli.printable import say
from strongroom.cli.project.options import AsJson, FileOption, compose_file


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ps")(ps)


def ps(file: FileOption = None, as_json: AsJson = False) -> None:
    """List the services with their state, how often their rooms were started, and where they are reached."""
    from strongroom.project import folder, upkeep

    rows = upkeep.rows(folder.existing(compose_file(file)))
    if as_json:
        print(json.dumps([row.to_json() for row in rows]))
        return
    for row in rows:
        kind = "job" if row.planned.is_job else "service"
        starts = 0 if row.child is None else row.child.starts
        phase = f" ({row.run.phase})" if row.run is not None and row.run.phase else ""
        where = "".join(f"  {address}" for address in row.addresses())
        say(f"{row.planned.name:<16} {kind:<8} {row.state}{phase}  {starts} start(s){where}")
        if row.run is not None and row.run.run_id:
            say(f"    {row.run.run_id}")
        if row.child is not None and row.child.error:
            say(f"    {row.child.error}")
