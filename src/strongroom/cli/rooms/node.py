"""`strongroom node init|show|doctor`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from strongroom.node.doctor import Ability

Folder = Annotated[Path, typer.Argument(help="The node's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as `contract new --node` reads it.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Make and show a node: a machine that can run rooms.", no_args_is_help=True)
    group.command("init")(init)
    group.command("show")(show)
    group.command("doctor")(doctor)
    app.add_typer(group, name="node")


def init(
    folder: Folder,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The node's name; the machine's own by default.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make a node: its certificate authority, and a software TPM with an attestation key."""
    from strongroom.node.vtpm import create

    chosen = name or os.uname().nodename.split(".")[0].lower()
    node = create.create(folder, chosen, now=datetime.now(UTC))
    _print(node.to_json(), as_json=as_json)
    if not as_json:
        print("SIMULATED   a software TPM: contracts must say that they accept that")


def show(folder: Folder, as_json: Json = False) -> None:
    """Show what a contract needs to know of a node: its root certificate and its machine."""
    from strongroom.node.vtpm import state

    _print(state.load(folder).to_json(), as_json=as_json)


def doctor(
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="tpm|qemu-snp|qemu-tdx|nitro",
            help="One back end only; leave with 4 when this machine cannot run its rooms.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say which rooms this machine can run, what each back end lacks, and what to do about it."""
    from strongroom.errors import Misuse
    from strongroom.node import backends
    from strongroom.node import doctor as examination

    if backend is not None and backend not in backends.BACKENDS:
        raise Misuse(
            f"--backend {backend[:40]!r}: none of {', '.join(backends.BACKENDS)}",
            code="no-backend",
            hint="`strongroom node doctor` without --backend shows them all",
        )
    host = examination.Host()
    abilities = [ability for ability in examination.examine(host) if backend in (None, ability.backend)]
    if as_json:
        print(json.dumps([ability.to_json() for ability in abilities]))
    else:
        for ability in abilities:
            _print_ability(ability)
    if backend is not None:
        backends.require(backends.BACKENDS[backend], host)


def _print_ability(ability: Ability) -> None:
    from strongroom.cli.printable import printable

    print(f"{ability.backend:<10}{'yes' if ability.able else 'no'}    {ability.about}")
    for need in ability.needs:
        mark = "ok " if need.ok else ("-- " if need.optional else "NO ")
        print(f"    {mark} {need.name}: {printable(need.found)}")
        if not need.ok:
            print(f"        {need.fix}")


def _print(node: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(node))
        return
    print(f"node        {node['name']}")
    print(f"root        {node['root']}")
    print(f"machine     {node['machine']}")
