"""`strongroom proof export|verify`: one file that says how a run went, and checks offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files
from strongroom.cli.printable import say
from strongroom.encoding import canonical, fields
from strongroom.errors import Misuse, Refused, of_file
from strongroom.ledger import inspect as inspection
from strongroom.ledger import proofpack
from strongroom.model import binding as binding_model
from strongroom.model import endorsements as endorsements_model
from strongroom.model import evidence as evidence_model
from strongroom.model import manifest as manifest_model
from strongroom.model import messages
from strongroom.model import party as party_model
from strongroom.model import receipt as receipt_model
from strongroom.model import rotation as rotation_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.room import run_files

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
    if not (run / run_files.RECEIPT).is_file():
        raise Misuse(
            f"{run}: holds no receipt",
            hint="name the --out folder of a `strongroom run` that came to an end",
        )
    releases = [_release(run, path) for path in sorted(run.glob(run_files.RELEASES))]
    receipts = []
    for path in sorted(run.glob(run_files.LEDGER_PROOFS)):
        proof = files.parsed(path, messages.parse_ledger_proof, max_bytes=messages.MAX_ANSWER)
        party = _party(path)
        receipts.append(proofpack.ReceiptEntry(party=party, ledger=proof))
    envelope, receipt = files.parsed(
        run / run_files.RECEIPT, receipt_model.parse_envelope, max_bytes=4 * receipt_model.MAX_BYTES
    )
    pack = proofpack.ProofPack(
        agreement=files.parsed(run / run_files.AGREEMENT, agreement_model.read, max_bytes=4 << 20),
        manifests=tuple(
            files.parsed(path, manifest_model.parse_envelope, max_bytes=4 * manifest_model.MAX_BYTES)
            for path in sorted((run / run_files.MANIFESTS).glob("*.json"))
        ),
        releases=tuple(releases),
        receipt_envelope=envelope,
        receipt=receipt,
        receipts=tuple(receipts),
    )
    data = pack.encode()
    proofpack.parse(data)  # what cannot be read again is not handed out
    files.write(out, data)
    print(f"{out}: {len(data)} bytes, {receipt.run}")


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
    pack = files.parsed(file, proofpack.parse, max_bytes=proofpack.MAX_BYTES)
    anchors = [files.parsed(path, party_model.parse, max_bytes=party_model.MAX_BYTES) for path in trust]
    rotations = [
        files.parsed(path, rotation_model.read, max_bytes=4 * rotation_model.MAX_BYTES) for path in rotation
    ]
    judgement = inspection.inspect(pack, anchors=anchors, rotations=rotations)
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
    if not judgement.holds:
        failed = ", ".join(check.name for check in judgement.failed)
        if not anchors and failed == "parties":
            raise Refused(
                "whether the proof holds cannot be told: it agrees with itself, and no --trust names a party that you know",
                code="proof-fails",
                hint=judgement.failed[0].hint,
            )
        raise Refused(f"the proof does not hold: {failed}", code="proof-fails", hint=judgement.failed[0].hint)
    if not as_json:
        print("the proof holds" + (", for a SIMULATED room" if judgement.simulated else ""))


def _print_judgement(pack: proofpack.ProofPack, judgement: inspection.Judgement, trusted: set[str]) -> None:
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
    print(f"run      {receipt.run}: {receipt.outcome.value}, status {receipt.exit_status}")
    if receipt.details:
        print(f"         {receipt.explanation}")
    print(f"contract {receipt.contract}")
    for output in receipt.outputs:
        say(f"output   {output.path}: {output.sealed_digest} ({output.sealed_bytes} bytes, sealed)")


def _party(path: Path) -> str:
    party = run_files.party_of(path.name)
    if party is None:
        raise Misuse(
            f"{path}: its name says no party",
            code="bad-path",
            hint="`strongroom run` writes no such file: remove it",
        )
    return party


def _release(run: Path, path: Path) -> proofpack.PackedRelease:
    party = _party(path)
    with of_file(path):
        return _read_release(run, party, path)


def _read_release(run: Path, party: str, path: Path) -> proofpack.PackedRelease:
    data = files.read(path, max_bytes=messages.MAX_ANSWER)
    top = fields.Fields(canonical.loads(data, what="answer", max_bytes=messages.MAX_ANSWER), "answer")
    certificates = [
        fields.Fields({"der": item}, "answer").data("der", max_bytes=64 * 1024)
        for item in top.items("certificates", max_items=8)
    ]
    top.raw_object("verdict")  # the ledger entry holds it, and is what counts
    release = proofpack.PackedRelease(
        party=party,
        binding=binding_model.read(top.object("binding")),
        evidence=files.parsed(
            run / run_files.evidence(party), evidence_model.parse, max_bytes=2 * evidence_model.MAX_BYTES
        ),
        endorsements=endorsements_model.read(top.object("endorsements")),
        certificates=tuple(certificates),
        ledger=messages.read_ledger_proof(top.object("ledger")),
    )
    top.done()
    return release
