"""Contract files, for every verb that is given one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files
from strongroom.cli.printable import say
from strongroom.errors import Misuse
from strongroom.model import party as party_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import drafting

MAX_FILE = 4 * contract_model.MAX_BYTES
ContractFile = Annotated[Path, typer.Argument(help="The contract's file (a signed envelope).")]


def load_party(path: Path) -> party_model.Party:
    """A party from the file that it hands around."""
    return files.parsed(path, party_model.parse, max_bytes=party_model.MAX_BYTES)


def load_agreement(path: Path) -> agreement_model.Agreement:
    """Read a contract file."""
    return files.parsed(path, agreement_model.read, max_bytes=MAX_FILE)


def load_earlier(paths: list[Path]) -> tuple[bytes, ...]:
    """The envelopes of earlier versions, lowest first, in whatever order they are given. Raises `Misuse`."""
    agreements = sorted((load_agreement(path) for path in paths), key=lambda one: one.contract.version)
    envelopes = tuple(one.encode() for one in agreements)
    if (
        len(envelopes) > agreement_model.MAX_EARLIER
        or sum(map(len, envelopes)) > agreement_model.MAX_EARLIER_BYTES
    ):
        raise Misuse(
            f"--earlier: expected at most {agreement_model.MAX_EARLIER} files of {agreement_model.MAX_EARLIER_BYTES} bytes together, "
            f"got {len(envelopes)} of {sum(map(len, envelopes))}",
            hint="leave the oldest out; the owner of each broker admits those one by one: `strongroom broker admit`",
        )
    return envelopes


def print_differences(old: contract_model.Contract, new: contract_model.Contract) -> None:
    """Every value that differs, with its place."""
    rows = drafting.differences(old.raw, new.raw)
    for place, before, after in rows:
        say(place)
        say(f"  - {before}")
        say(f"  + {after}")
    print(f"{len(rows)} difference(s)" if rows else "the two say the same")


def print_signatures(agreement: agreement_model.Agreement) -> None:
    """Who has signed, and who has not."""
    print(f"signed   {', '.join(agreement.signers()) or 'by nobody'}")
    if agreement.approved():
        print("approved yes")
    else:
        print(f"approved no: still to sign are {', '.join(agreement.missing())}")
