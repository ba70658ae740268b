"""`strongroom doctor [VERB]`: what this machine lacks for which verb, and what to type."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from strongroom.node.requirements import Row

_WIDTH = 34


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor")(doctor)


def doctor(
    verb: Annotated[
        list[str] | None,
        typer.Argument(metavar="VERB…", help="One verb only; leave with 4 when this machine cannot do it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what this machine lacks for which verb, and what to type for it. Nothing is started or asked for.

    `strongroom node doctor` tells every need of rooms, with what was found.
    """
    import strongroom
    from strongroom.errors import Misuse
    from strongroom.node import requirements

    words = tuple(verb or ())
    rows = requirements.rows_of(requirements.examine(requirements.MachineFacts()), words)
    if not rows:
        raise Misuse(
            f"doctor: no verb {' '.join(words)[:40]!r}",
            code="no-verb",
            hint="`strongroom doctor` without a verb shows them all",
        )
    if as_json:
        verbs = [row.to_json() for row in rows]
        print(json.dumps({"version": strongroom.__version__, "verbs": verbs}))
    else:
        for row in rows:
            _print_row(row)
    if words:
        requirements.require(rows, words)


def _print_row(row: Row) -> None:
    from strongroom.cli.printable import printable

    names = textwrap.wrap(", ".join(row.verbs), _WIDTH)
    state = (
        "yes" if row.able else "no"
    )  # as `node doctor`: what is optional is listed, and keeps nothing from working
    print("\n".join([f"{names[0]:<{_WIDTH + 2}}{state}", *names[1:]]))
    for need in row.lacks:
        print(f"    {'--' if need.optional else 'NO'}  {need.name}: {printable(need.found)}")
        print(f"        {need.fix}")
