"""`strongroom endorsements`: what vendors say of their hardware, fetched beforehand, kept, carried over air gaps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.encoding import fields

if TYPE_CHECKING:
    from strongroom.fetch.endorsements.library import ListedStatement

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        help="Where they are kept. Default: $XDG_STATE_HOME/strongroom/endorsements (~/.local/state/…).",
    ),
]
Roots = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="sha256:…",
        help="Digest of one more root that counts (sha256:…). Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(
        help="Fetch and keep what vendors say of their hardware. Verifying itself never asks anybody.",
        no_args_is_help=True,
    )
    group.command("fetch")(fetch)
    group.command("list")(show)
    group.command("import")(take)
    group.command("export")(export)
    app.add_typer(group, name="endorsements")


def fetch(
    evidence: Annotated[Path, typer.Option(help="The evidence that is to be verified, of any kind.")],
    at_place: Annotated[
        str | None, typer.Option("--at-place", help="Which of several pieces in that file, by its place.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the endorsements of that evidence here.")] = None,
    folder: Folder = None,
    root: Roots = None,
    vek: Annotated[
        Path | None, typer.Option(help="A VLEK or VCEK certificate (DER or PEM) that the host handed out.")
    ] = None,
    early: Annotated[
        bool, typer.Option("--early", help="Intel's early TCB infos. Standard ones are refused from then on.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask, though what is kept still counts.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: from what is kept, or not at all.")
    ] = False,
    pccs: Annotated[
        str | None,
        typer.Option(
            metavar="https://HOST[:PORT]",
            help="A PCCS instead of Intel (https://HOST[:PORT]); may be in your network.",
        ),
    ] = None,
    kds: Annotated[
        str | None,
        typer.Option(
            metavar="https://HOST[:PORT]", help="A mirror instead of AMD's KDS; may be in your network."
        ),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The only CA (PEM) trusted for --pccs and --kds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch what verifying EVIDENCE takes, and keep it. Prints which; `--out` gives them to a verifier."""
    from strongroom.fetch.endorsements import fetch as fetching
    from strongroom.fetch.endorsements.resolve import Fetcher

    fetcher = Fetcher(
        library=fetching.open_library(folder, roots=root or (), offline=offline),
        vendors=fetching.choose_vendors(pccs=pccs, kds=kds, ca=ca),
        update="early" if early else "standard",
        refresh=refresh,
    )
    fetched = fetching.fetch_endorsements(
        evidence, fetcher=fetcher, now=datetime.now(UTC), place=at_place, vek=vek, out=out
    )
    parts = sorted(fetched.endorsements.parts.items())
    if as_json:
        sizes = {name: len(part) for name, part in parts}
        print(json.dumps({"tee": fetched.tee, "parts": sizes, "out": None if out is None else str(out)}))
        return
    if not parts:
        print(f"{fetched.tee}: this evidence takes no endorsements")
    for name, part in parts:
        print(f"{name:<26}{len(part):>8} bytes")


def show(folder: Folder = None, root: Roots = None, as_json: AsJson = False) -> None:
    """List what is kept, and until when each counts by its vendor's word."""
    from strongroom.fetch.endorsements import fetch as fetching

    library = fetching.open_library(folder, roots=root or (), offline=True)
    listed = list(library.listed(now=datetime.now(UTC)))
    if as_json:
        print(json.dumps([_described(row) for row in listed]))
        return
    for row in listed:
        described = _described(row)
        number = "" if described["number"] is None else f"  number {described['number']}"
        print(
            f"{described['key']}\n  {described['state']}, until {described['until'] or '?'}, fetched {described['fetched']}{number}"
        )
    if not listed:
        print("nothing is kept")


def export(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    folder: Folder = None,
    root: Roots = None,
) -> None:
    """Write all that counts now into one file, for `import` where no network reaches."""
    from strongroom.fetch.endorsements import fetch as fetching

    library = fetching.open_library(folder, roots=root or (), offline=True)
    exported = fetching.export_endorsements(library, out=file, now=datetime.now(UTC))
    print(f"{file}: {exported.statements} statements, {exported.size} bytes")


def take(
    file: Annotated[Path, typer.Argument(help="A file that `export` wrote.")],
    folder: Folder = None,
    root: Roots = None,
    as_json: AsJson = False,
) -> None:
    """Take a file in: each statement judged as if its vendor's service had sent it; older than seen is refused."""
    from strongroom.fetch.endorsements import fetch as fetching

    library = fetching.open_library(folder, roots=root or (), offline=True)
    done = fetching.import_endorsements(file, library=library, now=datetime.now(UTC))
    outcomes = {
        "kept": list(done.kept),
        "newer kept before": list(done.newer_before),
        "past their end": list(done.past),
    }
    if as_json:
        print(json.dumps(outcomes))
        return
    for what, keys in outcomes.items():
        for key in keys:
            print(f"{what}: {key}")


def _described(listed: ListedStatement) -> dict[str, object]:
    terms = listed.terms
    return {
        "key": listed.statement.key,
        "state": listed.state,
        "fetched": fields.format_time(listed.statement.fetched),
        "until": None if terms is None else fields.format_time(terms.until),
        "number": None if terms is None or not terms.marks else terms.marks[0].number,
        "parts": {name: len(part) for name, part in sorted(listed.statement.parts.items())},
    }
