"""`strongroom contract sign`: shows what is signed, holds it against what the signer has, asks, and signs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli.contract.shown import ContractFile, print_differences, print_signatures
from strongroom.cli.identity.files import IdentityFile, PassphraseFd, load
from strongroom.cli.printable import say
from strongroom.errors import Misuse, Refused

YES = "yes"


def sign(
    file: ContractFile,
    identity: IdentityFile,
    party: Annotated[
        Path | None, typer.Option(help="Your own party file, if not NAME.party.json beside the identity.")
    ] = None,
    replaces: Annotated[
        Path | None, typer.Option(help="The version that this one replaces, to show what changes.")
    ] = None,
    trust: Annotated[
        list[Path],
        typer.Option(help="A party file that you got from its owner, to hold the contract against."),
    ] = [],  # noqa: B006 - typer copies it
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: for scripts that have asked.")] = False,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Show what a contract says and sign it as one of its parties.

    Your entry in it must be your own party file; --trust holds others' entries against files that you have.
    """
    from strongroom.cli import sentences
    from strongroom.model.contracts.signing import check_member
    from strongroom.parties import papers
    from strongroom.parties import sign as signing
    from strongroom.parties.papers import load_agreement, load_party, party_file

    agreement = load_agreement(file)
    contract = agreement.contract
    public = papers.load_public(identity)
    check_member(contract, public)
    own = papers.load_own_party(party or party_file(identity, public.name))
    held = [load_party(path) for path in trust]
    previous = None if replaces is None else load_agreement(replaces)
    seen = signing.review_contract(agreement, signer=public, own=own, trust=held, previous=previous)
    for line in sentences.of(contract):
        say(line)
    if previous is not None:
        print(f"changes  since version {previous.contract.version}:")
        print_differences(previous.contract, contract)
        if not seen.signed_before:
            print(f"note     you have not signed version {previous.contract.version}")
    print(f"compared with party files: {', '.join(seen.compared)}")
    print(f"not compared (--trust FILE): {', '.join(seen.not_compared) or 'nobody'}")
    print_signatures(agreement)
    print(f"you sign {contract.digest}")
    if not yes:
        _ask(own.name)
    signed = signing.sign_contract(
        agreement, identity=load(identity, passphrase_fd), own=own, trust=held, previous=previous
    )
    papers.save_agreement(signed, out=file, replace=True)
    print(f"signed {signed.contract.digest} as {own.name}")
    print_signatures(signed)


def _ask(name: str) -> None:
    if not sys.stdin.isatty():
        raise Misuse(
            "contract sign: nobody to ask whether to sign this",
            code="not-asked",
            hint="read what is shown, then give --yes; on a terminal you are asked",
        )
    try:
        answer = input(f"sign this as {name}? Type {YES} to sign: ")
    except EOFError:
        answer = ""
    if answer.strip() != YES:
        raise Refused(
            "contract sign: not signed",
            code="declined",
            hint=f"nothing was written; to sign, type {YES} when asked",
        )
