"""`strongroom base build|show|measure|verify|clean`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from strongroom.bases.document import Base

Folder = Annotated[Path | None, typer.Argument(help="The base's folder; the one built last by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Build and measure the base that every room boots.", no_args_is_help=True)
    group.command("build")(build)
    group.command("show")(show)
    group.command("measure")(measure)
    group.command("verify")(verify)
    group.command("clean")(clean)
    app.add_typer(group, name="base")


def build(
    for_: Annotated[
        str,
        typer.Option(
            "--for", metavar="PROFILE[,PROFILE]", help="Profiles, with commas: local, uki, snp, tdx, nitro."
        ),
    ] = "local",
    out: Annotated[
        Path | None,
        typer.Option(help="Put a copy into this new folder; of several profiles, into folders below it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even what the cache has.")] = False,
    debug_console: Annotated[
        bool,
        typer.Option(
            "--debug-console",
            help="A base that talks on a serial port. Measured: no contract for the silent one.",
        ),
    ] = False,
    eif_key: Annotated[
        Path | None, typer.Option(help="Sign the image for Nitro with this P-384 key (PEM): PCR 8.")
    ] = None,
    eif_certificate: Annotated[Path | None, typer.Option(help="That key's certificate (PEM).")] = None,
    as_json: Json = False,
) -> None:
    """Build the base from Debian packages and the agent, or take it from the cache."""
    from strongroom.bases import build as base
    from strongroom.bases import inputs
    from strongroom.bases import profile as base_profile
    from strongroom.cli import interruption, options

    started = time.monotonic()
    profiles = base_profile.named(for_)
    _check_pair(eif_key, eif_certificate)
    signer = None
    if eif_key is not None and eif_certificate is not None:
        with options.value_of("--eif-key, --eif-certificate"):
            signer = inputs.load_signer(eif_key, eif_certificate)

    def progress(step: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {step}", file=sys.stderr)

    with interruption.orderly():
        bases = base.build_bases(
            profiles,
            cache=base.default_cache(dict(os.environ)),
            out=out,
            force=force,
            debug=debug_console,
            signer=signer,
            progress=progress,
        )
    if as_json:
        documents = [
            {"folder": str(built.folder), "cached": built.cached, **built.base.to_json()} for built in bases
        ]
        print(json.dumps(documents if len(profiles) > 1 else documents[0]))
        return
    for built in bases:
        _table(built.folder, built.base)


def show(folder: Folder = None, as_json: Json = False) -> None:
    """Show what a base's document says."""
    from strongroom.bases import document

    where = _folder(folder)
    base = document.load(where)
    if as_json:
        print(json.dumps({"folder": str(where), **base.to_json()}))
        return
    _table(where, base)


def measure(folder: Folder = None, as_json: Json = False) -> None:
    """Compute a base's measurement anew from its files, and compare: exit 3 when anything differs."""
    from strongroom.bases import build, document

    where = _folder(folder)
    measured = document.check(where, firmware=build.FIRMWARE)
    if as_json:
        print(json.dumps({"folder": str(where), **measured.to_json()}))
        return
    _table(where, measured)
    print("measured    every file is what base.json says")


def verify(
    folder: Folder = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build it again from the recorded packages, and compare.")
    ] = False,
    packages: Annotated[
        Path | None,
        typer.Option(help="With --rebuild: a folder of .deb files, for packages that apt no longer offers."),
    ] = None,
    as_json: Json = False,
) -> None:
    """See that a base is what its document says; with --rebuild, that anybody gets the same. Exit 3 when not."""
    from strongroom.bases import cache as base_cache
    from strongroom.bases import rebuild as base_rebuild
    from strongroom.cli import interruption
    from strongroom.errors import Misuse

    if not rebuild:
        if packages is not None:
            raise Misuse("--packages: goes with --rebuild", hint="add --rebuild, or leave --packages out")
        measure(folder, as_json)
        return
    where = _folder(folder)
    with interruption.orderly():
        rebuilt = base_rebuild.rebuild(
            where,
            base_cache.default(dict(os.environ)),
            lambda step: print(step, file=sys.stderr),
            packages=packages,
        )
    if as_json:
        print(
            json.dumps(
                {
                    "folder": str(where),
                    "identical": not rebuilt.differences,
                    "differences": list(rebuilt.differences),
                    "by_digest": list(rebuilt.by_digest),
                    "other_builder": rebuilt.other_builder,
                    "signed": rebuilt.signed,
                }
            )
        )
    for name in rebuilt.by_digest:
        print(
            f"note: {name}: taken from --packages by its digest; no list of Debian's says so", file=sys.stderr
        )
    if rebuilt.other_builder:
        print("note: this Strongroom's builder is not the one that built the base", file=sys.stderr)
    if rebuilt.signed:
        print("note: the image's signature is not judged here", file=sys.stderr)
    for difference in rebuilt.differences:
        print(f"differs: {difference}", file=sys.stderr)
    rebuilt.require(where)
    if not as_json:
        print("rebuilt     every file is the same, byte for byte")


def clean() -> None:
    """Remove everything that builds have kept: packages, intermediate results and bases."""
    from strongroom.bases import cache as base_cache

    cache = base_cache.default(dict(os.environ))
    base_cache.clean(cache)
    print(f"cleaned     {cache}")


def _check_pair(key: Path | None, certificate: Path | None) -> None:
    from strongroom.errors import Misuse

    if (key is None) != (certificate is None):
        given, missing = (
            ("--eif-certificate", "--eif-key") if key is None else ("--eif-key", "--eif-certificate")
        )
        raise Misuse(f"{given}: goes with {missing}", hint=f"give {missing} FILE too")


def _folder(folder: Path | None) -> Path:
    from strongroom.bases import build as base

    return folder or base.current(base.default_cache(dict(os.environ)))


def _table(folder: Path, base: Base) -> None:
    width = max(12, *(len(name) + 1 for name in base.files))
    print(f"{'base':<{width}}{folder}")
    print(f"{'profile':<{width}}{base.profile.name}")
    for name, (size, what) in base.files.items():
        print(f"{name:<{width}}{what}  {size / 1e6:7.2f} MB")
    print(f"{'total':<{width}}{base.total_bytes / 1e6:.2f} MB")
    for name, value in base.reference.items():
        print(f"{name:<{width}}{value}")
    print(f"{'root hash':<{width}}{base.root_hash}")
    if base.pcr0:
        print(f"{'PCR 0':<{width}}{base.pcr0['guarded']} (with the memory guard)")
        print(f"{'':<{width}}{base.pcr0['unguarded']} (without)")
    if base.debug:
        print("DEBUG       this base talks on a serial port: what the room prints is for everybody to read")
