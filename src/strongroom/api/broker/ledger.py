"""Reading the ledger over HTTP: checkpoint, tiles (C2SP tlog-tiles), proofs, and the records of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, NotFound
from strongroom.ledger import merkle, tiles
from strongroom.model.identifiers import RunId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.broker.broker import Broker

RUN = re.compile(r"run-[0-9a-f]{32}", re.ASCII)
_SIZE_HINT = "/v1/ledger/checkpoint tells the ledger's size, in its second line"
# Up to 16 digits: `merkle.MAX_SIZE` has so many.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


def number(text: str | None, what: str) -> int:
    """A decimal number without sign or leading zeros. Raises `Malformed`."""
    if text is None or _NUMBER.fullmatch(text) is None:
        raise Malformed(
            f"{what}: expected a decimal number without sign or leading zeros, got {'none' if text is None else repr(text[:20])}",
            hint=f"give it in the query, like ?{what}=7",
        )
    return int(text)


def bad_run(name: str) -> Malformed:
    """The error for what is no run's name."""
    return Malformed(
        f"run: expected run- and 32 lower-case hexadecimal digits, got {name[:80]!r}",
        hint="a run's receipt, its certificate and the ledger's entries name it",
    )


def checkpoint(broker: Broker) -> bytes:
    """The newest checkpoint, as a signed note."""
    ledger = broker.store.ledger
    return broker.notary.checkpoint(ledger, ledger.size()).encode()


def tile(broker: Broker, path: str) -> tuple[int, Iterator[bytes]]:
    """A tile's length, and its bytes in pieces, which are read as they are taken. Raises `Malformed` or `NotFound`."""
    ledger, parsed = broker.store.ledger, tiles.parse_path(path)
    data = tiles.read(ledger, ledger.size(), parsed)
    if parsed.level >= 0:  # a tile of hashes; else of entries, each behind its length
        return parsed.width * merkle.HASH_BYTES, data
    return ledger.total(parsed.index * tiles.WIDTH, parsed.width) + parsed.width * tiles.LENGTH_BYTES, data


def proof(broker: Broker, index: int, size: int) -> bytes:
    """The entry at `index` with its proof in the tree of `size` leaves. Raises `NotFound`."""
    ledger = broker.store.ledger
    if not 0 <= index < size <= ledger.size():
        raise NotFound(
            f"ledger proof: the ledger has {ledger.size()} entries: expected an index below size, got index {index}, size {size}",
            code="no-entry",
            hint=_SIZE_HINT,
        )
    entry = ledger.leaves(index, 1)[0]
    return broker.notary.prove(ledger, entry=entry, index=index, size=size).encode()


def consistency(broker: Broker, first: int, second: int) -> bytes:
    """{"hashes": [base64]}: the proof that the tree of `second` leaves extends that of `first`. Raises `NotFound`."""
    ledger = broker.store.ledger
    if not 0 <= first <= second <= ledger.size():
        raise NotFound(
            f"ledger consistency: the ledger has {ledger.size()} entries: expected first up to second, got {first} and {second}",
            code="no-entry",
            hint=_SIZE_HINT,
        )
    path = merkle.consistency(ledger, first, second)
    return canonical.dumps({"hashes": [fields.format_data(digest) for digest in path]})


def run(broker: Broker, name: str) -> bytes:
    """{"entries": [ledger proof]} of a run, under one checkpoint. Raises `Malformed` or `NotFound`."""
    if RUN.fullmatch(name) is None:
        raise bad_run(name)
    ledger = broker.store.ledger
    entries = ledger.of_run(RunId(name))
    if not entries:
        raise NotFound(
            f"{name}: this broker's ledger has no entry of that run",
            code="no-run",
            hint="ask a broker of the contract that the run was under",
        )
    size = ledger.size()
    proofs = [
        broker.notary.prove(ledger, entry=entry, index=index, size=size).to_json() for index, entry in entries
    ]
    return canonical.dumps({"entries": proofs})
