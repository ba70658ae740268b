"""Judging a proof pack again, offline: every link from the parties' signatures to the receipt.

Checks, in this order (the names recur in the result):
  1 parties.<name>         the contract names the very keys that the reader trusts, where any were given; or those that a
                           party had before, by a rotation that it signed with both
    rotated.<name>         and the releases are not of after that rotation: what an old key signed then counts for nothing
  2 contract.approved      enough parties signed these exact bytes, every disk owner among them
  3 contract.signatures    no signature on the contract that is not a party's
  4 manifest.<name>        the sealed disks' manifests are the contract's, signed by their owners
  5 manifests.only         no manifest beside those
  6 ledger.<party>         the release is in that broker's ledger: signed checkpoint, inclusion proof
  7 record.<party>         the entry is about this contract, evidence, endorsements, binding, run and disks
  8 verdict.<party>        the evidence, judged again at the time of the decision, gives the same verdict: every
                           recorded check and claim, in its record form (names and data; wording is not compared)
  9 certificates.<party>   the certificates are those of the entry, by the authority that the contract names
 10 room.same              all brokers released to one and the same room
 11 receipt.signature      the room that was released to signed the receipt, and it is about this contract
 12 receipt.disks          it opened exactly the contract's disks, with the manifests' root hashes
 13 receipt.<party>        the receipt is in that broker's ledger, after the release
 14 brokers.complete       every broker that owns a disk key is here, once, with a release and a receipt
Not checked here: that a ledger was not forked later (compare checkpoints with a witness); what only a
broker can know (that its nonce was fresh: its word for it is in the recorded verdict); the outputs'
content (their digests are in the receipt; hash the files).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.ledger import releases
from strongroom.model import record, rotation, signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.ledger.proofpack import ProofPack, ReceiptEntry
    from strongroom.model.party import Party
    from strongroom.model.verdict import Explained


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The outcome. `simulated`: no hardware stands behind at least one of the verdicts judged again."""

    checks: tuple[Explained, ...]
    simulated: bool

    @property
    def holds(self) -> bool:
        """Whether every check is ok; only then the pack proves anything."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Explained, ...]:
        """The checks that are not, in order."""
        return tuple(check for check in self.checks if not check.ok)


def inspect(
    pack: ProofPack, *, anchors: Sequence[Party], rotations: Sequence[rotation.Rotation] = ()
) -> Judgement:
    """All checks, good and bad. Never raises.

    anchors: the parties whose keys the reader got by a way of their own. With none, the first check
    fails: a pack that vouches for itself proves nothing. rotations: statements of new keys that parties made since.
    """
    checks = [
        *releases.parties(pack, anchors, rotations),
        releases.approved(pack),
        releases.only_parties(pack),
        _agreed_room(pack),
    ]
    if not checks[-1].ok:  # nothing says which disks and brokers there should be
        return Judgement(checks=tuple(checks), simulated=False)
    checks += [*releases.manifests(pack), releases.only_manifests(pack)]
    simulated = False
    for release in pack.releases:
        more_checks, claims = releases.release(pack, release)
        checks += more_checks
        simulated = simulated or claims
    checks.append(releases.one_room(pack))
    checks += _receipt(pack)
    checks += [_receipt_entry(pack, entry) for entry in pack.receipts]
    checks.append(_complete(pack))
    return Judgement(checks=tuple(checks), simulated=simulated)


def _agreed_room(pack: ProofPack) -> Explained:
    names = [room.name for room in pack.agreement.contract.rooms]
    return releases.check(
        "receipt.room",
        f"a room of the contract: {', '.join(names)}",
        pack.receipt.room,
        pack.receipt.room in names,
        "this receipt is of a room that the parties never agreed to",
    )


def _receipt(pack: ProofPack) -> list[Explained]:
    receipt, contract = pack.receipt, pack.agreement.contract
    keys = pack.releases[0].binding.keys
    signer = sign.VerifyingKey(keys.signing)
    good = signatures.in_own_form(pack.receipt_envelope, signer)
    about = (receipt.run_id, receipt.contract_digest, receipt.signing_key) == (
        keys.run_id,
        contract.digest,
        keys.signing,
    )
    signature = releases.check(
        "receipt.signature",
        f"signed by the room of {keys.run_id}, about this contract",
        ("signed" if good else "not signed") + (", about it" if about else ", about something else"),
        good and about,
        "this receipt is not of this run",
    )
    roots = {manifest.digest: manifest.root_hash for _, manifest in pack.manifests}
    wanted = [manifest_digest for _, manifest_digest in releases.room_of(pack).disks()]
    opened = [receipt.image, *receipt.datasets]
    same = [disk.manifest_digest for disk in opened] == wanted and all(
        roots.get(disk.manifest_digest) == disk.root_hash for disk in opened
    )
    disks = releases.check(
        "receipt.disks",
        f"the contract's {len(wanted)} disk(s), by the manifests' root hashes",
        "the same" if same else "others",
        same,
        "the room opened other disks",
    )
    return [signature, disks]


def _receipt_entry(pack: ProofPack, receipt: ReceiptEntry) -> Explained:
    name = f"receipt.{receipt.party}"
    entry, check = releases.ledger_entry(pack, name, receipt.party, receipt.ledger)
    if entry is None:
        return check
    envelope = fields.format_data(pack.receipt_envelope.encode())
    released = [release.ledger.index for release in pack.releases if release.party == receipt.party]
    facts = {
        "a receipt": entry.kind is record.RecordKind.RECEIPT,
        "of this broker": entry.broker == receipt.party,
        "of this run": (entry.run_id, entry.contract_digest)
        == (pack.receipt.run_id, pack.receipt.contract_digest),
        "these very bytes": entry.body == {"envelope": envelope},
        "after the release": all(index < receipt.ledger.index for index in released),
    }
    wrong = [what for what, holds in facts.items() if not holds]
    got = check.got if not wrong else "not " + ", not ".join(wrong)
    return releases.check(name, ", ".join(facts), got, not wrong, "the entry is about something else")


def _complete(pack: ProofPack) -> Explained:
    owners = sorted(pack.agreement.contract.key_owners(pack.receipt.room))
    released = sorted(release.party for release in pack.releases)
    received = sorted(receipt.party for receipt in pack.receipts)
    return releases.check(
        "brokers.complete",
        f"a release and a receipt of {', '.join(owners) or 'nobody'}, each once",
        f"releases of {', '.join(released)}; receipts of {', '.join(received)}",
        owners == released == received,
        "a broker's part is missing or there twice, so the pack does not tell the one story",
    )
