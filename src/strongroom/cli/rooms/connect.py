"""`strongroom connect`: verify a room, say what was verified, and have a local port lead to one of its ports."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import interruption
from strongroom.cli.printable import say

if TYPE_CHECKING:
    from strongroom.model.verification import Verification

SIMULATED = (
    "SIMULATED: this room runs without TEE hardware. The machine's operator could look into it,\n"
    "           and could have made its evidence up."
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("connect")(connect)


def connect(
    room: Annotated[
        str,
        typer.Argument(
            metavar="ROOM:PORT", help="The room and the name of its port, as the contract has them."
        ),
    ],
    contract: Annotated[
        Path | None,
        typer.Option(
            help="The signed contract, from a file that you trust; that of the Compose file here by default."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where the node leads to that port's tunnels (`run --tunnel`): HOST:PORT, PORT on this machine, or unix:PATH. By default as `up` made it.",
        ),
    ] = None,
    trust: Annotated[list[Path], typer.Option(help="A party file that you got by a way of your own.")] = [],  # noqa: B006 - typer copies it
    run: Annotated[
        str, typer.Option(help="The only run that is meant; any of the contract by default.")
    ] = "",
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where to listen; by default on 127.0.0.1, at a free port."),
    ] = "127.0.0.1:0",
    browser: Annotated[bool, typer.Option("--browser", help="Open it in a web browser.")] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Leave when the first who came has gone, and no other is left.")
    ] = False,
    only_verify: Annotated[bool, typer.Option("--verify", help="Verify, say so, and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Verify a room by its evidence, and have a local port lead to its program: TLS 1.3 that ends in the room. Ctrl-C ends it."""
    from strongroom.parties import papers
    from strongroom.tunnel import connect as connecting

    if contract is None or at is None:
        from strongroom.cli.project.options import compose_file
        from strongroom.project.reach import reach

        own = reach(compose_file(None), room)
        contract, at, trust = contract or own.contract, at or own.at, trust or [own.party]
    command = ["strongroom", "connect", room, "--contract", str(contract), "--at", at, "--verify"]
    for path in trust:
        command += ["--trust", str(path)]
    if run:
        command += ["--run", run]
    with interruption.orderly():
        connection = connecting.connect(
            room,
            agreement=papers.load_agreement(contract),
            at=at,
            trust=[papers.load_party(path) for path in trust],
            run=run,
            listen=connecting.read_address(listen),
            command=shlex.join(command),
        )
        try:
            host, number = connection.address
            address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
            if as_json:
                listening = None if only_verify else address
                print(
                    json.dumps({"verification": connection.verification.to_json(), "address": listening}),
                    flush=True,
                )
            else:
                _show(connection.verification)
                if not only_verify:
                    print(f"listening on {address}", flush=True)
            if only_verify:
                return
            if browser:
                import webbrowser

                webbrowser.open(f"http://{address}/")
            connection.serve(once=once)
        finally:
            connection.close()


def _show(verification: Verification) -> None:
    if verification.status == "simulated":
        print(SIMULATED)
    for step in verification.steps:
        say(f"{step.status:<11} {step.name}: {step.got}")
        if step.status != "verified" and step.hint:
            say(f"            {step.hint}")
    say(f"{verification.status}: {verification.subject}")
    say(f"again: {verification.command}")
