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

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from strongroom.appraisal import judge
from strongroom.appraisal.wording.sentences import explain
from strongroom.crypto import digest, sign
from strongroom.encoding import canonical, fields
from strongroom.errors import Refused, StrongroomError
from strongroom.ledger import proof
from strongroom.model import check_names, record, rotation, signatures, verdict
from strongroom.model import manifest as manifest_model
from strongroom.model import party as party_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.ledger.proofpack import PackedRelease, ProofPack, ReceiptEntry
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.identifiers import ManifestDigest, PartyName
    from strongroom.model.messages import LedgerProof
    from strongroom.model.party import Party
    from strongroom.model.verdict import Explained

# What a broker must have asked before it released, whatever else it asked.
BROKER_CHECKS = frozenset(
    (
        check_names.OWN_SIGNATURE,
        check_names.OWN_ENTRY,
        check_names.OWN_DISK,
        check_names.NONCE_FRESH,
        check_names.NONCE_CONTRACT,
        check_names.REQUEST_ROLE,
        check_names.CONTRACT_VERSION,
        check_names.RUN_UNIQUE,
        check_names.KEYS_PRESENT,
    )
)


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
    checks = [*_parties(pack, anchors, rotations), _approved(pack), _only_parties(pack), _agreed_room(pack)]
    if not checks[-1].ok:  # nothing says which disks and brokers there should be
        return Judgement(checks=tuple(checks), simulated=False)
    checks += [*_manifests(pack), _only_manifests(pack)]
    simulated = False
    for release in pack.releases:
        more_checks, claims = _release(pack, release)
        checks += more_checks
        simulated = simulated or claims
    checks.append(_one_room(pack))
    checks += _receipt(pack)
    checks += [_receipt_entry(pack, entry) for entry in pack.receipts]
    checks.append(_complete(pack))
    return Judgement(checks=tuple(checks), simulated=simulated)


def _parties(
    pack: ProofPack, anchors: Sequence[Party], rotations: Sequence[rotation.Rotation]
) -> list[Explained]:
    if not anchors:
        return [_no("parties", "at least one party file that you trust", "none", "give --trust PARTY_FILE")]
    members = {member.party.name: member.party for member in pack.agreement.contract.members}
    checks = []
    for known_party in anchors:
        named = members.get(known_party.name)
        anchor, passed = _of_that_time(known_party, named, rotations)
        checks += [_before(pack, statement) for statement in passed]
        same, got = (False, "no such party") if named is None else _as_known(named, anchor)
        checks.append(
            _check(
                f"parties.{anchor.name}", anchor.keyid, got, same, "the contract is not with whom you think"
            )
        )
    return checks


def _of_that_time(
    anchor: Party, named: Party | None, rotations: Sequence[rotation.Rotation]
) -> tuple[Party, list[rotation.Rotation]]:
    """The party as it was before those of `rotations` that lead back to the keys that the contract names; and these."""
    passed: list[rotation.Rotation] = []
    for _ in rotations:
        if named is None or not any(field.startswith(_KNOWN_BY) for field in _differing(named, anchor)):
            break
        for statement in rotations:
            with contextlib.suppress(Refused):
                anchor = rotation.former(statement, anchor)
                passed.append(statement)
                break
    return anchor, passed


def _before(pack: ProofPack, statement: rotation.Rotation) -> Explained:
    """Whether the releases are of before that rotation, by the clock of the party's own broker.

    Of no other: whoever has stolen the old key signs a contract of today, and a broker of their own says that it was yesterday.
    """
    name, expected = (
        f"rotated.{statement.new.name}",
        f"releases of before {fields.format_time(statement.time)}",
    )
    if statement.old.broker is None or statement.old.name not in {release.party for release in pack.releases}:
        return _no(
            name,
            expected,
            "no release in the ledger of its own broker, by a party file that names it: nobody else's clock counts",
            "give the party file of that time to --trust, where you know that nobody else had its key",
        )
    try:
        last = max(record.parse(release.ledger.entry).time for release in pack.releases)
    except StrongroomError as cause:
        return _no(name, expected, cause.message, cause.hint)
    hint = "these keys were replaced by then: whoever signs with them is not that party"
    return _check(name, expected, f"the last of {fields.format_time(last)}", last <= statement.time, hint)


_KNOWN_BY = ("signing_key", "broker")


def _differing(named: Party, anchor: Party) -> frozenset[str]:
    """The fields in which a contract's entry is not the party file."""
    return frozenset(field for field, _, _ in party_model.differences(named, anchor))


def _as_known(named: Party, anchor: Party) -> tuple[bool, str]:
    """Whether the contract's entry is the party that the reader knows, and what it is. An anchor may have no broker."""
    differing = _differing(named, anchor)
    if "signing_key" in differing:
        return False, named.keyid
    if "recipient" in differing:
        return False, "that key with another recipient, who could read what is sealed to it"
    if anchor.broker is not None and any(field.startswith("broker") for field in differing):
        return False, "another broker"
    return True, named.keyid


def _approved(pack: ProofPack) -> Explained:
    signers = pack.agreement.signers()
    return _check(
        "contract.approved",
        f"{pack.agreement.contract.approvals.threshold} signatures, every disk owner's among them",
        f"signed by {', '.join(signers) or 'nobody'}",
        pack.agreement.approved(),
        "the parties never agreed to this",
    )


def _only_parties(pack: ProofPack) -> Explained:
    envelope = pack.agreement.envelope
    own = signatures.own_form(
        envelope, [member.party.signing_key for member in pack.agreement.contract.members]
    )
    stray = sum(signature not in own.signatures for signature in envelope.signatures)
    return _check(
        "contract.signatures",
        "signatures of its parties alone, each sound, once, and under its key's own id",
        "all of them" if envelope == own else f"{stray or 'some'} of {len(envelope.signatures)} are not",
        envelope == own,
        "a damaged signature, or one of somebody who has no part in this",
    )


def _agreed_room(pack: ProofPack) -> Explained:
    names = [room.name for room in pack.agreement.contract.rooms]
    return _check(
        "receipt.room",
        f"a room of the contract: {', '.join(names)}",
        pack.receipt.room,
        pack.receipt.room in names,
        "this receipt is of a room that the parties never agreed to",
    )


def _room(pack: ProofPack) -> RoomTerms:
    """The room that the receipt is of; `_agreed_room` has made sure of it."""
    return pack.agreement.contract.room(pack.receipt.room)


def _disks(pack: ProofPack) -> list[tuple[str, PartyName, ManifestDigest]]:
    """(name, owner, manifest digest) of the room's disks, the image first."""
    room = _room(pack)
    image = ("image", room.image.owner, room.image.manifest_digest)
    # Datasets may be called anything, `image` too.
    return [
        image,
        *((f"data.{dataset.name}", dataset.owner, dataset.manifest_digest) for dataset in room.datasets),
    ]


def _manifests(pack: ProofPack) -> list[Explained]:
    contract = pack.agreement.contract
    by_digest = {manifest.digest: (envelope, manifest) for envelope, manifest in pack.manifests}
    checks = []
    for name, owner, manifest_digest in _disks(pack):
        signed_manifest = by_digest.get(manifest_digest)
        party = contract.party(owner)
        ok = (
            signed_manifest is not None
            and signed_manifest[1].owner == party.keyid
            and signatures.in_own_form(signed_manifest[0], party.signing_key)
        )
        got = (
            "missing"
            if signed_manifest is None
            else ("signed by its owner" if ok else "not signed by its owner")
        )
        checks.append(
            _check(
                f"manifest.{name}",
                f"{manifest_digest} signed by {owner}",
                got,
                ok,
                "the disk is not the agreed one",
            )
        )
    return checks


def _only_manifests(pack: ProofPack) -> Explained:
    wanted = {manifest for _, _, manifest in _disks(pack)}
    digests = [manifest.digest for _, manifest in pack.manifests]
    return _check(
        "manifests.only",
        f"{len(wanted)} manifest(s), each once",
        f"{len(digests)}",
        sorted(digests) == sorted(wanted),
        "manifests that the contract does not name have no place here",
    )


def _release(pack: ProofPack, release: PackedRelease) -> tuple[list[Explained], bool]:
    """The checks of one broker's release, and whether its claims say `simulated`."""
    entry, ledger = _ledger_entry(pack, f"ledger.{release.party}", release.party, release.ledger)
    if entry is None:
        return [ledger], False
    judged, simulated = _verdict(pack, release, entry)
    return [ledger, _record(pack, release, entry), judged, _certificates(pack, release, entry)], simulated


def _ledger_entry(
    pack: ProofPack, name: str, party: PartyName, ledger_proof: LedgerProof
) -> tuple[record.Record | None, Explained]:
    expected = f"an entry of the ledger of {party}"
    try:
        broker = pack.agreement.contract.party(party).broker
        if broker is None:
            return None, _no(name, expected, f"{party} has no broker", "")
        entry, checkpoint = proof.verify(ledger_proof, sign.VerifyingKey(broker.ledger_key))
    except StrongroomError as cause:
        return None, _no(name, expected, cause.message, cause.hint)
    if len(checkpoint.signatures) != 1:
        return None, _no(name, expected, "signatures on the checkpoint that nobody here can check", "")
    return entry, _yes(
        name, expected, f"entry {ledger_proof.index}, counted from 0, of a ledger of {checkpoint.size}"
    )


def _record(pack: ProofPack, release: PackedRelease, entry: record.Record) -> Explained:
    name = f"record.{release.party}"
    broker = pack.agreement.contract.party(release.party).broker
    ciphers = {manifest.digest: manifest.cipher for _, manifest in pack.manifests}
    own = [manifest for _, owner, manifest in _disks(pack) if owner == release.party]
    locked = [
        manifest for manifest in dict.fromkeys(own) if ciphers.get(manifest) != manifest_model.NO_CIPHER
    ]
    facts: dict[str, tuple[object, object]] = {
        "kind": (record.RecordKind.RELEASE.value, entry.kind.value),
        "contract": (pack.agreement.contract.digest, entry.contract_digest),
        "binding's contract": (pack.agreement.contract.digest, release.binding.contract_digest),
        "audience": ("" if broker is None else broker.pin, release.binding.audience),
        "broker": (release.party, entry.broker),
        "run": (release.binding.keys.run_id, entry.run_id),
        "evidence": (release.evidence.digest, entry.body.get("evidence")),
        "endorsements": (digest.sha256(release.endorsements.encode()), entry.body.get("endorsements")),
        "binding": (fields.format_data(release.binding.digest()), entry.body.get("binding")),
        "nonce": (fields.format_data(release.binding.nonce), entry.body.get("nonce")),
        "signing key": (fields.format_data(release.binding.keys.signing), entry.body.get("signing_key")),
        "role": (pack.receipt.room, release.binding.role),
        "disks": (locked, entry.body.get("disks")),
    }
    for what, (expected, got) in facts.items():
        if expected != got:
            return _no(name, f"{what} {expected}"[:400], str(got)[:200], "the entry is about something else")
    return _yes(name, "this contract, evidence, endorsements, binding, run and disks", "all the same")


def _certificates(pack: ProofPack, release: PackedRelease, entry: record.Record) -> Explained:
    broker = pack.agreement.contract.party(release.party).broker
    recorded = entry.body.get("certificate")
    root = "" if broker is None else broker.authority
    # Records from before contracts had issuers lack one.
    expected = [] if recorded is None else [recorded, entry.body.get("issuer"), root]
    expected = [each for each in expected if each is not None]
    digests: list[object] = [digest.sha256(der) for der in release.certificates]
    return _check(
        f"certificates.{release.party}",
        ", by ".join(str(issuer) for issuer in expected) or "none",
        ", by ".join(str(issuer) for issuer in digests) or "none",
        expected == digests,
        "the certificate is not the one of the record, or not by the authority of the contract",
    )


def _verdict(pack: ProofPack, release: PackedRelease, entry: record.Record) -> tuple[Explained, bool]:
    """The check, and whether the claims say `simulated` (False where nothing could be judged)."""
    name = f"verdict.{release.party}"
    expected = "accepted, and the same when judged again"
    try:
        replayed, recorded = _judge_again(pack, release, entry)
        same = _same(replayed, recorded, entry)
    except StrongroomError as cause:
        return _no(name, expected, cause.message, cause.hint), False
    if isinstance(replayed, verdict.Denied):
        failed = explain(replayed.failed[0])
        got = f"denied: {failed.name}: expected {failed.expected}, got {failed.got}"
        return _no(
            name, expected, got, failed.hint
        ), replayed.claims is not None and replayed.claims.simulated
    simulated = replayed.claims.simulated
    missing = BROKER_CHECKS - {check.name for check in replayed.checks}
    if missing:
        got = f"accepted without asking {', '.join(sorted(missing))}"
        return _no(name, expected, got, "the broker did not do its part"), simulated
    if not same:
        return _no(name, expected, "accepted, but the recorded verdict says something else", ""), simulated
    note = " (SIMULATED: no hardware stands behind it)" if simulated else ""
    return _yes(name, expected, f"{len(replayed.checks)} checks, all as recorded{note}"), simulated


def _same(replayed: verdict.Verdict, recorded: dict[str, Any], entry: record.Record) -> bool:
    """Whether the entry says what judging again gives, of the same time. Raises `Malformed`."""
    comparable = verdict.as_recorded(replayed.to_json(), recorded)
    return canonical.dumps(comparable) == canonical.dumps(recorded) and replayed.decided == entry.time


def _judge_again(
    pack: ProofPack, release: PackedRelease, entry: record.Record
) -> tuple[verdict.Verdict, dict[str, object]]:
    """The verdict that this evidence deserves, and the recorded one. Raises `Malformed`."""
    body = fields.Fields(dict(entry.body), "ledger entry")
    recorded = body.raw_object("verdict")
    judged = body.object("judged")
    gates = judged.integer("gates", low=1, high=64)
    replayed = judge.judge(
        pack.agreement,
        release.evidence,
        release.endorsements,
        binding=release.binding,
        gates=verdict.read_checks(fields.Fields(recorded, "verdict"))[:gates],
        runs_used=judged.integer("runs_used", low=0, high=1 << 50),
        now=fields.Fields(recorded, "verdict").time("decided"),
        lifetime=timedelta(seconds=judged.integer("lifetime_seconds", low=1, high=86_400)),
    )
    judged.done()
    return replayed, recorded


def _one_room(pack: ProofPack) -> Explained:
    rooms = {release.binding.keys for release in pack.releases}
    return _check(
        "room.same",
        "one room",
        f"{len(rooms)} room(s)",
        len(rooms) == 1,
        "releases to several rooms do not make one run",
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
    signature = _check(
        "receipt.signature",
        f"signed by the room of {keys.run_id}, about this contract",
        ("signed" if good else "not signed") + (", about it" if about else ", about something else"),
        good and about,
        "this receipt is not of this run",
    )
    roots = {manifest.digest: manifest.root_hash for _, manifest in pack.manifests}
    wanted = [manifest_digest for _, manifest_digest in _room(pack).disks()]
    opened = [receipt.image, *receipt.datasets]
    same = [disk.manifest_digest for disk in opened] == wanted and all(
        roots.get(disk.manifest_digest) == disk.root_hash for disk in opened
    )
    disks = _check(
        "receipt.disks",
        f"the contract's {len(wanted)} disk(s), by the manifests' root hashes",
        "the same" if same else "others",
        same,
        "the room opened other disks",
    )
    return [signature, disks]


def _receipt_entry(pack: ProofPack, receipt: ReceiptEntry) -> Explained:
    name = f"receipt.{receipt.party}"
    entry, check = _ledger_entry(pack, name, receipt.party, receipt.ledger)
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
    return _check(name, ", ".join(facts), got, not wrong, "the entry is about something else")


def _complete(pack: ProofPack) -> Explained:
    owners = sorted(pack.agreement.contract.key_owners(pack.receipt.room))
    released = sorted(release.party for release in pack.releases)
    received = sorted(receipt.party for receipt in pack.receipts)
    return _check(
        "brokers.complete",
        f"a release and a receipt of {', '.join(owners) or 'nobody'}, each once",
        f"releases of {', '.join(released)}; receipts of {', '.join(received)}",
        owners == released == received,
        "a broker's part is missing or there twice, so the pack does not tell the one story",
    )


def _check(name: str, expected: str, got: str, ok: bool, hint: str) -> Explained:  # noqa: FBT001 - the outcome of a comparison
    return verdict.Explained(name=name, expected=expected, got=got, ok=ok, hint="" if ok else hint)


def _yes(name: str, expected: str, got: str) -> Explained:
    return _check(name, expected, got, True, "")


def _no(name: str, expected: str, got: str, hint: str) -> Explained:
    return _check(name, expected, got, False, hint)
