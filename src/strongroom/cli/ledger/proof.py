"""`strongroom proof export|verify`: one file that says how a run went, and checks offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.printable import say

if TYPE_CHECKING:
    from strongroom.ledger.inspect import Judgement
    from strongroom.ledger.proofpack import ProofPack

SIMULATED = (
    "SIMULATED: this room ran without TEE hardware. The machine's operator could have looked into it,\n"
    "           and could have made this evidence up."
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Export and judge proof packs.", no_args_is_help=True)
    group.command("export")(export)
    group.command("verify")(verify)
    app.add_typer(group, name="proof")


def export(
    run: Annotated[Path, typer.Argument(help="The folder that `strongroom run` wrote.")],
    out: Annotated[Path, typer.Option(help="The proof pack to write.")],
) -> None:
    """Gather a run's agreement, manifests, evidence, verdicts and receipt in one file. No secrets."""
    from strongroom.ledger import export as exporting

    pack = exporting.export_proof(run, out=out)
    print(f"{out}: {out.stat().st_size} bytes, {pack.receipt.run_id}")


def verify(
    file: Annotated[Path, typer.Argument(help="A proof pack.")],
    trust: Annotated[list[Path], typer.Option(help="A party file that you got by a way of your own.")] = [],  # noqa: B006 - typer copies it
    rotation: Annotated[
        list[Path],
        typer.Option(help="A statement of new keys, NAME.rotation.json, that a party made since the run."),
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Judge a run again, offline. Leaves with 3 unless every check holds."""
    from strongroom.ledger import export as exporting
    from strongroom.parties import papers

    pack = exporting.load_proof(file)
    anchors = [papers.load_party(path) for path in trust]
    rotations = [papers.load_rotation(path) for path in rotation]
    judgement = exporting.verify_proof(pack, trust=anchors, rotations=rotations)
    if as_json:
        print(
            json.dumps(
                {
                    "holds": judgement.holds,
                    "simulated": judgement.simulated,
                    "trusted": [anchor.name for anchor in anchors],
                    "checks": [check.to_json() for check in judgement.checks],
                }
            )
        )
    else:
        _print_judgement(pack, judgement, {anchor.name for anchor in anchors})
    exporting.require_proof(judgement, trust=anchors)
    if not as_json:
        print("the proof holds" + (", for a SIMULATED room" if judgement.simulated else ""))


def _print_judgement(pack: ProofPack, judgement: Judgement, trusted: set[str]) -> None:
    if judgement.simulated:
        print(SIMULATED)
    for check in judgement.checks:
        say(f"{'ok ' if check.ok else 'NO '} {check.name}: {check.got}")
        if not check.ok:
            say(f"    expected {check.expected}")
            if check.hint:
                say(f"    {check.hint}")
    members = [member.party.name for member in pack.agreement.contract.members]
    print(f"trusted  {', '.join(name for name in members if name in trusted) or 'nobody'}")
    others = ", ".join(name for name in members if name not in trusted)
    if others:
        print(f"         the keys of {others} are taken from the contract (--trust would check them)")
    receipt = pack.receipt
    print(f"run      {receipt.run_id}: {receipt.outcome.value}, status {receipt.exit_status}")
    if receipt.details:
        print(f"         {receipt.explanation}")
    print(f"contract {receipt.contract_digest}")
    for output in receipt.outputs:
        say(f"output   {output.path}: {output.sealed_digest} ({output.sealed_bytes} bytes, sealed)")
