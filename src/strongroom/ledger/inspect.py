"""Judging a proof pack again, offline: every link from the parties' signatures to the receipt.

Checks, in this order (the names recur in the result):
  1 parties.<name>       the contract names the very keys that the reader trusts, where any were given
  2 contract.approved    enough parties signed these exact bytes, every disk owner among them
  3 manifest.<name>      the sealed disks' manifests are the contract's, signed by their owners
  4 ledger.<party>       the release is in that broker's ledger: signed checkpoint, inclusion proof
  5 record.<party>       the entry is about this contract, evidence, binding and run
  6 verdict.<party>      the evidence, judged again at the time of the decision, gives the same verdict
  7 room.same            all brokers released to one and the same room
  8 receipt.signature    the room that was released to signed the receipt, and it is about this contract
  9 receipt.disks        it opened exactly the contract's disks, with the manifests' root hashes
 10 receipt.<party>      the receipt is in that broker's ledger
 11 brokers.complete     every broker that owns a disk key is here, with a release and a receipt
Not checked here: that a ledger was not forked later (compare checkpoints with a witness), and the
outputs' content (their digests are in the receipt; hash the files).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.appraisal import judge
from strongroom.crypto import digest, sign
from strongroom.encoding import canonical, fields
from strongroom.errors import StrongroomError
from strongroom.ledger import proof
from strongroom.model import record, signatures, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.ledger.proofpack import ProofPack, ReceiptEntry, Release
    from strongroom.model.messages import LedgerProof
    from strongroom.model.party import Party
    from strongroom.model.verdict import Check


def inspect(pack: ProofPack, *, anchors: Sequence[Party]) -> tuple[Check, ...]:
    """All checks, good and bad; the pack holds only if every one is ok.

    anchors: the parties whose keys the reader got by a way of their own. With none, the first check
    fails: a pack that vouches for itself proves nothing.
    """
    checks = [*_parties(pack, anchors), _approved(pack), *_manifests(pack)]
    for release in pack.releases:
        checks += _release(pack, release)
    checks.append(_one_room(pack))
    checks += _receipt(pack)
    checks += [_receipt_entry(pack, one) for one in pack.receipts]
    checks.append(_complete(pack))
    return tuple(checks)


def _parties(pack: ProofPack, anchors: Sequence[Party]) -> list[Check]:
    if not anchors:
        return [_no("parties", "at least one party file that you trust", "none", "give --trust PARTY_FILE")]
    members = {member.party.name: member.party for member in pack.agreement.contract.members}
    checks = []
    for anchor in anchors:
        named = members.get(anchor.name)
        got = "no such party" if named is None else named.keyid
        same = named is not None and named.signing_key == anchor.signing_key
        if same and anchor.broker is not None and named is not None:
            same = named.broker == anchor.broker
            got = got if same else "another broker"
        checks.append(
            _check(
                f"parties.{anchor.name}", anchor.keyid, got, same, "the contract is not with whom you think"
            )
        )
    return checks


def _approved(pack: ProofPack) -> Check:
    signers = pack.agreement.signers()
    return _check(
        "contract.approved",
        f"{pack.agreement.contract.approvals.threshold} signatures, every disk owner's among them",
        f"signed by {', '.join(signers) or 'nobody'}",
        pack.agreement.approved(),
        "the parties never agreed to this",
    )


def _manifests(pack: ProofPack) -> list[Check]:
    contract = pack.agreement.contract
    by_digest = {manifest.digest: (envelope, manifest) for envelope, manifest in pack.manifests}
    wanted = [("image", contract.image.owner, contract.image.manifest)]
    wanted += [(one.name, one.owner, one.manifest) for one in contract.datasets]
    checks = []
    for name, owner, manifest_digest in wanted:
        found = by_digest.get(manifest_digest)
        key = contract.party(owner).signing_key
        ok = found is not None and signatures.signed_by(found[0], key)
        got = "missing" if found is None else ("signed by its owner" if ok else "not signed by its owner")
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


def _release(pack: ProofPack, release: Release) -> list[Check]:
    entry, ledger = _ledger_entry(pack, f"ledger.{release.party}", release.party, release.ledger)
    if entry is None:
        return [ledger]
    return [ledger, _record(pack, release, entry), _verdict(pack, release, entry)]


def _ledger_entry(
    pack: ProofPack, name: str, party: str, given: LedgerProof
) -> tuple[record.Record | None, Check]:
    expected = f"an entry of the ledger of {party}"
    try:
        broker = pack.agreement.contract.party(party).broker
        if broker is None:
            return None, _no(name, expected, f"{party} has no broker", "")
        entry, checkpoint = proof.verify(given, sign.VerifyingKey(broker.ledger_key))
    except StrongroomError as cause:
        return None, _no(name, expected, cause.message, cause.hint)
    return entry, _yes(name, expected, f"entry {given.index} of {checkpoint.size}")


def _record(pack: ProofPack, release: Release, entry: record.Record) -> Check:
    name = f"record.{release.party}"
    broker = pack.agreement.contract.party(release.party).broker
    facts = {
        "kind": (record.Kind.RELEASE.value, entry.kind.value),
        "contract": (pack.agreement.contract.digest, entry.contract),
        "binding's contract": (pack.agreement.contract.digest, release.binding.contract),
        "audience": ("" if broker is None else broker.pin, release.binding.audience),
        "broker": (release.party, entry.broker),
        "run": (release.binding.keys.run_id, entry.run),
        "evidence": (digest.sha256(release.evidence.encode()), entry.body.get("evidence")),
        "binding": (fields.format_data(release.binding.digest()), entry.body.get("binding")),
    }
    for what, (expected, got) in facts.items():
        if expected != got:
            return _no(name, f"{what} {expected}", str(got)[:200], "the entry is about something else")
    return _yes(name, "this contract, evidence, binding and run", "all the same")


def _verdict(pack: ProofPack, release: Release, entry: record.Record) -> Check:
    name = f"verdict.{release.party}"
    expected = "accepted, and the same when judged again"
    try:
        body = fields.Fields(dict(entry.body), "ledger entry")
        recorded = body.raw_object("verdict")
        judged = body.object("judged")
        gates = judged.integer("gates", low=1, high=64)
        again = judge.judge(
            pack.agreement,
            release.evidence,
            release.endorsements,
            binding=release.binding,
            gates=verdict.read_checks(fields.Fields(dict(recorded), "verdict"))[:gates],
            runs_used=judged.integer("runs_used", low=0, high=1 << 50),
            now=fields.Fields(dict(recorded), "verdict").time("decided"),
            lifetime=timedelta(seconds=judged.integer("lifetime_seconds", low=1, high=86_400)),
        )
    except StrongroomError as cause:
        return _no(name, expected, cause.message, cause.hint)
    if isinstance(again, verdict.Denied):
        failed = again.failed[0]
        return _no(
            name,
            expected,
            f"denied: {failed.name}: expected {failed.expected}, got {failed.got}",
            failed.hint,
        )
    if canonical.dumps(again.to_json()) != canonical.dumps(recorded):
        return _no(name, expected, "accepted, but the recorded verdict says something else", "")
    simulated = " (SIMULATED: no hardware stands behind it)" if again.claims.simulated else ""
    return _yes(name, expected, f"{len(again.checks)} checks, all as recorded{simulated}")


def _one_room(pack: ProofPack) -> Check:
    rooms = {release.binding.keys for release in pack.releases}
    return _check(
        "room.same",
        "one room",
        f"{len(rooms)} room(s)",
        len(rooms) == 1,
        "releases to several rooms do not make one run",
    )


def _receipt(pack: ProofPack) -> list[Check]:
    receipt, contract = pack.receipt, pack.agreement.contract
    keys = pack.releases[0].binding.keys
    signer = sign.VerifyingKey(keys.signing)
    good = signatures.signed_by(pack.receipt_envelope, signer)
    about = (receipt.run, receipt.contract, receipt.signing_key) == (
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
    wanted = [contract.image.manifest, *(one.manifest for one in contract.datasets)]
    opened = [receipt.image, *receipt.datasets]
    same = [one.manifest for one in opened] == wanted and all(
        roots.get(one.manifest) == one.root_hash for one in opened
    )
    disks = _check(
        "receipt.disks",
        f"the contract's {len(wanted)} disk(s), by the manifests' root hashes",
        "the same" if same else "others",
        same,
        "the room opened other disks",
    )
    return [signature, disks]


def _receipt_entry(pack: ProofPack, one: ReceiptEntry) -> Check:
    name = f"receipt.{one.party}"
    entry, check = _ledger_entry(pack, name, one.party, one.ledger)
    if entry is None:
        return check
    envelope = fields.format_data(pack.receipt_envelope.encode())
    same = entry.kind is record.Kind.RECEIPT and entry.body.get("envelope") == envelope
    return _check(name, "this very receipt in the ledger", check.got if same else "another entry", same, "")


def _complete(pack: ProofPack) -> Check:
    owners = set(pack.agreement.contract.key_owners())
    released = {one.party for one in pack.releases}
    received = {one.party for one in pack.receipts}
    return _check(
        "brokers.complete",
        f"a release and a receipt of {', '.join(sorted(owners)) or 'nobody'}",
        f"releases of {', '.join(sorted(released))}; receipts of {', '.join(sorted(received))}",
        owners <= released and owners <= received and len(released) == len(pack.releases),
        "a broker's part is missing, so the pack tells half the story",
    )


def _check(name: str, expected: str, got: str, ok: bool, hint: str) -> Check:  # noqa: FBT001 - the outcome of a comparison
    return verdict.Check(name=name, expected=expected, got=got, ok=ok, hint="" if ok else hint)


def _yes(name: str, expected: str, got: str) -> Check:
    return _check(name, expected, got, True, "")


def _no(name: str, expected: str, got: str, hint: str) -> Check:
    return _check(name, expected, got, False, hint)
