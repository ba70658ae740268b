"""`strongroom ledger show|verify|witness`: read a broker's ledger, and hold it to what it showed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from strongroom import files
from strongroom.cli.identity.files import IdentityFile, PassphraseFd, load
from strongroom.cli.printable import printable, say
from strongroom.crypto import sign
from strongroom.encoding import reader
from strongroom.errors import Misuse, Refused, of_file
from strongroom.fetch import brokers
from strongroom.ledger import checkpoint as checkpoint_format
from strongroom.ledger import tiles, witness
from strongroom.ledger.describe import describe
from strongroom.model import party as party_model
from strongroom.model import record as record_model

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
    source, key = _source(broker)
    checkpoint = checkpoint_format.verify(source.checkpoint(), key)
    rows: list[tuple[int, record_model.Record]] = []

    def keep(index: int, entry: bytes) -> None:
        one = record_model.parse(entry)
        if run in ("", one.run):
            rows.append((index, one))

    _audit(source, checkpoint, keep)
    if as_json:
        print(
            json.dumps(
                [
                    {"index": index, **json.loads(one.encode()), "description": describe(one)}
                    for index, one in rows
                ]
            )
        )
        return
    for index, one in rows:
        time_text = one.time.strftime("%Y-%m-%d %H:%M:%S")
        print(
            f"{index:6}  {time_text}  {one.kind.value:<12}  {printable(one.run) or '-':<36}  {one.contract[:19] or '-'}"
        )
        say(f"        {describe(one)}")
    print(f"{checkpoint.size} entries, root {checkpoint.root.hex()[:16]}…")


def verify(
    broker: BrokerFile,
    state: State = None,
    against: Annotated[
        list[Path], typer.Option(help="A checkpoint that another party saw: no split view.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Check the whole ledger against its checkpoint, against what you saw before, and against others."""
    source, key = _source(broker)
    state = state or _remembered(broker)
    note, current = _observe(source, key, state)
    _audit(source, current, lambda _index, entry: _parses(entry))
    for path in against:
        theirs = _seen(path, key)
        with _kept_apart(state, note):
            witness.compare(note, theirs, key, source)
    files.write(state, note.encode(), replace=True)
    print(f"consistent: {current.size} entries, root {current.root.hex()[:16]}…")


def cosign(
    broker: BrokerFile, identity: IdentityFile, state: State = None, passphrase_fd: PassphraseFd = None
) -> None:
    """Check growth since the last time, cosign the checkpoint and remember it."""
    source, key = _source(broker)
    mine = load(identity, passphrase_fd)
    state = state or _remembered(broker)
    note, current = _observe(source, key, state)
    cosigned = checkpoint_format.cosign(note, mine.name, mine.signing, timestamp=int(time.time()))
    files.write(state, cosigned.encode(), replace=True)
    print(f"cosigned as {mine.name}: {current.size} entries, root {current.root.hex()[:16]}…")
    print(f"{state}: show this checkpoint to others, so that no two of you are shown two histories")


def _remembered(broker: Path) -> Path:
    """Where what was seen of a ledger is kept, unless one says otherwise: beside the party file, one for each."""
    return broker.with_name(broker.name + ".checkpoint")


def _source(path: Path) -> tuple[brokers.BrokerReader, sign.VerifyingKey]:
    party = files.parsed(path, party_model.parse, max_bytes=party_model.MAX_BYTES)
    if party.broker is None:
        raise Misuse(
            f"{path}: {party.name} has no broker",
            hint="name a party file with a broker; `strongroom broker init` writes it in, so ask for the latest",
        )
    return brokers.BrokerReader(address=party.broker), sign.VerifyingKey(party.broker.ledger_key)


def _observe(
    source: brokers.BrokerReader, key: sign.VerifyingKey, state: Path
) -> tuple[str, checkpoint_format.Checkpoint]:
    """The ledger's newest checkpoint, once it is shown to extend the one that `state` remembers."""
    remembered = _seen(state, key) if state.exists() else None
    note = source.checkpoint()
    with _kept_apart(state, note):
        return note, witness.observe(remembered, note, key, source)


def _seen(path: Path, key: sign.VerifyingKey) -> str:
    """A checkpoint of this ledger in a file: what is wrong with it is said of the file, not of the broker."""
    with of_file(path):
        note = files.read_text(path, max_bytes=checkpoint_format.MAX_BYTES)
        checkpoint_format.verify(note, key)
    return note


@contextlib.contextmanager
def _kept_apart(state: Path, note: str) -> Iterator[None]:
    """Keep what a forked ledger showed beside what it had shown before: both together are the proof."""
    try:
        yield
    except Refused as cause:
        if cause.code != "ledger-forked":
            raise
        kept = state.with_name(state.name + ".forked")
        files.write(kept, note.encode(), replace=True)
        raise Refused(
            cause.message,
            code=cause.code,
            hint=f"{kept} is what it showed now; with the checkpoint from before it proves the fork. "
            "Stop trusting this broker's record.",
        ) from None


def _audit(
    source: brokers.BrokerReader,
    checkpoint: checkpoint_format.Checkpoint,
    take: Callable[[int, bytes], None],
) -> None:
    """Give every entry to `take`. Raises `Refused` at the end when they are not those of the checkpoint.

    So nothing that `take` was given may be used before this returns. Memory does not grow with the ledger.
    """

    def taken() -> Iterator[bytes]:
        for index, entry in enumerate(_entries(source, checkpoint.size)):
            take(index, entry)
            yield entry

    if witness.recompute(taken()) != (checkpoint.size, checkpoint.root):
        raise Refused(
            "the entries are not those of the checkpoint",
            code="ledger-proof",
            hint="do not trust this ledger; keep the checkpoint and the entries",
        )


def _parses(entry: bytes) -> None:
    record_model.parse(entry)


def _entries(source: brokers.BrokerReader, size: int) -> Iterator[bytes]:
    for index in range(-(-size // tiles.WIDTH)):
        width = min(tiles.WIDTH, size - index * tiles.WIDTH)
        partial = "" if width == tiles.WIDTH else f".p/{width}"
        data = source.tile(f"entries/{tiles.format_index(index)}{partial}")
        bundle = reader.Reader(data, "entry bundle")
        for _ in range(width):
            yield bundle.take(bundle.u16())
        bundle.done()
