"""`strongroom runs`: the runs below a folder: what they do now, how they ended, and how to read a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.printable import say

if TYPE_CHECKING:
    from strongroom.node.runs import NodeRun


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
    from strongroom.node import runs as run_folders
    from strongroom.node.run_status import State

    node_runs = run_folders.find(folder)
    if as_json:
        print(json.dumps([node_run.to_json() for node_run in node_runs]))
        return
    for node_run in node_runs:
        began = next(iter(node_run.times.values()), "")
        say(
            f"{node_run.folder}  {_what(node_run)}  {_state(node_run)}  {began}  {node_run.milliseconds / 1000:.1f} s"
        )
        if node_run.run_id:
            say(f"    {node_run.run_id}")
        if node_run.renewed:
            say(f"    attested again {node_run.renewals} time(s), last {_age(node_run)}")
        if node_run.error:
            say(f"    {node_run.error}")
        if node_run.held:
            say(f"    NO ROOM for {', '.join(node_run.held)}: make room there before the run gives up")
        if node_run.state is State.DONE and not node_run.good:
            for line in run_folders.reading_the_log(node_run.folder):
                say(f"    {line}")
    print(f"{len(node_runs)} run(s)")


def _age(node_run: NodeRun) -> str:
    """When, and how long ago where the run goes on."""
    from datetime import UTC, datetime

    from strongroom.encoding import fields
    from strongroom.errors import Malformed
    from strongroom.node.run_status import ENDED

    try:
        last = fields.Fields({"last": node_run.renewed}, "run status").time("last")
    except Malformed:
        return "at a time that is none"
    if node_run.state in ENDED:
        return f"at {node_run.renewed}"
    return f"{max(0, round((datetime.now(UTC) - last).total_seconds()))} s ago"


def _what(node_run: NodeRun) -> str:
    """The contract, and its room where somebody chose a name for it."""
    from strongroom.model.contracts.room_terms import DEFAULT_NAME

    named = node_run.contract_id or node_run.contract_digest[:19]
    return named if node_run.room in ("", DEFAULT_NAME) else f"{named}/{node_run.room}"


def _state(node_run: NodeRun) -> str:
    from strongroom.node.run_status import ENDED, State

    if node_run.state is State.DONE:
        return f"{node_run.outcome}, status {node_run.exit_status}"
    if node_run.state in ENDED:
        return node_run.state.value
    return f"{node_run.state.value} ({node_run.phase})" if node_run.phase else node_run.state.value
