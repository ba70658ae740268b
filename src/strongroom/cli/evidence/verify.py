"""`strongroom verify`: a sealed disk against its manifest, byte for byte, without any key."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files, meter
from strongroom.cli.inspect import MAX_MANIFEST, manifest_of
from strongroom.errors import NotFound
from strongroom.model import manifest as manifest_model
from strongroom.model import party as party_model


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
    from strongroom.seal import disk as disk_layer

    if not disk.exists():
        raise NotFound(
            f"{disk}: no such file", hint="name a sealed disk, NAME.disk, as `seal` and `convert` write it"
        )
    path = manifest_of(disk, manifest)
    envelope, wanted = files.parsed(path, manifest_model.parse_envelope, max_bytes=MAX_MANIFEST)
    if owner is not None:
        party = files.parsed(owner, party_model.parse, max_bytes=party_model.MAX_BYTES)
        disk_layer.check_owner(envelope, wanted, party.signing_key)
    begin = time.monotonic()
    with meter.meter(f"verifying {disk.name}") as progress:
        disk_layer.verify(disk, wanted, progress=progress)
    if as_json:
        print(
            json.dumps(
                {"digest": wanted.digest, "root_hash": wanted.root_hash, "signature": owner is not None}
            )
        )
        return
    print(f"sound      {disk} ({meter.rate(wanted.disk_bytes, time.monotonic() - begin)})")
    print(f"digest     {wanted.digest}")
    signed = (
        f"by {wanted.owner}"
        if owner is not None
        else "not checked (name the owner's party file with --owner)"
    )
    print(f"signature  {signed}")
