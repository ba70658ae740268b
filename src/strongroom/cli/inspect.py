"""`strongroom inspect`: what a manifest says. It needs no key, and believes nothing: see `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strongroom import files
from strongroom.cli import meter
from strongroom.cli.printable import say
from strongroom.errors import NotFound


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("inspect")(inspect)


def inspect(
    file: Annotated[Path, typer.Argument(help="A sealed disk (its manifest lies beside it) or a manifest.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest's payload as JSON.")] = False,
) -> None:
    """Show what a sealed disk claims to be. Nothing is checked; that is what verify is for."""
    from strongroom.model import manifest as manifest_model
    from strongroom.seal import dataset

    if not file.exists():
        raise NotFound(
            f"{file}: no such file", hint="name a sealed disk, NAME.disk, or its NAME.manifest.json"
        )
    path = dataset.manifest_of(file, None, hint=dataset.NO_OPTION) if file.suffix == ".disk" else file
    envelope, manifest = files.parsed(path, manifest_model.parse_envelope, max_bytes=dataset.MAX_MANIFEST)
    if as_json:
        print(json.dumps({**json.loads(manifest.raw), "digest": manifest.digest}))
        return
    print(f"name       {manifest.name} ({manifest.kind})")
    print(f"digest     {manifest.digest}")
    print(f"owner      {manifest.owner}")
    say(
        f"signed by  {', '.join(signature.keyid for signature in envelope.signatures) or 'nobody'} (not checked here)"
    )
    print(f"cipher     {manifest.cipher}")
    print(f"size       {meter.size(manifest.disk_bytes)}, of which {meter.size(manifest.data_bytes)} data")
    print(f"root hash  {manifest.root_hash}")
    if manifest.image is not None:
        image = manifest.image
        print(f"source     {image.source}")
        say(f"runs       {json.dumps([*image.entrypoint, *image.command])}")
        say(f"as         {image.uid}:{image.gid} in {image.working_directory}")
