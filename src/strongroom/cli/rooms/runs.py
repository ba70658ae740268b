"""`strongroom runs`: the runs below a folder: what they do now, how they ended, and how to read a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli.printable import say
from strongroom.errors import NotFound
from strongroom.node import runs as run_folders
from strongroom.node.run_status import ENDED, State


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("runs")(runs)


def runs(
    folder: Annotated[
        Path, typer.Argument(help="Where to look: a run's folder, or one that has such below.")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List runs with their state, progress and outcome; also those that go on now."""
    if not folder.is_dir():
        raise NotFound(
            f"{folder}: no such folder",
            code="no-such-file",
            hint="name the --out folder of a run, or a folder that has such below it",
        )
    found = run_folders.find(folder)
    if as_json:
        print(json.dumps([one.to_json() for one in found]))
        return
    for one in found:
        began = next(iter(one.times.values()), "")
        say(
            f"{one.folder}  {one.contract_id or one.contract_digest[:19]}  {_state(one)}  {began}  {one.milliseconds / 1000:.1f} s"
        )
        if one.run_id:
            say(f"    {one.run_id}")
        if one.error:
            say(f"    {one.error}")
        if one.held:
            say(f"    NO ROOM for {', '.join(one.held)}: make room there before the run gives up")
        if one.state is State.DONE and not one.good:
            for line in run_folders.reading_the_log(one.folder):
                say(f"    {line}")
    print(f"{len(found)} run(s)")


def _state(one: run_folders.NodeRun) -> str:
    if one.state is State.DONE:
        return f"{one.outcome}, status {one.exit_status}"
    if one.state in ENDED:
        return one.state.value
    return f"{one.state.value} ({one.phase})" if one.phase else one.state.value
