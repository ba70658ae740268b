"""`strongroom seal`: files in, one sealed disk, its manifest and its key out."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files, interruption, meter, options
from strongroom.cli.identity.files import IdentityFile, PassphraseFd, load
from strongroom.encoding import fields
from strongroom.errors import Misuse


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
    from strongroom.seal import disk, folder, keys
    from strongroom.seal.tree import EntryKind

    if fields.NAME.fullmatch(name) is None:
        raise Misuse(
            f"--name: expected {options.NAMES}, got {name[:80]!r}",
            code="bad-name",
            hint="a plain name, like flights or query-2",
        )
    _refuse_inside(paths, out)
    mine = load(identity, passphrase_fd)
    target = out / f"{name}{disk.SUFFIX}"
    key_target = disk.beside(target, disk.KEY_SUFFIX)
    key = keys.new(secrets.token_bytes)
    if key_file is not None:
        key = files.parsed(key_file, lambda data: keys.unlock(data, mine.age), max_bytes=keys.MAX_BYTES)
    entries = folder.from_paths(paths)
    out.mkdir(parents=True, exist_ok=True)
    same_file = key_file is not None and key_target.exists() and key_file.samefile(key_target)
    begin = time.monotonic()
    with interruption.orderly():
        if not same_file:
            files.write(key_target, keys.lock(key, mine.age.recipient), private=True)
        try:
            with meter.meter(f"sealing {name}") as progress:
                made = disk.seal(
                    entries,
                    kind="dataset",
                    name=name,
                    owner_key=mine.signing,
                    key=key,
                    image=None,
                    target=target,
                    progress=progress,
                )
        except BaseException:
            if not same_file:
                key_target.unlink(missing_ok=True)
            raise
    manifest = disk.beside(target, disk.MANIFEST_SUFFIX)
    if as_json:
        print(
            json.dumps(
                {
                    "name": name,
                    "disk": str(target),
                    "manifest": str(manifest),
                    "key": str(key_target),
                    "digest": made.digest,
                    "root_hash": made.root_hash,
                    "disk_bytes": made.disk_bytes,
                }
            )
        )
        return
    if not any(entry.kind is EntryKind.FILE for entry in entries):
        print(f"note: no file is in {', '.join(map(str, paths))}: the disk is empty", file=sys.stderr)
    print(f"sealed    {target} ({meter.rate(made.disk_bytes, time.monotonic() - begin)})")
    print(f"manifest  {manifest} (signed by {mine.name}; contracts name {made.digest})")
    print(f"key       {key_target} (opens with your identity alone; your broker needs it)")


def _refuse_inside(paths: list[Path], out: Path) -> None:
    """A disk inside the folder that it seals would hold itself the next time."""
    try:
        target = out.resolve()
    except RuntimeError:  # Python before 3.13 says so where it should say OSError
        raise Misuse(
            f"--out {out}: a link that leads to itself",
            code="bad-path",
            hint="name a folder with --out, or remove the link",
        ) from None
    for path in paths:
        if path.is_dir() and target.is_relative_to(path.resolve()):
            raise Misuse(
                f"--out {out} lies in {path}, which is being sealed",
                code="out-inside",
                hint="name an output folder elsewhere",
            )
