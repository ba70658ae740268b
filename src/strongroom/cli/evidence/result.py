"""`strongroom result ask|verify`: attestation results (EAR), for those who rely on a room without judging evidence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli.evidence import given
from strongroom.cli.printable import printable
from strongroom.encoding import fields
from strongroom.errors import Misuse

Audience = Annotated[
    str, typer.Option(metavar="NAME", help="Whom the result is for: the name that you go by.")
]
Nonce = Annotated[
    str,
    typer.Option(metavar="HEX", help="8 to 64 bytes in hexadecimal, drawn by you afresh for each result."),
]
_NONCE = re.compile(r"(?:[0-9a-fA-F]{2}){8,64}", re.ASCII)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Ask for attestation results, and verify them.", no_args_is_help=True)
    group.command("ask")(ask)
    group.command("verify")(verify)
    app.add_typer(group, name="result")


def ask(
    broker: Annotated[Path, typer.Argument(help="The party file of the broker's owner.")],
    run: Annotated[str, typer.Argument(help="The run, as its certificate, receipt and ledger name it.")],
    audience: Audience,
    nonce: Nonce,
    out: Annotated[Path, typer.Option(help="The token to write: a CWT where it ends in .cwt, else a JWT.")],
) -> None:
    """Ask a broker for the signed result of a run. Verify it with `strongroom result verify`."""
    from strongroom.fetch import brokers
    from strongroom.model.identifiers import RunId
    from strongroom.parties import papers

    party = papers.load_party(broker)
    brokers.ask_result(party, run_id=RunId(run), audience=audience, nonce=_bytes(nonce), out=out)
    print(f"{out}: what {party.name} says of {run}, for {audience}; not verified yet")


def verify(
    file: Annotated[Path, typer.Argument(help="A result: JWT or CWT.")],
    trust: Annotated[Path, typer.Option(help="The party file of the one verifier whose word counts.")],
    audience: Audience,
    policy: Annotated[
        str, typer.Option(metavar="sha256:…", help="The digest of the contract or policy that you rely on.")
    ],
    nonce: Nonce,
    at: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DDTHH:MM:SSZ", help="When the result is relied on; now otherwise."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Verify a result offline. Leaves with 3 unless it affirms everything, to you, now, under that policy."""
    if fields.DIGEST.fullmatch(policy) is None:
        raise Misuse(
            f"--policy: expected sha256: and 64 lower-case hexadecimal digits, got {policy[:100]!r}",
            hint="`strongroom contract verify FILE` prints a contract's digest",
        )
    from strongroom.parties import papers
    from strongroom.parties import result as results

    result = results.verify_result(
        file,
        verifier=papers.load_party(trust),
        audience=audience,
        policy=policy,
        nonce=_bytes(nonce),
        now=given.moment(at),
    )
    if as_json:
        print(json.dumps(result.to_json()))
        return
    print(f"result    AFFIRMING, by {printable(result.issuer)} for {printable(result.audience)}")
    print(f"attester  {printable(result.attester)}")
    print(f"policy    {result.policy_digest}")
    print(f"counts    {fields.format_time(result.issued)} until before {fields.format_time(result.expires)}")
    for claim, value in result.vector.items():
        print(f"affirmed  {claim} ({value})")
    print(f"evidence  {result.evidence_digest}\nverdict   {result.verdict_digest}")


def _bytes(nonce: str) -> bytes:
    if _NONCE.fullmatch(nonce) is None:
        raise Misuse(
            f"--nonce: expected 8 to 64 bytes in hexadecimal, got {nonce[:160]!r}",
            hint="a fresh nonce of 16 bytes, for example: `openssl rand -hex 16`",
        )
    return bytes.fromhex(nonce)
