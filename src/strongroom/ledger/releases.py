"""What a room was released to, judged again, offline: of a proof pack (`inspect`), or of a room at the other end of a tunnel.

The checks are those of `inspect`, 1 to 10, under the same names.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from strongroom.appraisal import judge
from strongroom.appraisal.wording.sentences import explain
from strongroom.crypto import digest, sign
from strongroom.encoding import canonical, dsse, fields
from strongroom.errors import Refused, StrongroomError
from strongroom.ledger import proof
from strongroom.model import check_names, record, rotation, signatures, verdict
from strongroom.model import manifest as manifest_model
from strongroom.model import party as party_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.ledger.proofpack import PackedRelease
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.identifiers import ManifestDigest, PartyName, RoomName
    from strongroom.model.messages import LedgerProof
    from strongroom.model.party import Party
    from strongroom.model.verdict import Explained


class Shown(Protocol):
    """What is judged. room: one of the agreement's contract, which the caller has made sure of."""

    @property
    def agreement(self) -> Agreement:
        """What the parties signed."""

    @property
    def room(self) -> RoomName:
        """Which of its rooms this is about."""

    @property
    def renewed(self) -> bool:
        """Whether renewals count as releases: of a room that runs, not of a run that was."""

    @property
    def manifests(self) -> tuple[tuple[dsse.Envelope, manifest_model.Manifest], ...]:
        """Of its disks."""

    @property
    def releases(self) -> tuple[PackedRelease, ...]:
        """One of each broker."""


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


def parties(
    shown: Shown, anchors: Sequence[Party], rotations: Sequence[rotation.Rotation]
) -> list[Explained]:
    """Whether the contract is with the parties that the reader knows; with none, it is not."""
    if not anchors:
        return [_no("parties", "at least one party file that you trust", "none", "give --trust PARTY_FILE")]
    members = {member.party.name: member.party for member in shown.agreement.contract.members}
    checks = []
    for known_party in anchors:
        named = members.get(known_party.name)
        anchor, passed = _of_that_time(known_party, named, rotations)
        checks += [_before(shown, statement) for statement in passed]
        same, got = (False, "no such party") if named is None else _as_known(named, anchor)
        checks.append(
            check(
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


def _before(shown: Shown, statement: rotation.Rotation) -> Explained:
    """Whether the releases are of before that rotation, by the clock of the party's own broker.

    Of no other: whoever has stolen the old key signs a contract of today, and a broker of their own says that it was yesterday.
    """
    name, expected = (
        f"rotated.{statement.new.name}",
        f"releases of before {fields.format_time(statement.time)}",
    )
    if statement.old.broker is None or statement.old.name not in {
        release.party for release in shown.releases
    }:
        return _no(
            name,
            expected,
            "no release in the ledger of its own broker, by a party file that names it: nobody else's clock counts",
            "give the party file of that time to --trust, where you know that nobody else had its key",
        )
    try:
        last = max(record.parse(release.ledger.entry).time for release in shown.releases)
    except StrongroomError as cause:
        return _no(name, expected, cause.message, cause.hint)
    hint = "these keys were replaced by then: whoever signs with them is not that party"
    return check(name, expected, f"the last of {fields.format_time(last)}", last <= statement.time, hint)


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


def approved(shown: Shown) -> Explained:
    """Whether enough parties have signed."""
    signers = shown.agreement.signers()
    return check(
        "contract.approved",
        f"{shown.agreement.contract.approvals.threshold} signatures, every disk owner's among them",
        f"signed by {', '.join(signers) or 'nobody'}",
        shown.agreement.approved(),
        "the parties never agreed to this",
    )


def only_parties(shown: Shown) -> Explained:
    """Whether nobody else has."""
    envelope = shown.agreement.envelope
    own = signatures.own_form(
        envelope, [member.party.signing_key for member in shown.agreement.contract.members]
    )
    stray = sum(signature not in own.signatures for signature in envelope.signatures)
    return check(
        "contract.signatures",
        "signatures of its parties alone, each sound, once, and under its key's own id",
        "all of them" if envelope == own else f"{stray or 'some'} of {len(envelope.signatures)} are not",
        envelope == own,
        "a damaged signature, or one of somebody who has no part in this",
    )


def room_of(shown: Shown) -> RoomTerms:
    """The room that the receipt is of; `_agreed_room` has made sure of it."""
    return shown.agreement.contract.room(shown.room)


def _disks(shown: Shown) -> list[tuple[str, PartyName, ManifestDigest]]:
    """(name, owner, manifest digest) of the room's disks, the image first."""
    room = room_of(shown)
    image = ("image", room.image.owner, room.image.manifest_digest)
    # Datasets may be called anything, `image` too.
    return [
        image,
        *((f"data.{dataset.name}", dataset.owner, dataset.manifest_digest) for dataset in room.datasets),
    ]


def manifests(shown: Shown) -> list[Explained]:
    """Whether each disk's manifest is there, signed by its owner."""
    contract = shown.agreement.contract
    by_digest = {manifest.digest: (envelope, manifest) for envelope, manifest in shown.manifests}
    checks = []
    for name, owner, manifest_digest in _disks(shown):
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
            check(
                f"manifest.{name}",
                f"{manifest_digest} signed by {owner}",
                got,
                ok,
                "the disk is not the agreed one",
            )
        )
    return checks


def only_manifests(shown: Shown) -> Explained:
    """Whether no other is."""
    wanted = {manifest for _, _, manifest in _disks(shown)}
    digests = [manifest.digest for _, manifest in shown.manifests]
    return check(
        "manifests.only",
        f"{len(wanted)} manifest(s), each once",
        f"{len(digests)}",
        sorted(digests) == sorted(wanted),
        "manifests that the contract does not name have no place here",
    )


def release(shown: Shown, release: PackedRelease) -> tuple[list[Explained], bool]:
    """The checks of one broker's release, and whether its claims say `simulated`."""
    entry, ledger = ledger_entry(shown, f"ledger.{release.party}", release.party, release.ledger)
    if entry is None:
        return [ledger], False
    judged, simulated = _verdict(shown, release, entry)
    return [ledger, _record(shown, release, entry), judged, _certificates(shown, release, entry)], simulated


def ledger_entry(
    shown: Shown, name: str, party: PartyName, ledger_proof: LedgerProof
) -> tuple[record.Record | None, Explained]:
    """The entry that a proof of that party's broker proves, None where it proves none, and the check called `name`."""
    expected = f"an entry of the ledger of {party}"
    try:
        broker = shown.agreement.contract.party(party).broker
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


def _record(shown: Shown, release: PackedRelease, entry: record.Record) -> Explained:
    name = f"record.{release.party}"
    broker = shown.agreement.contract.party(release.party).broker
    ciphers = {manifest.digest: manifest.cipher for _, manifest in shown.manifests}
    own = [manifest for _, owner, manifest in _disks(shown) if owner == release.party]
    locked = [
        manifest for manifest in dict.fromkeys(own) if ciphers.get(manifest) != manifest_model.NO_CIPHER
    ]
    facts: dict[str, tuple[object, object]] = {
        "kind": (record.RecordKind.RELEASE.value, _release_or_renewal(shown, entry)),
        "contract": (shown.agreement.contract.digest, entry.contract_digest),
        "binding's contract": (shown.agreement.contract.digest, release.binding.contract_digest),
        "audience": ("" if broker is None else broker.pin, release.binding.audience),
        "broker": (release.party, entry.broker),
        "run": (release.binding.keys.run_id, entry.run_id),
        "evidence": (release.evidence.digest, entry.body.get("evidence")),
        "endorsements": (digest.sha256(release.endorsements.encode()), entry.body.get("endorsements")),
        "binding": (fields.format_data(release.binding.digest()), entry.body.get("binding")),
        "nonce": (fields.format_data(release.binding.nonce), entry.body.get("nonce")),
        "signing key": (fields.format_data(release.binding.keys.signing), entry.body.get("signing_key")),
        "role": (shown.room, release.binding.role),
        "disks": ([] if entry.kind is record.RecordKind.RENEWAL else locked, entry.body.get("disks")),
    }
    for what, (expected, got) in facts.items():
        if expected != got:
            return _no(name, f"{what} {expected}"[:400], str(got)[:200], "the entry is about something else")
    return _yes(name, "this contract, evidence, endorsements, binding, run and disks", "all the same")


def _release_or_renewal(shown: Shown, entry: record.Record) -> str:
    """The entry's kind; a renewal is one where what is shown may be of one."""
    if shown.renewed and entry.kind is record.RecordKind.RENEWAL:
        return record.RecordKind.RELEASE.value
    return entry.kind.value


def _certificates(shown: Shown, release: PackedRelease, entry: record.Record) -> Explained:
    broker = shown.agreement.contract.party(release.party).broker
    recorded = entry.body.get("certificate")
    root = "" if broker is None else broker.authority
    # Records from before contracts had issuers lack one.
    expected = [] if recorded is None else [recorded, entry.body.get("issuer"), root]
    expected = [each for each in expected if each is not None]
    digests: list[object] = [digest.sha256(der) for der in release.certificates]
    return check(
        f"certificates.{release.party}",
        ", by ".join(str(issuer) for issuer in expected) or "none",
        ", by ".join(str(issuer) for issuer in digests) or "none",
        expected == digests,
        "the certificate is not the one of the record, or not by the authority of the contract",
    )


def _verdict(shown: Shown, release: PackedRelease, entry: record.Record) -> tuple[Explained, bool]:
    """The check, and whether the claims say `simulated` (False where nothing could be judged)."""
    name = f"verdict.{release.party}"
    expected = "accepted, and the same when judged again"
    try:
        replayed, recorded = _judge_again(shown, release, entry)
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
    asked = BROKER_CHECKS
    if entry.kind is record.RecordKind.RENEWAL:
        asked = (BROKER_CHECKS - {check_names.RUN_UNIQUE}) | {check_names.RUN_RELEASED}
    missing = asked - {check.name for check in replayed.checks}
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
    shown: Shown, release: PackedRelease, entry: record.Record
) -> tuple[verdict.Verdict, dict[str, object]]:
    """The verdict that this evidence deserves, and the recorded one. Raises `Malformed`."""
    body = fields.Fields(dict(entry.body), "ledger entry")
    recorded = body.raw_object("verdict")
    judged = body.object("judged")
    gates = judged.integer("gates", low=1, high=64)
    replayed = judge.judge(
        shown.agreement,
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


def one_room(shown: Shown) -> Explained:
    """Whether all releases are to one room."""
    rooms = {release.binding.keys for release in shown.releases}
    return check(
        "room.same",
        "one room",
        f"{len(rooms)} room(s)",
        len(rooms) == 1,
        "releases to several rooms do not make one run",
    )


def check(name: str, expected: str, got: str, ok: bool, hint: str) -> Explained:  # noqa: FBT001 - the outcome of a comparison
    """One check, in words. hint: what it means where it fails."""
    return verdict.Explained(name=name, expected=expected, got=got, ok=ok, hint="" if ok else hint)


def _yes(name: str, expected: str, got: str) -> Explained:
    return check(name, expected, got, True, "")


def _no(name: str, expected: str, got: str, hint: str) -> Explained:
    return check(name, expected, got, False, hint)
