"""A run's folder becomes a proof pack: agreement, manifests, evidence, verdicts and receipt in one file. No secrets. And its judgement."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.encoding import canonical, fields
from strongroom.errors import Misuse, Refused, of_file
from strongroom.ledger import inspect as inspection
from strongroom.ledger import proofpack
from strongroom.model import binding as binding_model
from strongroom.model import endorsements as endorsements_model
from strongroom.model import evidence as evidence_model
from strongroom.model import manifest as manifest_model
from strongroom.model import messages, signatures
from strongroom.model import receipt as receipt_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.room import run_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from strongroom.ledger.inspect import Judgement
    from strongroom.ledger.proofpack import ProofPack
    from strongroom.model.identifiers import PartyName
    from strongroom.model.party import Party
    from strongroom.model.rotation import Rotation

_MAX_AGREEMENT = 4 << 20  # bytes


def export_proof(run: Path, *, out: Path) -> ProofPack:
    """Write the proof pack `out` of the run whose folder `run` is. Raises `Misuse` for a folder without a receipt, `Malformed`."""
    pack = gather(run)
    data = pack.encode()
    proofpack.parse(data)  # what cannot be read again is not handed out
    files.write(out, data)
    return pack


def gather(run: Path) -> ProofPack:
    """What a run's folder holds, as a pack. Nothing of it is judged; signatures are brought into the one form that packs have."""
    if not (run / run_files.RECEIPT).is_file():
        raise Misuse(
            f"{run}: holds no receipt",
            hint="name the --out folder of a `strongroom run` that came to an end",
        )
    releases = [_release(run, path) for path in sorted(run.glob(run_files.RELEASES))]
    receipts = []
    for path in sorted(run.glob(run_files.LEDGER_PROOFS)):
        proof = files.parsed(path, messages.parse_ledger_proof, max_bytes=messages.MAX_ANSWER)
        receipts.append(proofpack.ReceiptEntry(party=_party(path), ledger=proof))
    envelope, receipt = files.parsed(
        run / run_files.RECEIPT, receipt_model.parse_envelope, max_bytes=receipt_model.MAX_ENVELOPE
    )
    agreement = files.parsed(run / run_files.AGREEMENT, agreement_model.read, max_bytes=_MAX_AGREEMENT)
    keys = [member.party.signing_key for member in agreement.contract.members]
    manifests = [
        files.parsed(path, manifest_model.parse_envelope, max_bytes=manifest_model.MAX_ENVELOPE)
        for path in sorted((run / run_files.MANIFESTS).glob("*.json"))
    ]
    return proofpack.ProofPack(
        agreement=replace(agreement, envelope=signatures.own_form(agreement.envelope, keys)),
        manifests=tuple((signatures.own_form(signed, keys), manifest) for signed, manifest in manifests),
        releases=tuple(releases),
        receipt_envelope=envelope,  # its very bytes are in the ledgers
        receipt=receipt,
        receipts=tuple(receipts),
    )


def load_proof(file: Path) -> ProofPack:
    """A proof pack from its file. Nothing in it is verified. Raises `Malformed`."""
    return files.parsed(file, proofpack.parse, max_bytes=proofpack.MAX_BYTES)


def verify_proof(
    pack: ProofPack, *, trust: Sequence[Party] = (), rotations: Sequence[Rotation] = ()
) -> Judgement:
    """Judge a run again, offline. The answer has every check, those that hold too; `Judgement.holds` says whether all do.

    trust: parties by files that you got by a way of your own; without one the pack can at best agree with itself, and does not hold.
    rotations: statements of new keys that a party made since the run.
    """
    return inspection.inspect(pack, anchors=trust, rotations=rotations)


def require_proof(judgement: Judgement, *, trust: Sequence[Party] = ()) -> None:
    """Raise `Refused` unless every check of `verify_proof` holds. trust: as it was given there."""
    if judgement.holds:
        return
    failed = ", ".join(check.name for check in judgement.failed)
    hint = judgement.failed[0].hint
    if not trust and failed == "parties":
        raise Refused(
            "nobody can say whether the proof holds: it agrees with itself, and no --trust names a party that you know",
            code="proof-fails",
            hint=hint,
        )
    raise Refused(f"the proof does not hold: {failed}", code="proof-fails", hint=hint)


def _party(path: Path) -> PartyName:
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


def _read_release(run: Path, party: PartyName, path: Path) -> proofpack.PackedRelease:
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
