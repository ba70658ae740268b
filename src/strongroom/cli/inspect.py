"""`strongroom inspect`: what a manifest says. It needs no key, and believes nothing: see `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import meter
from strongroom.cli.printable import say


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("inspect")(inspect)


def inspect(
    file: Annotated[Path, typer.Argument(help="A sealed disk (its manifest lies beside it) or a manifest.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest's payload as JSON.")] = False,
) -> None:
    """Show what a sealed disk claims to be. Nothing is checked; that is what verify is for."""
    from strongroom.seal import dataset

    inspected = dataset.inspect_disk(file)
    manifest = inspected.manifest
    if as_json:
        print(json.dumps(inspected.to_json()))
        return
    print(f"name       {manifest.name} ({manifest.kind})")
    print(f"digest     {manifest.digest}")
    print(f"owner      {manifest.owner}")
    say(f"signed by  {', '.join(inspected.signers) or 'nobody'} (not checked here)")
    print(f"cipher     {manifest.cipher}")
    print(f"size       {meter.size(manifest.disk_bytes)}, of which {meter.size(manifest.data_bytes)} data")
    print(f"root hash  {manifest.root_hash}")
    if manifest.image is not None:
        image = manifest.image
        print(f"source     {image.source}")
        say(f"runs       {json.dumps([*image.entrypoint, *image.command])}")
        say(f"as         {image.uid}:{image.gid} in {image.working_directory}")
