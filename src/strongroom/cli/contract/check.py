"""`strongroom contract check`: would this run today?"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli.contract.shown import ContractFile
from strongroom.cli.printable import printable, say
from strongroom.errors import Misuse, StrongroomError

if TYPE_CHECKING:
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.party import BrokerAddress
    from strongroom.parties.check import Outlook


def check(
    file: ContractFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask",
            help="Ask the brokers too: runs used, versions, keys. They must be reachable from here, and get the contract with its signatures.",
        ),
    ] = False,
    trust: Annotated[
        list[Path],
        typer.Option(
            help="With --ask: the party file that you have of another party. Its broker is asked by that file's address, even where the party has not signed."
        ),
    ] = [],  # noqa: B006 - typer copies it
    room: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ask about that room of the contract alone."),
    ] = None,
    runs_used: Annotated[
        int | None, typer.Option(help="Runs that have happened already, where you know.", min=0)
    ] = None,
) -> None:
    """Would this run today, and who must still sign? Leaves with 3 when it would not."""
    from strongroom.model.identifiers import RoomName
    from strongroom.node import foreseen
    from strongroom.parties import check as checking
    from strongroom.parties.papers import load_agreement, load_party

    agreement = load_agreement(file)
    if room is not None:
        agreement.contract.room(RoomName(room))
    if trust and not ask:
        raise Misuse(
            "--trust: goes with --ask",
            hint="add --ask, which asks the broker at the address in that file; or leave --trust out",
        )
    outlook = checking.check_contract(
        agreement,
        now=datetime.now(UTC),
        room=None if room is None else RoomName(room),
        runs_used=runs_used,
        ask=(lambda address, signed, room: foreseen.ask(address, signed, room, ()).checks) if ask else None,
        trust=[load_party(path) for path in trust],
        on_ask=_say_whom,
    )
    if as_json:
        print(json.dumps(_document(agreement, outlook)))
    else:
        _print(outlook, runs_known=runs_used is not None)
    outlook.require()
    if not as_json:
        print("it would run now, in a room that its platforms accept")


def _say_whom(party: str, address: BrokerAddress, by_file: bool) -> None:
    who = "the party file that you gave" if by_file else f"{party}'s signature"
    print(
        printable(f"asking {party}'s broker at {address.url} (address by {who}): it gets the contract"),
        file=sys.stderr,
    )


def _print(outlook: Outlook, *, runs_known: bool) -> None:
    for check in outlook.checks:
        say(f"{'yes' if check.ok else 'NO '}  {check.name}: expected {check.expected}, got {check.got}")
    several = len({room for _, room in outlook.brokers}) > 1
    for (party, room), row in outlook.brokers.items():
        if isinstance(row, StrongroomError):
            say(f"?    the broker of {party} cannot be asked: {row.message}")
            continue
        about = f" about {room}" if several else ""
        for check in row:
            say(
                f"{'yes' if check.ok else 'NO '}  {party}'s broker{about}, {check.name}: expected {check.expected}, got {check.got}"
            )
    if not outlook.brokers and not runs_known:
        print(
            "?    how many runs are used, and what versions and keys the brokers know, was not asked: --ask does"
        )


def _document(agreement: Agreement, outlook: Outlook) -> dict[str, Any]:
    from strongroom.cli import failures

    return {
        "would_run": outlook.would_run,
        "missing": list(agreement.missing()),
        "checks": [check.to_json() for check in outlook.checks],
        "brokers": [
            {
                "party": party,
                "room": room,
                **(
                    {"error": failures.describe(row)}
                    if isinstance(row, StrongroomError)
                    else {"checks": [check.to_json() for check in row]}
                ),
            }
            for (party, room), row in outlook.brokers.items()
        ],
    }
