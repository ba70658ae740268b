"""What verbs of contracts have in common: their argument, and how differences and signatures are shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.printable import say

if TYPE_CHECKING:
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract

ContractFile = Annotated[Path, typer.Argument(help="The contract's file (a signed envelope).")]


def print_differences(old: Contract, new: Contract) -> None:
    """Every value that differs, with its place."""
    from strongroom.model.contracts import drafting

    rows = drafting.differences(old.raw, new.raw)
    for place, before, after in rows:
        say(place)
        say(f"  - {before}")
        say(f"  + {after}")
    print(f"{len(rows)} difference(s)" if rows else "the two say the same")


def print_drafted(out: Path, contract: Contract) -> None:
    """A draft that was written: what it is, who has to sign it, and what others will see."""
    from strongroom.cli import sentences

    print(f"{out}: contract {contract.id} version {contract.version}, {contract.digest}")
    print(f"to be signed by {', '.join(contract.approvals.parties)} ({contract.approvals.threshold} needed)")
    for line in sentences.exposed(contract):
        print(f"note: {line}", file=sys.stderr)


def print_signatures(agreement: Agreement) -> None:
    """Who has signed, and who has not."""
    print(f"signed   {', '.join(agreement.signers()) or 'by nobody'}")
    if agreement.approved():
        print("approved yes")
    else:
        print(f"approved no: still to sign are {', '.join(agreement.missing())}")
