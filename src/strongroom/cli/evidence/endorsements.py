"""`strongroom endorsements`: what vendors say of their hardware, fetched beforehand, kept, carried over air gaps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom import files
from strongroom.encoding import fields
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.fetch.endorsements.library import Library, ListedStatement
    from strongroom.fetch.endorsements.resolve import Vendors
    from strongroom.fetch.http.client import Client
    from strongroom.model.evidence import Evidence

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
    from strongroom.evidence.wrappings import recognise_endorsements
    from strongroom.fetch.endorsements.resolve import Fetcher

    given, brought = _evidence(evidence, at_place)
    if vek is not None:
        brought = files.parsed(
            vek,
            lambda data: recognise_endorsements.in_der(data, b"CERTIFICATE"),
            max_bytes=_MAX_VEK,
        )
    fetcher = Fetcher(
        library=make_library(folder, root, offline=offline),
        vendors=make_vendors(pccs, kds, ca),
        update="early" if early else "standard",
        refresh=refresh,
    )
    fetched = fetcher.endorse(given, now=datetime.now(UTC), vek=brought)
    if out is not None:
        files.write(out, fetched.encode(), replace=True)
    if as_json:
        sizes = {name: len(part) for name, part in sorted(fetched.parts.items())}
        print(json.dumps({"tee": given.tee, "parts": sizes, "out": None if out is None else str(out)}))
        return
    if not fetched.parts:
        print(f"{given.tee}: this evidence takes no endorsements")
    for name, part in sorted(fetched.parts.items()):
        print(f"{name:<26}{len(part):>8} bytes")


def show(folder: Folder = None, root: Roots = None, as_json: AsJson = False) -> None:
    """List what is kept, and until when each counts by its vendor's word."""
    listed = list(make_library(folder, root, offline=True).listed(now=datetime.now(UTC)))
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
    from strongroom.fetch.endorsements import bundle

    data = bundle.export(make_library(folder, root, offline=True), now=datetime.now(UTC))
    files.write(file, data, replace=True)
    print(f"{file}: {len(bundle.parse(data))} statements, {len(data)} bytes")


def take(
    file: Annotated[Path, typer.Argument(help="A file that `export` wrote.")],
    folder: Folder = None,
    root: Roots = None,
    as_json: AsJson = False,
) -> None:
    """Take a file in: each statement judged as if its vendor's service had sent it; older than seen is refused."""
    from strongroom.fetch.endorsements import bundle

    library = make_library(folder, root, offline=True)
    done = files.parsed(
        file, lambda data: bundle.take(data, library, now=datetime.now(UTC)), max_bytes=bundle.MAX_BYTES
    )
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


_MAX_VEK = 16 * 1024


def _evidence(file: Path, place: str | None) -> tuple[Evidence, bytes | None]:
    """The evidence in a file, and the chip's certificate where the file has one beside it."""
    from strongroom.evidence.wrappings import recognise

    recognised = files.parsed(
        file, lambda data: recognise.recognise(data, place=place), max_bytes=recognise.MAX_FILE
    )
    return recognised.evidence, recognised.endorsements.get("vek")


def make_vendors(pccs: str | None, kds: str | None, ca: Path | None) -> Vendors:
    """Whom to ask, the vendors' own services unless told otherwise. Raises `Misuse`."""
    from strongroom.fetch.endorsements.intel import PCS, Pcs
    from strongroom.fetch.endorsements.resolve import Vendors
    from strongroom.fetch.http.client import Service

    def configured(option: str, base: str) -> Service:
        service = Service(base=base, private=True, ca=ca)
        try:
            service.place()
        except Misuse as cause:
            raise Misuse(f"{option}: {cause.message}", code=cause.code, hint=cause.hint) from None
        return service

    if ca is not None and pccs is None and kds is None:
        raise Misuse(
            "--ca: for --pccs and --kds alone",
            hint="leave --ca out: vendors' own services are known by the system's CAs",
        )
    vendors = Vendors(pcs=PCS if pccs is None else Pcs(api=configured("--pccs", pccs), lists=None))
    return vendors if kds is None else Vendors(pcs=vendors.pcs, kds=configured("--kds", kds))


def make_library(
    folder: Path | None, root: list[str] | None, *, offline: bool, client: Client | None = None
) -> Library:
    """What is kept in `folder`. client: the way out. Raises `Misuse`."""
    from strongroom.evidence.roots import PINNED
    from strongroom.fetch.endorsements.disk_cache import Shelf
    from strongroom.fetch.endorsements.library import Library
    from strongroom.fetch.endorsements.rollback import Marks
    from strongroom.fetch.http.client import Client

    for digest in root or ():
        if fields.DIGEST.fullmatch(digest) is None:
            raise Misuse(
                f"--root: expected sha256: and 64 lower-case hexadecimal digits, got {digest[:100]!r}",
                hint="the SHA-256 of the root's public key: `openssl x509 -in ROOT.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum`",
            )
    place = folder or files.state_folder("endorsements")
    return Library(
        shelf=Shelf(folder=place),
        marks=Marks(folder=place),
        client=client or Client(),
        roots=PINNED | frozenset(root or ()),
        offline=offline,
    )


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
