"""`strongroom base build|show|measure|clean`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from strongroom.convert.base_document import Base

Folder = Annotated[Path | None, typer.Argument(help="The base's folder; the one built last by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Build and measure the base that every room boots.", no_args_is_help=True)
    group.command("build")(build)
    group.command("show")(show)
    group.command("measure")(measure)
    group.command("clean")(clean)
    app.add_typer(group, name="base")


def build(
    out: Annotated[Path | None, typer.Option(help="Put a copy into this new folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even what the cache has.")] = False,
    debug_console: Annotated[
        bool,
        typer.Option(
            "--debug-console",
            help="A base that talks on a serial port. Measured: no contract for the silent one.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the base from Debian packages and the agent, or take it from the cache."""
    from strongroom.cli import interruption
    from strongroom.convert import base

    started = time.monotonic()

    def progress(step: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {step}", file=sys.stderr)

    progress("looking at packages")
    with interruption.orderly():
        built = base.build(
            base.sources(debug=debug_console),
            base.default_cache(dict(os.environ)),
            progress,
            out=out,
            force=force,
        )
    progress("taken from the cache" if built.cached else "built")
    if as_json:
        print(json.dumps({"folder": str(built.folder), "cached": built.cached, **_json(built.base)}))
        return
    _table(built.folder, built.base)


def show(folder: Folder = None, as_json: Json = False) -> None:
    """Show what a base's document says."""
    from strongroom.convert import base_document

    where = _folder(folder)
    found = base_document.load(where)
    if as_json:
        print(json.dumps({"folder": str(where), **_json(found)}))
        return
    _table(where, found)


def measure(folder: Folder = None, as_json: Json = False) -> None:
    """Compute a base's measurement anew from its files, and compare: exit 3 when anything differs."""
    from strongroom.convert import base, base_document
    from strongroom.errors import Refused

    where = _folder(folder)
    stored = base_document.load(where)
    found = base_document.measure(where, firmware=base.FIRMWARE)
    differing = base_document.differences(stored, found)
    if differing:
        name, expected, got = differing[0]
        raise Refused(
            f"{where}: {name} is not what base.json says: expected {expected}, got {got}"
            + (f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""),
            code="base-differs",
            hint="build the base again; if only the firmware differs, this machine's SeaBIOS is another version",
        )
    if as_json:
        print(json.dumps({"folder": str(where), **_json(found)}))
        return
    _table(where, found)
    print("measured    every file is what base.json says")


def clean() -> None:
    """Remove everything that builds have kept: packages, intermediate results and bases."""
    from strongroom.convert import base

    cache = base.default_cache(dict(os.environ))
    for name in ("base", "compiled", "debs", "unpacked"):
        if (cache / name).is_dir():
            shutil.rmtree(cache / name)
    (cache / "imports.json").unlink(missing_ok=True)
    print(f"cleaned     {cache}")


def _folder(folder: Path | None) -> Path:
    from strongroom.convert import base

    return folder or base.current(base.default_cache(dict(os.environ)))


def _json(base: Base) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(base.encode())
    return decoded


def _table(folder: Path, base: Base) -> None:
    print(f"base        {folder}")
    for name, (size, what) in base.files.items():
        print(f"{name:<12}{what}  {size / 1e6:7.2f} MB")
    print(f"total       {base.total_bytes / 1e6:.2f} MB")
    for name, value in base.reference.items():
        print(f"{name:<12}{value}")
    print(f"root hash   {base.root_hash}")
    print(f"PCR 0       {base.pcr0['guarded']} (with the memory guard)")
    print(f"            {base.pcr0['unguarded']} (without)")
    if base.debug:
        print("DEBUG       this base talks on a serial port: what the room prints is for everybody to read")
