"""`strongroom contract check`: would this run today? And what `contract new` refuses to draft."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli.contract.files import ContractFile, load_agreement, load_party
from strongroom.cli.printable import printable, say
from strongroom.errors import Misuse, Refused, StrongroomError, Unavailable

if TYPE_CHECKING:
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.manifest import Manifest
    from strongroom.model.verdict import Check, Explained

PLAIN = "none"


def refuse_unfit(contract: Contract, manifests: tuple[tuple[str, Manifest], ...]) -> None:
    """Raise `Misuse` where nothing could ever run under a draft. manifests: (owner's name, manifest) of every disk."""
    from strongroom.appraisal import fitness
    from strongroom.appraisal.wording import sentences

    told = [sentences.explain(one) for one in fitness.check_fitness(contract) if not one.ok]
    for one in told:
        more = "".join(f"; and {other.name}: {other.got}" for other in told[1:])
        raise Misuse(
            f"{one.name}: expected {one.expected}, got {one.got}{more}", code="cannot-run", hint=one.hint
        )
    for owner, manifest in manifests:
        if manifest.cipher != PLAIN and contract.party(owner).broker is None:
            raise Misuse(
                f"{manifest.name}: is encrypted, and the party file of its owner {owner} names no broker to give its key",
                code="cannot-run",
                hint=f"`strongroom broker init … --identity {owner}.identity` completes {owner}.party.json; draft with that file",
            )
        settings = manifest.image
        if settings is not None and not (settings.entrypoint or contract.image.arguments or settings.command):
            raise Misuse(
                f"{manifest.name}: the image names no program, and --argument gives none",
                code="cannot-run",
                hint="name the program that the room starts: --argument /PATH/OF/PROGRAM, and --argument WORD for each word after it",
            )


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
    runs_used: Annotated[
        int | None, typer.Option(help="Runs that have happened already, where you know.", min=0)
    ] = None,
) -> None:
    """Would this run today, and who must still sign? Leaves with 3 when it would not."""
    from strongroom.appraisal import fitness, terms
    from strongroom.appraisal.wording import sentences

    agreement = load_agreement(file)
    made = [
        *fitness.check_fitness(agreement.contract),
        *terms.check_terms(agreement, now=datetime.now(UTC), runs_used=runs_used or 0),
    ]
    if runs_used is None:
        made = [one for one in made if one.name != terms.RUNS]
    checks = [sentences.explain(one) for one in made]
    if trust and not ask:
        raise Misuse(
            "--trust: goes with --ask",
            hint="add --ask, which asks the broker at the address in that file; or leave --trust out",
        )
    told = _ask(agreement, trust) if ask else {}
    asked = [
        sentences.explain(one) for row in told.values() if not isinstance(row, StrongroomError) for one in row
    ]
    silent = {party: row for party, row in told.items() if isinstance(row, StrongroomError)}
    ready = all(one.ok for one in (*checks, *asked))
    if as_json:
        print(json.dumps(_document(agreement, checks, told, ready=ready and not silent)))
    else:
        _print(checks, told, runs_known=runs_used is not None)
    if not ready:
        failed = [one for one in (*checks, *asked) if not one.ok]
        raise Refused(
            "it would not run now",
            code="would-not-run",
            hint="; ".join(dict.fromkeys(one.hint for one in failed if one.hint)),
        )
    for party, row in silent.items():
        if isinstance(row, Refused):
            raise Refused(
                f"it would not run now: the broker of {party}: {row.message}", code=row.code, hint=row.hint
            )
        raise Unavailable(
            f"it cannot be told whether it would run: the broker of {party}: {row.message}",
            code=row.code,
            hint=f"{party} starts it with `strongroom broker serve`; without it no room gets keys"
            if row.code == "broker-unreachable"
            else row.hint,
        )
    if not as_json:
        print("it would run now, in a room that its platforms accept")


def _ask(agreement: Agreement, trust: list[Path]) -> dict[str, tuple[Check, ...] | StrongroomError]:
    """What each broker says, or why it said nothing.

    Whoever drafts a contract writes addresses into it. A broker is asked only where its owner has signed the contract, and so
    its address, or by a party file that the caller has. To whom the contract goes is told before.
    """
    from strongroom.model.contracts import signing
    from strongroom.node import foreseen

    held = [load_party(path) for path in trust]
    signing.check_others(agreement.contract, held)
    moved = {one.name: one.broker for one in held}  # a broker may move; what it is known by may not differ
    found: dict[str, tuple[Check, ...] | StrongroomError] = {}
    for party in agreement.contract.key_owners():
        address = moved.get(party) or agreement.contract.party(party).broker
        if address is None:
            continue
        if party not in moved and party not in agreement.signers():
            found[party] = Refused(
                f"not asked: {party} has not signed the contract, so that {address.url} is the word of whoever drafted it",
                code="address-not-vouched",
                hint=f"give the file that you have of {party}: --trust {party}.party.json; or ask once {party} has signed",
            )
            continue
        who = "the party file that you gave" if party in moved else f"{party}'s signature"
        print(
            printable(f"asking {party}'s broker at {address.url} (address by {who}): it gets the contract"),
            file=sys.stderr,
        )
        try:
            found[party] = foreseen.ask(address, agreement.envelope.encode(), ()).checks
        except StrongroomError as cause:
            found[party] = cause
    return found


def _print(
    checks: list[Explained], told: dict[str, tuple[Check, ...] | StrongroomError], *, runs_known: bool
) -> None:
    from strongroom.appraisal.wording import sentences

    for one in checks:
        say(f"{'yes' if one.ok else 'NO '}  {one.name}: expected {one.expected}, got {one.got}")
    for party, row in told.items():
        if isinstance(row, StrongroomError):
            say(f"?    the broker of {party} cannot be asked: {row.message}")
            continue
        for check in row:
            one = sentences.explain(check)
            say(
                f"{'yes' if one.ok else 'NO '}  {party}'s broker, {one.name}: expected {one.expected}, got {one.got}"
            )
    if not told and not runs_known:
        print(
            "?    how many runs are used, and what versions and keys the brokers know, was not asked: --ask does"
        )


def _document(
    agreement: Agreement,
    checks: list[Explained],
    told: dict[str, tuple[Check, ...] | StrongroomError],
    *,
    ready: bool,
) -> dict[str, Any]:
    from strongroom.appraisal.wording import sentences
    from strongroom.cli import failures

    return {
        "would_run": ready,
        "missing": list(agreement.missing()),
        "checks": [one.to_json() for one in checks],
        "brokers": {
            party: {"error": failures.describe(row)}
            if isinstance(row, StrongroomError)
            else {"checks": [sentences.explain(one).to_json() for one in row]}
            for party, row in told.items()
        },
    }
