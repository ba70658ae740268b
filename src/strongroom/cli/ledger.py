"""`strongroom ledger show|verify|witness`: read a broker's ledger, and hold it to what it showed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files
from strongroom.cli.identity import IdentityFile, PassphraseFd, load
from strongroom.crypto import sign
from strongroom.encoding import reader
from strongroom.errors import Misuse, Refused
from strongroom.fetch import brokers
from strongroom.ledger import checkpoint as checkpoint_format
from strongroom.ledger import tiles, witness
from strongroom.model import party as party_model
from strongroom.model import record as record_model

BrokerFile = Annotated[Path, typer.Argument(help="The party file of the broker's owner.")]
State = Annotated[Path, typer.Option(help="Where you remember the last checkpoint that you saw.")]
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
    run: Annotated[str, typer.Option(help="Only the entries of this run.")] = "",
    as_json: Json = False,
) -> None:
    """List the entries, after checking that they are what the signed checkpoint covers."""
    source, key = _source(broker)
    checkpoint = checkpoint_format.verify(source.checkpoint(), key)
    rows = []
    for index, entry in enumerate(_audited(source, checkpoint)):
        one = record_model.parse(entry)
        if run and one.run != run:
            continue
        rows.append((index, one))
    if as_json:
        print(json.dumps([{"index": index, **json.loads(one.encode())} for index, one in rows]))
        return
    for index, one in rows:
        time_text = one.time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"{index:6}  {time_text}  {one.kind.value:<8}  {one.run or '-':<36}  {one.contract[:19]}")
    print(f"{checkpoint.size} entries, root {checkpoint.root.hex()[:16]}…")


def verify(
    broker: BrokerFile,
    state: State,
    against: Annotated[
        list[Path], typer.Option(help="A checkpoint that another party saw: no split view.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Check the whole ledger against its checkpoint, against what you saw before, and against others."""
    source, key = _source(broker)
    note = source.checkpoint()
    current = witness.observe(_remembered(state), note, key, source)
    for _ in _audited(source, current):
        pass
    for path in against:
        other = files.read(path, max_bytes=checkpoint_format.MAX_BYTES).decode("utf-8", "replace")
        witness.compare(note, other, key, source)
    files.write(state, note.encode(), replace=True)
    print(f"consistent: {current.size} entries, root {current.root.hex()[:16]}…")


def cosign(
    broker: BrokerFile, state: State, identity: IdentityFile, passphrase_fd: PassphraseFd = None
) -> None:
    """Check growth since the last time, cosign the checkpoint and remember it."""
    source, key = _source(broker)
    mine = load(identity, passphrase_fd)
    note = source.checkpoint()
    current = witness.observe(_remembered(state), note, key, source)
    cosigned = checkpoint_format.cosign(note, mine.name, mine.signing, timestamp=int(time.time()))
    files.write(state, cosigned.encode(), replace=True)
    print(f"cosigned as {mine.name}: {current.size} entries, root {current.root.hex()[:16]}…")
    print(f"{state}: show this checkpoint to others, so that no two of you are shown two histories")


def _source(path: Path) -> tuple[brokers.BrokerReader, sign.VerifyingKey]:
    party = party_model.parse(files.read(path, max_bytes=party_model.MAX_BYTES))
    if party.broker is None:
        raise Misuse(f"{path}: {party.name} has no broker")
    return brokers.BrokerReader(address=party.broker), sign.VerifyingKey(party.broker.ledger_key)


def _remembered(state: Path) -> str | None:
    if not state.exists():
        return None
    return files.read(state, max_bytes=checkpoint_format.MAX_BYTES).decode("utf-8", "replace")


def _audited(source: brokers.BrokerReader, checkpoint: checkpoint_format.Checkpoint) -> Iterator[bytes]:
    """Every entry; at the end the root is compared, so use nothing before the iterator is through."""
    entries = list(_entries(source, checkpoint.size))
    size, root = witness.recompute(entries)
    if (size, root) != (checkpoint.size, checkpoint.root):
        raise Refused(
            "the entries are not those of the checkpoint",
            code="ledger-proof",
            hint="do not trust this ledger; keep the checkpoint and the entries",
        )
    yield from entries


def _entries(source: brokers.BrokerReader, size: int) -> Iterator[bytes]:
    for index in range(-(-size // tiles.WIDTH)):
        width = min(tiles.WIDTH, size - index * tiles.WIDTH)
        partial = "" if width == tiles.WIDTH else f".p/{width}"
        data = source.tile(f"entries/{tiles.format_index(index)}{partial}")
        bundle = reader.Reader(data, "entry bundle")
        for _ in range(width):
            yield bundle.take(bundle.u16())
        bundle.done()
