"""A proof pack: all that was agreed, shown and decided about one run, in one file.

JSON::

    {"format": "strongroom-proof/1", "agreement": BASE64, "manifests": [BASE64],
     "releases": [{"party", "binding": object, "evidence": object, "endorsements": object,
                   "certificates": [BASE64], "ledger": LedgerProof}],
     "receipt": BASE64, "receipts": [{"party", "ledger": LedgerProof}]}

It holds no secret: no data, no key, no result. `inspect` judges it again offline (see there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model import binding as binding_model
from strongroom.model import endorsements as endorsements_model
from strongroom.model import evidence as evidence_model
from strongroom.model import manifest as manifest_model
from strongroom.model import messages, receipt
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.identifiers import PartyName

if TYPE_CHECKING:
    from strongroom.encoding import dsse
    from strongroom.model.identifiers import RoomName

FORMAT = "strongroom-proof/1"
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class PackedRelease:
    """What one broker was shown, and the ledger entry of what it decided."""

    party: PartyName
    binding: binding_model.Binding
    evidence: evidence_model.Evidence
    endorsements: endorsements_model.Endorsements
    certificates: tuple[bytes, ...]
    ledger: messages.LedgerProof


@dataclass(frozen=True, kw_only=True)
class ReceiptEntry:
    """The ledger entry of the receipt at one broker."""

    party: PartyName
    ledger: messages.LedgerProof


@dataclass(frozen=True, kw_only=True)
class ProofPack:
    """A parsed pack. Nothing in it is verified yet."""

    agreement: agreement_model.Agreement
    manifests: tuple[tuple[dsse.Envelope, manifest_model.Manifest], ...]
    releases: tuple[PackedRelease, ...]
    receipt_envelope: dsse.Envelope
    receipt: receipt.Receipt
    receipts: tuple[ReceiptEntry, ...]

    @property
    def room(self) -> RoomName:
        """The room that the receipt is of, whether the contract has one of that name or not."""
        return self.receipt.room

    @property
    def renewed(self) -> bool:
        """A pack has the releases that a run began with."""
        return False

    def encode(self) -> bytes:
        """The file's bytes."""
        return (
            canonical.dumps(
                {
                    "format": FORMAT,
                    "agreement": fields.format_data(self.agreement.encode()),
                    "manifests": [fields.format_data(envelope.encode()) for envelope, _ in self.manifests],
                    "releases": [_release_json(release) for release in self.releases],
                    "receipt": fields.format_data(self.receipt_envelope.encode()),
                    "receipts": [
                        {"party": receipt.party, "ledger": receipt.ledger.to_json()}
                        for receipt in self.receipts
                    ],
                }
            )
            + b"\n"
        )


def parse(data: bytes) -> ProofPack:
    """Parse a pack. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="proof pack", max_bytes=MAX_BYTES), "proof pack")
    top.constant("format", FORMAT)
    agreement = agreement_model.read(top.data("agreement", max_bytes=4 << 20))
    manifests = tuple(
        manifest_model.parse_envelope(_blob(item, manifest_model.MAX_ENVELOPE))
        for item in top.items("manifests", max_items=65)
    )
    releases = tuple(_read_release(item) for item in top.objects("releases", max_items=32))
    envelope, parsed = receipt.parse_envelope(top.data("receipt", max_bytes=receipt.MAX_ENVELOPE))
    receipts = []
    for item in top.objects("receipts", max_items=32):
        receipts.append(
            ReceiptEntry(
                party=PartyName(item.name("party")), ledger=messages.read_ledger_proof(item.object("ledger"))
            )
        )
        item.done()
    top.done()
    if not releases or not receipts:
        raise Malformed(
            f"proof pack: {len(releases)} releases and {len(receipts)} receipt entries: without one of each it proves nothing",
            hint="export it from the whole folder that `strongroom run --out` wrote",
        )
    pack = ProofPack(
        agreement=agreement,
        manifests=manifests,
        releases=releases,
        receipt_envelope=envelope,
        receipt=parsed,
        receipts=tuple(receipts),
    )
    if pack.encode() != data:
        # One pack, one spelling: nobody can change a byte of it that no check looks at.
        raise Malformed(
            "proof pack: not in its one canonical form",
            code="not-canonical",
            hint="give the file as `strongroom proof export` wrote it, unchanged",
        )
    return pack


def _release_json(release: PackedRelease) -> dict[str, object]:
    return {
        "party": release.party,
        "binding": release.binding.to_json(),
        "evidence": release.evidence.to_json(),
        "endorsements": release.endorsements.to_json(),
        "certificates": [fields.format_data(der) for der in release.certificates],
        "ledger": release.ledger.to_json(),
    }


def _read_release(source: fields.Fields) -> PackedRelease:
    release = PackedRelease(
        party=PartyName(source.name("party")),
        binding=binding_model.read(source.object("binding")),
        evidence=evidence_model.read(source.object("evidence")),
        endorsements=endorsements_model.read(source.object("endorsements")),
        certificates=tuple(_blob(item, 64 * 1024) for item in source.items("certificates", max_items=8)),
        ledger=messages.read_ledger_proof(source.object("ledger")),
    )
    source.done()
    return release


def _blob(item: object, limit: int) -> bytes:
    return fields.Fields({"data": item}, "proof pack").data("data", max_bytes=limit)
