"""`strongroom evidence show`: what a room's evidence says, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files
from strongroom.crypto import digest
from strongroom.evidence import describe
from strongroom.model import evidence as evidence_model


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Look into a room's evidence.", no_args_is_help=True)

    @group.callback()
    def evidence() -> None:
        """Keep `show` a verb of its own while it is the only one."""

    group.command("show")(show)
    app.add_typer(group, name="evidence")


def show(
    file: Annotated[Path, typer.Argument(help="An evidence file (evidence-PARTY.json of a run).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show every field of evidence and what it means. Nothing is verified: see `strongroom proof verify`."""
    evidence = evidence_model.parse(files.read(file, max_bytes=2 * evidence_model.MAX_BYTES).strip())
    found = describe.describe(evidence)
    name = digest.sha256(evidence.encode())
    if as_json:
        listed = [one.to_json() for one in found]
        print(json.dumps({"tee": evidence.tee, "digest": name, "verified": False, "fields": listed}))
        return
    print(f"evidence  {name}")
    print(f"TEE       {evidence.tee}")
    print("verified  no: this is what the evidence says of itself (`strongroom proof verify` judges)")
    part = ""
    for one in found:
        if one.part != part:
            part = one.part
            print(f"\n{part}")
        print(f"  {one.name:<14}{one.value}" + (f"\n  {'':<14}({one.meaning})" if one.meaning else ""))
