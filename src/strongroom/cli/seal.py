"""`strongroom seal`: files in, one sealed disk, its manifest and its key out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import interruption, meter
from strongroom.cli.identity.files import IdentityFile, PassphraseFd, load


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("seal")(seal)


def seal(
    paths: Annotated[list[Path], typer.Argument(help="A folder (its contents), or files and folders.")],
    identity: IdentityFile,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The dataset's name: lower-case letters, digits, dashes.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for NAME.disk, NAME.manifest.json and NAME.key.age.")
    ] = Path(),
    key_file: Annotated[
        Path | None,
        typer.Option(help="Use the key in this NAME.key.age instead of a new one: same input, same disk."),
    ] = None,
    passphrase_fd: PassphraseFd = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Seal files into an encrypted disk that only a room under your contract can open."""
    from strongroom.seal import dataset

    dataset.check_name(name)
    dataset.check_place(paths, out=out)
    mine = load(identity, passphrase_fd)
    begin = time.monotonic()
    with interruption.orderly():
        sealed = dataset.seal_files(
            paths, name=name, owner=mine, out=out, key_file=key_file, steps=meter.meter
        )
    if as_json:
        print(
            json.dumps(
                {
                    "name": name,
                    "disk": str(sealed.disk),
                    "manifest": str(sealed.manifest_file),
                    "key": str(sealed.key_file),
                    "digest": sealed.manifest.digest,
                    "root_hash": sealed.manifest.root_hash,
                    "disk_bytes": sealed.manifest.disk_bytes,
                }
            )
        )
        return
    if sealed.empty:
        print(f"note: no file is in {', '.join(map(str, paths))}: the disk is empty", file=sys.stderr)
    print(f"sealed    {sealed.disk} ({meter.rate(sealed.manifest.disk_bytes, time.monotonic() - begin)})")
    print(
        f"manifest  {sealed.manifest_file} (signed by {mine.name}; contracts name {sealed.manifest.digest})"
    )
    print(f"key       {sealed.key_file} (opens with your identity alone; your broker needs it)")
