"""`strongroom evidence show|verify|diff|forecast`: evidence of any TEE, in whatever file it came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.evidence import given
from strongroom.cli.identity.files import PassphraseFd, load
from strongroom.cli.printable import printable, printable_json
from strongroom.encoding import canonical, fields
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.appraisal.evaluate import Appraisal
    from strongroom.appraisal.forecast import Forecast
    from strongroom.parties.evidence import JudgedEvidence, ShownEvidence

EvidenceFile = Annotated[
    Path, typer.Argument(help="Evidence: raw, hex, base64, PEM, or in JSON of any kind.")
]
AtPlace = Annotated[
    str | None,
    typer.Option(
        "--at-place",
        metavar="PLACE",
        help="Which of several pieces in the file, by its place: .model_attestations[0].intel_quote",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PolicyOption = Annotated[Path, typer.Option(help="The policy file, JSON or TOML.")]
ReportData = Annotated[
    str | None, typer.Option(metavar="HEX", help="Expected report data, 64 bytes in hexadecimal.")
]
ExtraData = Annotated[
    str | None, typer.Option(metavar="HEX", help="Expected qualifying data of a TPM quote, hexadecimal.")
]
Nonce = Annotated[str | None, typer.Option(metavar="HEX", help="Expected nonce, hexadecimal.")]
UserData = Annotated[
    str | None, typer.Option(metavar="HEX", help="Expected user data of a Nitro document, hexadecimal.")
]
PublicKey = Annotated[
    str | None, typer.Option(metavar="HEX", help="Expected public key of a Nitro document, hexadecimal.")
]
MeasuredContract = Annotated[
    str | None,
    typer.Option(
        "--contract", metavar="sha256:…", help="Digest of the contract that the room must have measured."
    ),
]
At = Annotated[
    str | None,
    typer.Option(
        metavar="YYYY-MM-DDTHH:MM:SSZ", help="Judge as of this time (2026-11-24T12:00:00Z); now otherwise."
    ),
]
References = Annotated[list[Path], typer.Option("--reference", help="A signed file of reference values.")]
Vouched = Annotated[
    list[Path],
    typer.Option("--unsigned-reference", help="An unsigned CoRIM that you vouch for yourself."),
]
Trust = Annotated[list[Path], typer.Option(help="Party file of somebody whose reference files count.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Look into evidence, and judge it.", no_args_is_help=True)
    for verb in (show, verify, diff, forecast):
        group.command(verb.__name__)(verb)
    app.add_typer(group, name="evidence")


def show(file: EvidenceFile, at_place: AtPlace = None, as_json: Json = False) -> None:
    """Say what a file is, and show every field of every piece of evidence in it.

    Nothing is verified: see `strongroom evidence verify`.
    """
    from strongroom.parties import evidence

    pieces = evidence.show_evidence(file, place=at_place)
    if as_json:
        objects = [_shown(piece) for piece in pieces]
        # One piece is printed as an object, several as a list, so that no program takes the first for the whole.
        print(json.dumps(objects[0] if len(objects) == 1 else {"pieces": objects}))
        return
    if len(pieces) > 1:
        print(f"{len(pieces)} pieces of evidence in this file (--at-place PLACE shows or judges one):")
        for piece in pieces:
            print(printable(f"  {piece.recognised.place}: {piece.recognised.kind}"))
    for piece in pieces:
        if len(pieces) > 1:
            print()
            print(printable(f"{'-' * 8} {piece.recognised.place}"))
        _print_piece(piece)


def _shown(piece: ShownEvidence) -> dict[str, object]:
    listed = [field.to_json() for field in piece.fields]
    return {
        **piece.recognised.to_json(),
        "digest": piece.recognised.evidence.digest,
        "verified": False,
        "fields": listed,
    }


def _print_piece(piece: ShownEvidence) -> None:
    recognised = piece.recognised
    print(f"evidence  {recognised.evidence.digest}")
    print(f"kind      {printable(recognised.kind)}")
    if recognised.layers:
        print(f"found in  {printable(', '.join(recognised.layers))}")
    if recognised.endorsements:
        print(f"with it   {printable(', '.join(sorted(recognised.endorsements)))}")
    print(f"TEE       {printable(recognised.evidence.tee)}")
    print("verified  no: this is what the evidence says of itself (`strongroom evidence verify` judges)")
    part = ""
    for field in piece.fields:
        if field.part != part:
            part = field.part
            print(f"\n{printable(part)}")
        line = f"  {field.name:<14}{' ' if len(field.name) >= 14 else ''}{field.value}"
        print(printable(line) + (f"\n  {'':<14}({printable(field.meaning)})" if field.meaning else ""))


def verify(
    file: EvidenceFile,
    policy: PolicyOption,
    endorsements: Annotated[
        Path | None,
        typer.Option(help="The vendor's endorsements: Strongroom's JSON, PCCS's, or a folder of parts."),
    ] = None,
    report_data: ReportData = None,
    extra_data: ExtraData = None,
    nonce: Nonce = None,
    user_data: UserData = None,
    public_key: PublicKey = None,
    contract: MeasuredContract = None,
    at: At = None,
    at_place: AtPlace = None,
    device: Annotated[
        list[Path], typer.Option(help="Evidence of attached devices: all that the file holds count.")
    ] = [],  # noqa: B006 - typer copies it
    reference: References = [],  # noqa: B006
    unsigned_reference: Vouched = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    ear: Annotated[
        Path | None, typer.Option(help="Write a signed attestation result here (.cwt for CWT).")
    ] = None,
    audience: Annotated[str, typer.Option(metavar="NAME", help="Whom the attestation result is for.")] = "",
    identity: Annotated[Path | None, typer.Option("--identity", "-i", help="Who signs the result.")] = None,
    passphrase_fd: PassphraseFd = None,
    as_json: Json = False,
) -> None:
    """Verify and judge evidence. Leaves with 3 and explains every check when it is not accepted."""
    from strongroom.parties import evidence

    now = given.moment(at)
    binding = given.binding(report_data, extra_data, nonce, user_data, public_key, contract)
    if ear is not None and (identity is None or not audience or (nonce is None and report_data is None)):
        raise Misuse(
            "--ear: needs --identity, --audience, and --nonce or --report-data",
            hint="a result says who signs it (--identity), for whom it is (--audience) and to which question (--nonce)",
        )
    judged = evidence.judge_evidence(
        file,
        place=at_place,
        devices=device,
        policy=evidence.PolicyFiles(
            path=policy, references=reference, vouched=unsigned_reference, trust=trust
        ),
        endorsements=endorsements,
        binding=binding,
        now=now,
        contract_digest=None if contract is None else given.contract_digest(contract),
    )
    if ear is not None and identity is not None:
        from strongroom.parties import result

        signer = load(identity, passphrase_fd)
        result.write_result(judged, audience=audience, signer=signer, out=ear)
    verdict = judged.verdict
    if as_json:
        document = canonical.dumps({**_explained(verdict), "evidence": judged.known})
        print(printable_json(document.decode()))
    else:
        _print_verdict(judged)
    judged.require()


def diff(first: EvidenceFile, second: EvidenceFile, at_place: AtPlace = None, as_json: Json = False) -> None:
    """Say in which fields two pieces of evidence differ. Nothing is verified."""
    from strongroom.parties import evidence

    changes = evidence.compare_evidence(first, second, place=at_place)
    rows = [
        (change.field, *("-" if value is None else value for value in (change.before, change.after)))
        for change in changes
    ]
    if as_json:
        print(json.dumps([{"field": field, "before": old, "after": new} for field, old, new in rows]))
        return
    for field, old, new in rows:
        print(f"{printable(field)}\n  - {printable(old)}\n  + {printable(new)}")
    print(f"{len(rows)} field(s) differ" if rows else "the two say the same")


def forecast(
    file: EvidenceFile,
    policy: PolicyOption,
    endorsements: Annotated[Path, typer.Option(help="The endorsements that the evidence was judged by.")],
    newer: Annotated[Path, typer.Option(help="Newer endorsements of the same vendor.")],
    report_data: ReportData = None,
    extra_data: ExtraData = None,
    nonce: Nonce = None,
    user_data: UserData = None,
    public_key: PublicKey = None,
    contract: MeasuredContract = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DDTHH:MM:SSZ", help="When the evidence was judged; now otherwise."),
    ] = None,
    at_place: AtPlace = None,
    newer_at: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-MM-DDTHH:MM:SSZ", help="When to judge by the newer endorsements; now otherwise."
        ),
    ] = None,
    reference: References = [],  # noqa: B006 - typer copies it
    unsigned_reference: Vouched = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Judge stored evidence by newer endorsements: what will stop being accepted, when, and what to update.

    Leaves with 3 when the newer endorsements turn an acceptance into a denial.
    """
    from strongroom.parties import evidence

    foreseen = evidence.forecast_evidence(
        file,
        place=at_place,
        policy=evidence.PolicyFiles(
            path=policy, references=reference, vouched=unsigned_reference, trust=trust
        ),
        endorsements=endorsements,
        newer=newer,
        then=given.moment(at),
        later=given.moment(newer_at, "--newer-at"),
        binding=given.binding(report_data, extra_data, nonce, user_data, public_key, contract),
    )
    if as_json:
        print(canonical.dumps(foreseen.to_json()).decode())
    else:
        _print_forecast(foreseen)
    foreseen.require()


def _explained(verdict: Appraisal) -> dict[str, object]:
    """The verdict in words, with all claims; `record` is its record form, by whose bytes results name it."""
    from strongroom.appraisal.wording import sentences

    record = verdict.to_json()
    claims = None if verdict.claims is None else verdict.claims.to_json()
    checks = [sentences.explain(check).to_json() for check in verdict.checks]
    return {**record, "claims": claims, "checks": checks, "record": record}


_KNOWN = {
    "verified": "signed by its vendor's key",
    "refused": "a check of its verifier failed",
    "cannot tell": "no signature was verified: nothing of its vendor's was given that vouches for a key (--endorsements)",
    "simulated": "no hardware's vendor signed it: a root that the policy names did",
}


def _print_verdict(judged: JudgedEvidence) -> None:
    from strongroom.appraisal.wording import sentences

    verdict = judged.verdict
    print(f"evidence  {judged.known}: {_KNOWN[judged.known]}")
    outcome = "ACCEPTED" if verdict.accepted else "DENIED"
    print(f"verdict   {outcome} by policy {judged.policy} ({verdict.policy})")
    print(f"as of     {fields.format_time(verdict.decided)}")
    for check in map(sentences.explain, verdict.checks):
        line = f"{check.name}: expected {check.expected}, got {check.got}"
        print(printable(f"{'yes' if check.ok else 'NO '}  {line}"))
        if not check.ok and check.source:
            print(printable(f"       source: {check.source}"))
    if verdict.claims is not None and verdict.claims.simulated:
        print("SIMULATED: no hardware stands behind this evidence; its maker could have made it up")
    for skipped in () if verdict.claims is None else verdict.claims.not_checked:
        print(printable(f"not checked: {skipped}"))


def _print_forecast(foreseen: Forecast) -> None:
    from strongroom.appraisal import standing

    for when, verdict in (("so far", foreseen.before), ("by the newer endorsements", foreseen.after)):
        outcome = "accepted" if verdict.accepted else "DENIED  "
        print(
            f"{outcome}  {when}, as of {fields.format_time(verdict.decided)}; "
            f"evidence {standing.word(verdict.claims, vouched=True)}"
        )
    for stop in foreseen.stops:
        when = "at once" if stop.when is None else fields.format_time(stop.when)
        print(printable(f"from {when}: {stop.check}: {stop.reason}"))
        print(printable(f"  {stop.fix}"))
    for update in foreseen.updates:
        print(printable(f"update {update.component}: has {update.has}, needs {update.needs} ({update.what})"))
    if not foreseen.stops and not foreseen.updates:
        print("nothing changes, and nothing is behind")
