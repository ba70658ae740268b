"""`strongroom contract new --compose FILE`: one file in place of all other options."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from strongroom.cli.contract.shown import print_drafted
from strongroom.errors import Misuse

_BESIDE = frozenset({"compose", "out", "replaces"})


def new(context: typer.Context, compose: Path, *, out: Path, replaces: Path | None) -> None:
    """Write the draft that the file means. Raises `Misuse` where something else was said beside it."""
    from strongroom.cli.project import shown
    from strongroom.parties import papers
    from strongroom.project import draft as drafting

    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in _BESIDE and source is not None and source.name == "COMMANDLINE":
            raise Misuse(
                f"--compose: goes with --out and --replaces alone, and {parameter.opts[0]} is given",
                hint="write it into the file: below x-strongroom",
            )
    agreement = drafting.draft_file(
        compose, now=datetime.now(UTC), replaces=replaces, on_read=shown.print_findings
    )
    papers.save_agreement(agreement, out=out)
    print_drafted(out, agreement.contract)
