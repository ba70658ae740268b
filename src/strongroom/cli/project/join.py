"""`strongroom join`: what a Compose file of several parties needs of one of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli.printable import say
from strongroom.cli.project.options import compose_file


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("join")(join)


def join(
    party: Annotated[str, typer.Option("--as", metavar="PARTY", help="Which of the file's parties you are.")],
    compose: Annotated[
        Path | None,
        typer.Argument(
            help="The Compose file; compose.yaml or compose.yml here by default.", metavar="[FILE]"
        ),
    ] = None,
    operate: Annotated[
        bool,
        typer.Option(
            "--operate", help="You run the rooms, too: a node and a base are made, where the file names them."
        ),
    ] = False,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where your broker listens, if you have data.")
    ] = "127.0.0.1:0",
    url: Annotated[
        str | None, typer.Option(metavar="https://HOST:PORT", help="How rooms reach it, if not there.")
    ] = None,
) -> None:
    """Make what a Compose file needs of you, as one of its parties: identity, sealed data, converted images, a broker with your keys."""
    from strongroom.cli import interruption, passphrase
    from strongroom.cli.images import image_source
    from strongroom.cli.project import shown, up
    from strongroom.model.identifiers import PartyName
    from strongroom.project import file
    from strongroom.project import join as joining
    from strongroom.project.prepare import Surroundings

    path = compose_file(compose)
    project = file.load(path)
    shown.print_findings(project)
    secret: list[bytes] = []

    def ask() -> bytes:
        if not secret:
            secret.append(passphrase.read(None, what=f"passphrase of {party}, for identity and broker"))
        return secret[0]

    with up.progress(time.monotonic(), quiet=False) as tell, interruption.orderly():
        joined = joining.join(
            path,
            project,
            PartyName(party),
            passphrase=ask,
            listen=listen,
            url=url,
            operate=operate,
            around=Surroundings(cache=image_source.cache_folder(), now=datetime.now(UTC), say=tell),
        )
    for kept in joined.kept:
        say(f"keep         {kept}")
    for handed in joined.handed_around:
        say(f"hand around  {handed}")
    if joined.broker is not None:
        say(f"serve        strongroom broker serve {joined.broker}")
    say(
        f"next         when all have joined: strongroom contract new --compose {path} --out contract.json; then each signs"
    )
