"""`strongroom ledger show|verify|witness`: read a broker's ledger, and hold it to what it showed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.identity.files import IdentityFile, PassphraseFd, load
from strongroom.cli.printable import printable, say

if TYPE_CHECKING:
    from strongroom.fetch.brokers import BrokerReader

BrokerFile = Annotated[Path, typer.Argument(help="The party file of the broker's owner.")]
State = Annotated[
    Path | None,
    typer.Option(
        help="Where you remember the last checkpoint that you saw; by default PARTY_FILE.checkpoint, beside it."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Read a ledger and hold it to its word.", no_args_is_help=True)
    group.command("show")(show)
    group.command("verify")(verify)
    group.command("witness")(cosign)
    app.add_typer(group, name="ledger")


def show(
    broker: BrokerFile,
    run: Annotated[str, typer.Option(metavar="RUN", help="Only the entries of this run.")] = "",
    as_json: Json = False,
) -> None:
    """List the entries, after checking that they are what the signed checkpoint covers."""
    from strongroom.ledger import audit
    from strongroom.ledger.describe import describe, row_json

    source = _source(broker)
    audited = audit.read_entries(source, key=source.ledger_key, run=run)
    if as_json:
        print(json.dumps([row_json(index, entry) for index, entry in audited.rows]))
        return
    for index, entry in audited.rows:
        time_text = entry.time.strftime("%Y-%m-%d %H:%M:%S")
        print(
            f"{index:6}  {time_text}  {entry.kind.value:<12}  {printable(entry.run_id) or '-':<36}  {entry.contract_digest[:19] or '-'}"
        )
        say(f"        {describe(entry)}")
    print(f"{audited.checkpoint.size} entries, numbered from 0, root {audited.checkpoint.root.hex()[:16]}…")


def verify(
    broker: BrokerFile,
    state: State = None,
    against: Annotated[
        list[Path], typer.Option(help="A checkpoint that another party saw: no split view.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Check the whole ledger against its checkpoint, against what you saw before, and against others."""
    from strongroom.ledger import audit

    source = _source(broker)
    current = audit.verify_ledger(
        source, key=source.ledger_key, state=state or audit.remembered(broker), against=against
    )
    print(f"consistent: {current.size} entries, root {current.root.hex()[:16]}…")


def cosign(
    broker: BrokerFile, identity: IdentityFile, state: State = None, passphrase_fd: PassphraseFd = None
) -> None:
    """Check growth since the last time, cosign the checkpoint and remember it."""
    from strongroom.ledger import audit

    source = _source(broker)
    mine = load(identity, passphrase_fd)
    state = state or audit.remembered(broker)
    current = audit.witness_ledger(
        source, key=source.ledger_key, state=state, identity=mine, timestamp=int(time.time())
    )
    print(f"cosigned as {mine.name}: {current.size} entries, root {current.root.hex()[:16]}…")
    print(f"{state}: show this checkpoint to others, so that no two of you are shown two histories")


def _source(path: Path) -> BrokerReader:
    from strongroom.fetch import brokers
    from strongroom.parties import papers

    return brokers.reader_of(papers.load_party(path))
