"""`strongroom evidence show|verify|diff|forecast`: evidence of any TEE, in whatever file it came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from strongroom import files
from strongroom.cli.evidence import files as evidence_files
from strongroom.cli.identity.files import PassphraseFd, load
from strongroom.cli.printable import printable, printable_json
from strongroom.encoding import canonical, fields
from strongroom.errors import Misuse, PolicyDenied

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
    found = evidence_files.pieces(file, at_place)
    if as_json:
        told = [_shown(one) for one in found]
        # One piece is told as ever; several as a list, so that no program takes the first for the whole.
        print(json.dumps(told[0] if len(told) == 1 else {"pieces": told}))
        return
    if len(found) > 1:
        print(f"{len(found)} pieces of evidence in this file (--at-place PLACE shows or judges one):")
        for one in found:
            print(printable(f"  {one.place}: {one.kind}"))
    for one in found:
        if len(found) > 1:
            print()
            print(printable(f"{'-' * 8} {one.place}"))
        _print_piece(one)


def _shown(one: Any) -> dict[str, object]:
    from strongroom.evidence.describe import show as describe

    listed = [field.to_json() for field in describe.describe(one.evidence)]
    name = one.evidence.digest
    return {**one.to_json(), "digest": name, "verified": False, "fields": listed}


def _print_piece(recognised: Any) -> None:
    from strongroom.evidence.describe import show as describe

    evidence = recognised.evidence
    print(f"evidence  {evidence.digest}")
    print(f"kind      {printable(recognised.kind)}")
    if recognised.layers:
        print(f"found in  {printable(', '.join(recognised.layers))}")
    if recognised.endorsements:
        print(f"with it   {printable(', '.join(sorted(recognised.endorsements)))}")
    print(f"TEE       {printable(evidence.tee)}")
    print("verified  no: this is what the evidence says of itself (`strongroom evidence verify` judges)")
    part = ""
    for one in describe.describe(evidence):
        if one.part != part:
            part = one.part
            print(f"\n{printable(part)}")
        told = f"  {one.name:<14}{' ' if len(one.name) >= 14 else ''}{one.value}"
        print(printable(told) + (f"\n  {'':<14}({printable(one.meaning)})" if one.meaning else ""))


def verify(
    file: EvidenceFile,
    policy: PolicyOption,
    endorsements: Annotated[
        Path | None, typer.Option(help="The vendor's endorsements: our JSON, PCCS's, or a folder of parts.")
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
    from strongroom.appraisal import standing
    from strongroom.appraisal.evaluate import evaluate
    from strongroom.model.endorsements import vouches

    now = evidence_files.moment(at)
    binding = evidence_files.expected(report_data, extra_data, nonce, user_data, public_key, contract)
    recognised = evidence_files.evidence(file, at_place)
    evidence = evidence_files.with_devices(recognised.evidence, device)
    rules = evidence_files.policy(
        policy, reference, trust, vouch=unsigned_reference, tee=evidence.tee, now=now
    )
    given = evidence_files.endorsements(endorsements, recognised)
    verdict = evaluate(
        evidence,
        given,
        rules,
        binding=binding,
        now=now,
        contract_digest=None if contract is None else evidence_files.contract_digest(contract),
    )
    if ear is not None:
        if identity is None or not audience or (nonce is None and report_data is None):
            raise Misuse(
                "--ear: needs --identity, --audience, and --nonce or --report-data",
                hint="a result says who signs it (--identity), for whom it is (--audience) and to which question (--nonce)",
            )
        asked = binding.values.get("nonce", b"") or binding.values.get("report_data", b"")
        _write_ear(ear, verdict, evidence, asked, audience, load(identity, passphrase_fd))
    known = standing.word(verdict.claims, vouched=vouches(given, evidence.tee))
    if as_json:
        print(printable_json(canonical.dumps({**_explained(verdict), "evidence": known}).decode()))
    else:
        _print_verdict(verdict, rules.name, known)
    if not verdict.accepted:
        raise PolicyDenied(
            "the evidence is not accepted",
            verdict=verdict,
            hint="do what is said with each check that failed",
        )


def diff(first: EvidenceFile, second: EvidenceFile, at_place: AtPlace = None, as_json: Json = False) -> None:
    """Say in which fields two pieces of evidence differ. Nothing is verified."""
    before, after = (_flat(one, at_place) for one in (first, second))
    rows = [
        (place, before.get(place, "-"), after.get(place, "-"))
        for place in dict.fromkeys((*before, *after))
        if before.get(place) != after.get(place)
    ]
    if as_json:
        print(json.dumps([{"field": place, "before": old, "after": new} for place, old, new in rows]))
        return
    for place, old, new in rows:
        print(f"{printable(place)}\n  - {printable(old)}\n  + {printable(new)}")
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
        typer.Option(metavar="YYYY-MM-DDTHH:MM:SSZ", help="When to judge by the newer ones; now otherwise."),
    ] = None,
    reference: References = [],  # noqa: B006 - typer copies it
    unsigned_reference: Vouched = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Judge stored evidence by newer endorsements: what will stop being accepted, when, and what to update.

    Leaves with 3 when the newer endorsements turn an acceptance into a denial.
    """
    from strongroom.appraisal import forecast as forecasting

    then, later = evidence_files.moment(at), evidence_files.moment(newer_at, "--newer-at")
    binding = evidence_files.expected(report_data, extra_data, nonce, user_data, public_key, contract)
    recognised = evidence_files.evidence(file, at_place)
    rules = evidence_files.policy(
        policy, reference, trust, vouch=unsigned_reference, tee=recognised.evidence.tee, now=then
    )
    made = forecasting.forecast(
        recognised.evidence,
        evidence_files.endorsements(endorsements, recognised),
        evidence_files.endorsements(newer, recognised),
        rules,
        binding=binding,
        then=then,
        later=later,
    )
    if as_json:
        print(canonical.dumps(made.to_json()).decode())
    else:
        _print_forecast(made)
    if made.before.accepted and not made.after.accepted:
        raise PolicyDenied(
            "the newer endorsements end the acceptance",
            verdict=made.after,
            hint="update what is named above, or let the parties accept it until a date",
        )


def _flat(path: Path, place: str | None) -> dict[str, str]:
    """Each field's value by its place; a name that comes again is numbered."""
    from strongroom.evidence.describe import show as describe

    recognised = evidence_files.evidence(path, place)
    out = {"kind": recognised.kind}
    for one in describe.describe(recognised.evidence):
        place = base = f"{one.part}: {one.name}"
        number = 1
        while place in out:
            number += 1
            place = f"{base} ({number})"
        out[place] = one.value
    return out


def _explained(verdict: Any) -> dict[str, object]:
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


def _print_verdict(verdict: Any, name: str, known: str) -> None:
    from strongroom.appraisal.wording import sentences

    print(f"evidence  {known}: {_KNOWN[known]}")
    print(f"verdict   {'ACCEPTED' if verdict.accepted else 'DENIED'} by policy {name} ({verdict.policy})")
    print(f"as of     {fields.format_time(verdict.decided)}")
    for check in map(sentences.explain, verdict.checks):
        told = f"{check.name}: expected {check.expected}, got {check.got}"
        print(printable(f"{'yes' if check.ok else 'NO '}  {told}"))
        if not check.ok and check.source:
            print(printable(f"       source: {check.source}"))
    if verdict.claims is not None and verdict.claims.simulated:
        print("SIMULATED: no hardware stands behind this evidence; its maker could have made it up")
    for one in () if verdict.claims is None else verdict.claims.not_checked:
        print(printable(f"not checked: {one}"))


def _print_forecast(made: Any) -> None:
    from strongroom.appraisal import standing

    for when, one in (("so far", made.before), ("by the newer endorsements", made.after)):
        told = (
            f"{'accepted' if one.accepted else 'DENIED  '}  {when}, as of {fields.format_time(one.decided)}"
        )
        print(f"{told}; evidence {standing.word(one.claims, vouched=True)}")
    for stop in made.stops:
        when = "at once" if stop.when is None else fields.format_time(stop.when)
        print(printable(f"from {when}: {stop.check}: {stop.reason}"))
        print(printable(f"  {stop.fix}"))
    for update in made.updates:
        print(printable(f"update {update.component}: has {update.has}, needs {update.needs} ({update.what})"))
    if not made.stops and not made.updates:
        print("nothing changes, and nothing is behind")


def _write_ear(path: Path, verdict: Any, evidence: Any, nonce: bytes, audience: str, signer: Any) -> None:
    from datetime import timedelta

    from strongroom.appraisal import ear, ear_token

    result = ear.result(
        verdict,
        evidence=evidence,
        nonce=nonce,
        issuer=signer.name,
        audience=audience,
        verifier="strongroom",
        expires=verdict.decided + timedelta(hours=1),
    )
    if path.suffix == ".cwt":
        files.write(path, ear_token.to_cwt(result, signer.signing))
    else:
        files.write(path, ear_token.to_jwt(result, signer.signing).encode())
