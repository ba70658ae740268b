"""`strongroom verify`: a sealed disk against its manifest, byte for byte, without any key."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import meter


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("verify")(verify)


def verify(
    disk: Annotated[Path, typer.Argument(help="The sealed disk.")],
    manifest: Annotated[Path | None, typer.Option(help="Its manifest; the one beside it by default.")] = None,
    owner: Annotated[
        Path | None, typer.Option(help="The owner's party file: checks the signature on the manifest too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Check that every byte of a sealed disk is what its manifest says, and name the first block that is not."""
    from strongroom.parties import papers
    from strongroom.seal import dataset

    party = None if owner is None else papers.load_party(owner)
    begin = time.monotonic()
    verified = dataset.verify_disk(disk, manifest=manifest, owner=party, steps=meter.meter)
    if as_json:
        print(
            json.dumps(
                {"digest": verified.digest, "root_hash": verified.root_hash, "signature": owner is not None}
            )
        )
        return
    print(f"sound      {disk} ({meter.rate(verified.disk_bytes, time.monotonic() - begin)})")
    print(f"digest     {verified.digest}")
    signed = (
        f"by {verified.owner}"
        if owner is not None
        else "not checked (name the owner's party file with --owner)"
    )
    print(f"signature  {signed}")
