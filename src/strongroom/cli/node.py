"""`strongroom node init|show`."""

from __future__ import annotations

import json
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="The node's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as `contract new --node` reads it.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Make and show a node: a machine that can run rooms.", no_args_is_help=True)
    group.command("init")(init)
    group.command("show")(show)
    app.add_typer(group, name="node")


def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="The node's name; the machine's own by default.")] = "",
    as_json: Json = False,
) -> None:
    """Make a node: its certificate authority, and a software TPM with an attestation key."""
    from strongroom.node import founding

    chosen = name or socket.gethostname().split(".")[0].lower()
    node = founding.create(folder, chosen, now=datetime.now(UTC), random=secrets.token_bytes)
    _print(node.to_json(), as_json=as_json)
    if not as_json:
        print("SIMULATED   a software TPM: contracts must say that they accept that")


def show(folder: Folder, as_json: Json = False) -> None:
    """Show what a contract needs to know of a node: its root certificate and its machine."""
    from strongroom.node import tpm_state

    _print(tpm_state.load(folder).to_json(), as_json=as_json)


def _print(node: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(node))
        return
    print(f"node        {node['name']}")
    print(f"root        {node['root']}")
    print(f"machine     {node['machine']}")
