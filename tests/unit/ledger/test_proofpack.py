"""Proof packs: a sound one holds; with any one link broken it is refused, and the link is named."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.broker.release import judge as broker_judge
from strongroom.crypto import sign
from strongroom.encoding import canonical, dsse
from strongroom.errors import Malformed
from strongroom.ledger import checkpoint, export, inspect, proofpack, releases
from strongroom.model import identity, record
from strongroom.model import manifest as manifest_model
from strongroom.model import receipt as receipt_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom_testing import brokers, packs
from strongroom_testing.vendors import fake_tpm
from tests import effort
from tests.effort import examples


def failed(world, pack, anchors=None):
    judgement = inspect.inspect(pack, anchors=world.anchors if anchors is None else anchors)
    assert judgement.holds is (not judgement.failed)
    return [check.name for check in judgement.failed]


def first(pack, **changes):
    """The pack with its first release (alice's) changed."""
    return replace(pack, releases=(replace(pack.releases[0], **changes), *pack.releases[1:]))


def entry_of(release):
    return canonical.loads(release.ledger.entry, what="entry", max_bytes=1 << 20)


def lied(world, pack, change):
    """alice's broker signs an entry that `change` has edited."""
    value = entry_of(pack.releases[0])
    change(value)
    return first(pack, ledger=world.forge("alice", value))


def test_a_sound_pack_holds_and_says_that_it_is_simulated(world, pack):
    judgement = inspect.inspect(pack, anchors=world.anchors)
    assert judgement.failed == ()
    assert judgement.holds
    assert judgement.simulated
    assert [check.name for check in judgement.checks] == [
        "parties.alice", "parties.bob", "contract.approved", "contract.signatures", "receipt.room",
        "manifest.image", "manifest.data.flights", "manifests.only",
        "ledger.alice", "record.alice", "verdict.alice", "certificates.alice",
        "ledger.bob", "record.bob", "verdict.bob", "certificates.bob",
        "room.same", "receipt.signature", "receipt.disks", "receipt.alice", "receipt.bob", "brokers.complete",
    ]  # fmt: skip
    assert "SIMULATED" in next(check.got for check in judgement.checks if check.name == "verdict.alice")


def test_a_pack_survives_writing_and_reading(pack):
    assert proofpack.parse(pack.encode()) == pack


def test_the_recorded_verdict_is_recomputed_byte_for_byte(world, pack):
    """The brokers' clocks stand at .987654 s: what is recorded is of the whole second before."""
    for release in pack.releases:
        entry = record.parse(release.ledger.entry)
        again, recorded = releases._judge_again(pack, release, entry)
        assert canonical.dumps(again.to_json()) == canonical.dumps(recorded)
        assert again.decided == entry.time == world.scene.now
        gates = entry.body["judged"]["gates"]
        names = [check["name"] for check in entry.body["verdict"]["checks"]]
        # The broker's own checks are a prefix, the certificate's among them; the contract's terms follow.
        assert names[0] == "own.signature"
        assert names[gates - 1] == "keys.present"
        assert {"certificate.names", "certificate.key"} <= set(names[:gates])
        assert names[gates] == "contract.approvals"


def test_a_denial_is_recomputed_byte_for_byte_too(world, pack):
    release = world.part(world.room(), "alice", fault=fake_tpm.Fault.OTHER_NONCE)
    again, recorded = releases._judge_again(pack, release, record.parse(release.ledger.entry))
    assert recorded["result"] == "denied"
    assert canonical.dumps(again.to_json()) == canonical.dumps(recorded)


def test_the_broker_and_the_auditor_judge_by_the_same_function():
    assert broker_judge is releases.judge.judge


def test_without_anchors_a_pack_proves_nothing(world, pack):
    assert failed(world, pack, anchors=()) == ["parties"]


def test_one_anchor_is_enough_and_only_that_one_is_claimed(world, pack):
    judgement = inspect.inspect(pack, anchors=world.anchors[:1])
    assert judgement.holds
    assert "parties.bob" not in [check.name for check in judgement.checks]


def test_another_key_under_a_party_s_name(world, pack):
    mallory = identity.generate("alice").party()
    assert failed(world, pack, anchors=(mallory,)) == ["parties.alice"]


def test_a_stranger_as_the_anchor(world, pack):
    assert failed(world, pack, anchors=(identity.generate("carol").party(),)) == ["parties.carol"]


@pytest.mark.parametrize("what", ["pin", "ledger_key", "authority"])
def test_another_broker_than_the_party_file_says(world, pack, what):
    alice = world.anchors[0]
    value = {
        "pin": fake_tpm.digest("x"),
        "ledger_key": b"x" * 32,
        "authority": fake_tpm.digest("x"),
    }[what]
    moved = replace(alice, broker=replace(alice.broker, **{what: value}))
    assert failed(world, pack, anchors=(moved,)) == ["parties.alice"]


def test_a_broker_that_moved_since_is_the_same_broker(world, pack):
    alice = world.anchors[0]
    moved = replace(alice, broker=replace(alice.broker, url="https://elsewhere.example:9443"))
    assert failed(world, pack, anchors=(moved,)) == []


def test_another_recipient_than_the_party_file_says(world, pack):
    other = replace(world.anchors[1], recipient=identity.generate("bob").party().recipient)
    assert failed(world, pack, anchors=(other,)) == ["parties.bob"]


def test_an_anchor_without_a_broker_does_not_vouch_for_one(world, pack):
    """The party file from before `broker init`: the key counts, of the broker it says nothing."""
    assert failed(world, pack, anchors=(replace(world.anchors[0], broker=None),)) == []


def resigned(world, contract, *signers):
    made = agreement_model.draft(contract)
    for name in signers:
        made = agreement_model.add_signature(made, world.owners[name].identity.signing)
    return made


def test_a_signature_missing_from_the_contract(world, pack):
    lone = resigned(world, pack.agreement.contract, "bob")
    names = failed(world, replace(pack, agreement=lone))
    assert names == ["contract.approved", "verdict.alice", "verdict.bob"]


def test_a_damaged_signature_that_is_not_needed_is_not_passed_over(world, pack):
    envelope = pack.agreement.envelope
    stray = dsse.DsseSignature(keyid=fake_tpm.digest("nobody"), sig=bytes(64))
    more = replace(envelope, signatures=(*envelope.signatures, stray))
    spoilt = replace(pack, agreement=replace(pack.agreement, envelope=more))
    assert failed(world, spoilt) == ["contract.signatures"]


def test_key_ids_that_somebody_changed_are_brought_into_order_when_a_pack_is_exported(world, tmp_path):
    packs.write_run(world, tmp_path)
    run = tmp_path / "run"
    pack = export.gather(run)
    assert failed(world, pack) == []
    for path in (run / "agreement.json", run / "manifests/0.json"):
        data = json.loads(path.read_bytes())
        data["signatures"][0]["keyid"] = "somebody"
        data["signatures"].append({"keyid": "nobody", "sig": base64.b64encode(bytes(64)).decode()})
        path.write_bytes(canonical.dumps(data))
    assert export.gather(run) == pack
    agreement = agreement_model.read((run / "agreement.json").read_bytes())
    (manifest, *_), (_, *others) = (
        manifest_model.parse_envelope((run / "manifests/0.json").read_bytes()),
        pack.manifests,
    )
    (signed,) = pack.receipt_envelope.signatures
    receipt = replace(pack.receipt_envelope, signatures=(replace(signed, keyid="somebody"),))
    for changed, name in (
        (replace(pack, agreement=agreement), "contract.signatures"),
        (replace(pack, manifests=((manifest, pack.manifests[0][1]), *others)), "manifest.data.flights"),
        (replace(pack, receipt_envelope=receipt), "receipt.alice"),
    ):
        assert name in failed(world, changed)


def test_another_contract_signed_by_the_same_parties(world, pack):
    changed = world.scene.agreement(
        lambda one: replace(pack.agreement.contract, limits=replace(pack.agreement.contract.limits, runs=7))
    )
    names = failed(world, replace(pack, agreement=changed))
    assert {"record.alice", "record.bob", "verdict.alice", "receipt.signature"} <= set(names)
    assert "contract.approved" not in names


def test_a_manifest_of_another_disk(world, pack):
    alice = world.owners["alice"].identity
    other = manifest_model.parse_envelope(brokers.manifest(alice, name="other"))
    names = failed(world, replace(pack, manifests=(other, pack.manifests[1])))
    assert names[0] == "manifest.data.flights"
    assert "manifests.only" in names


def test_a_manifest_signed_by_somebody_else(world, pack):
    _, plain = pack.manifests[0]
    bob = world.owners["bob"].identity
    forged = manifest_model.parse_envelope(packs.signed_manifest(plain, bob))
    assert failed(world, replace(pack, manifests=(forged, pack.manifests[1]))) == ["manifest.data.flights"]


def test_an_unsigned_manifest(world, pack):
    envelope, plain = pack.manifests[0]
    bare = (replace(envelope, signatures=()), plain)
    assert failed(world, replace(pack, manifests=(bare, pack.manifests[1]))) == ["manifest.data.flights"]


def test_a_manifest_missing_twice_or_in_addition(world, pack):
    missing = failed(world, replace(pack, manifests=pack.manifests[:1]))
    assert missing[:2] == ["manifest.image", "manifests.only"]
    assert failed(world, replace(pack, manifests=(*pack.manifests, pack.manifests[0]))) == ["manifests.only"]


def test_a_release_of_another_contract(world, pack):
    def other(one):
        return replace(pack.agreement.contract, id="another")

    elsewhere = world.scene.agreement(other)
    strange = world.part(world.room(elsewhere), "alice")
    names = failed(world, replace(pack, releases=(strange, pack.releases[1])))
    assert names == ["record.alice", "verdict.alice", "room.same", "receipt.signature", "receipt.alice"]


def test_a_release_of_another_run(world, pack):
    strange = world.part(world.room(), "bob")
    assert failed(world, replace(pack, releases=(pack.releases[0], strange))) == ["room.same", "receipt.bob"]


def test_the_entry_of_another_run(world, pack):
    strange = world.part(world.room(), "alice")
    names = failed(world, first(pack, ledger=strange.ledger))
    assert names == ["record.alice", "verdict.alice", "certificates.alice", "receipt.alice"]


def test_one_party_s_part_under_the_other_s_name(world, pack):
    assert failed(world, first(pack, party="bob"))[0] == "ledger.bob"


def test_a_party_that_the_contract_does_not_know(world, pack):
    assert failed(world, first(pack, party="carol")) == ["ledger.carol", "brokers.complete"]


@pytest.mark.parametrize(
    "part", ["quote", "signature", "ak-certificate", "issuers", "pcrs", "event-log", "launch-record"]
)
def test_one_byte_of_evidence(world, pack, part):
    evidence = pack.releases[0].evidence
    data = bytearray(evidence.parts[part])
    data[len(data) // 2] ^= 1
    flipped = replace(evidence, parts={**evidence.parts, part: bytes(data)})
    names = failed(world, first(pack, evidence=flipped))
    assert names == ["record.alice", "verdict.alice"]


def test_rule_01_of_honest_records_evidence_that_does_not_verify_cannot_be_vouched_for(world, pack):
    """Even when the broker itself lies: it signs an entry that says accepted, over bad evidence."""
    room = world.room()
    release = world.part(room, "alice", fault=fake_tpm.Fault.BAD_SIGNATURE)

    def accept(value):
        value["kind"] = "release"
        good = entry_of(pack.releases[0])
        value["body"]["verdict"] = good["body"]["verdict"]
        value["body"]["disks"] = good["body"]["disks"]

    value = entry_of(release)
    accept(value)
    forged = replace(release, ledger=world.forge("alice", value))
    names = failed(world, replace(pack, releases=(forged, pack.releases[1])))
    assert "verdict.alice" in names


def test_a_root_that_the_contract_does_not_name(world, pack):
    release = world.part(world.room(), "alice", fault=fake_tpm.Fault.OTHER_ROOT)
    judgement = inspect.inspect(replace(pack, releases=(release, pack.releases[1])), anchors=world.anchors)
    told = {check.name: check.got for check in judgement.failed}
    assert "chain.root" in told["verdict.alice"]


def test_a_recorded_denial_is_no_release(world, pack):
    changed = replace(fake_tpm.RECORD, initrd=fake_tpm.digest("one changed byte"))
    release = world.part(world.room(), "alice", record=changed)
    judgement = inspect.inspect(replace(pack, releases=(release, pack.releases[1])), anchors=world.anchors)
    told = {check.name: check for check in judgement.failed}
    assert told["record.alice"].expected == "kind release"
    assert told["record.alice"].got == "denial"
    assert "platform.reference.initrd" in told["verdict.alice"].got


def test_an_edited_entry_is_not_in_the_ledger(world, pack):
    entry = pack.releases[0].ledger.entry.replace(b'"ok":true', b'"ok":null', 1)
    assert entry != pack.releases[0].ledger.entry
    edited = replace(pack.releases[0].ledger, entry=entry)
    assert failed(world, first(pack, ledger=edited)) == ["ledger.alice"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("body", "verdict", "claims", "simulated"), False),
        (("body", "verdict", "claims", "machine"), "sha256:" + "0" * 64),
        (("body", "verdict", "result"), "denied"),
        (("body", "verdict", "expires"), "2030-01-01T00:00:00Z"),
        (("body", "verdict", "decided"), "2026-11-24T12:00:01Z"),
        (("body", "judged", "runs_used"), 5),
        (("body", "judged", "gates"), 3),
        (("body", "judged", "lifetime_seconds"), 60),
        (("time",), "2026-11-24T12:00:01Z"),
    ],
)
def test_a_verdict_that_the_broker_itself_has_edited(world, pack, place, value):
    def edit(top):
        inner = top
        for key in place[:-1]:
            inner = inner[key]
        assert inner[place[-1]] != value
        inner[place[-1]] = value

    assert failed(world, lied(world, pack, edit)) == ["verdict.alice"]


@pytest.mark.parametrize("name", sorted(releases.BROKER_CHECKS))
def test_a_broker_that_left_out_one_of_its_own_checks(world, pack, name):
    def drop(top):
        checks = top["body"]["verdict"]["checks"]
        top["body"]["verdict"]["checks"] = [one for one in checks if one["name"] != name]
        top["body"]["judged"]["gates"] -= 1

    assert failed(world, lied(world, pack, drop)) == ["verdict.alice"]


def test_a_broker_s_own_failed_check_is_a_denial(world, pack):
    def fail(top):
        top["body"]["verdict"]["checks"][0]["ok"] = False

    assert failed(world, lied(world, pack, fail)) == ["verdict.alice"]


@pytest.mark.parametrize("key", ["verdict", "judged"])
def test_a_record_that_cannot_be_judged_again(world, pack, key):
    names = failed(world, lied(world, pack, lambda top: top["body"].pop(key)))
    assert names == ["verdict.alice"]
    assert failed(world, lied(world, pack, lambda top: top["body"].update({key: "junk"}))) == names


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("evidence", "sha256:" + "0" * 64),
        ("binding", ""),
        ("nonce", ""),
        ("signing_key", ""),
        ("disks", []),
    ],
)
def test_a_record_about_something_else(world, pack, key, value):
    assert failed(world, lied(world, pack, lambda top: top["body"].update({key: value}))) == ["record.alice"]


@pytest.mark.parametrize(
    ("key", "value"), [("run", "run-" + "0" * 32), ("broker", "bob"), ("kind", "receipt")]
)
def test_a_record_under_another_heading(world, pack, key, value):
    assert failed(world, lied(world, pack, lambda top: top.update({key: value}))) == ["record.alice"]


def test_another_role_or_audience(world, pack):
    binding = pack.releases[0].binding
    for changed in (replace(binding, role="manager"), replace(binding, audience=fake_tpm.digest("x"))):
        assert failed(world, first(pack, binding=changed))[:2] == ["record.alice", "verdict.alice"]


def test_a_forged_checkpoint(world, pack):
    old = pack.releases[0].ledger
    parsed = checkpoint.parse(old.checkpoint)
    forged = checkpoint.issue(sign.generate(), size=parsed.size, root=parsed.root)
    assert failed(world, first(pack, ledger=replace(old, checkpoint=forged))) == ["ledger.alice"]
    other = replace(old, checkpoint=pack.releases[1].ledger.checkpoint)
    assert failed(world, first(pack, ledger=other)) == ["ledger.alice"]


def test_a_cosignature_that_nobody_here_can_check(world, pack):
    old = pack.releases[0].ledger
    note = checkpoint.cosign(old.checkpoint, "carol", sign.generate(), timestamp=1)
    assert failed(world, first(pack, ledger=replace(old, checkpoint=note))) == ["ledger.alice"]


def test_an_altered_inclusion_proof(world, pack):
    old = pack.releases[0].ledger
    assert old.hashes
    for hashes in (old.hashes[1:], (*old.hashes, bytes(32)), (bytes(32), *old.hashes[1:])):
        assert failed(world, first(pack, ledger=replace(old, hashes=hashes))) == ["ledger.alice"]
    assert failed(world, first(pack, ledger=replace(old, index=old.index - 1))) == ["ledger.alice"]


def test_certificates_left_out_swapped_or_added(world, pack):
    leaf, issuer, root = pack.releases[0].certificates
    others = pack.releases[1].certificates
    for given_out in (
        (),
        (leaf,),
        (leaf, root),
        (leaf, issuer),
        (root, issuer, leaf),
        others,
        (leaf, others[1], root),
        (leaf, issuer, others[2]),
        (leaf, issuer, root, leaf),
    ):
        assert failed(world, first(pack, certificates=given_out)) == ["certificates.alice"]


def with_receipt(world, pack, room, key=None, **changes):
    data = world.receipt(room, **changes) if key is None else world.receipt(room, key=key, **changes)
    envelope, parsed = receipt_model.parse_envelope(data)
    return replace(pack, receipt_envelope=envelope, receipt=parsed)


def test_a_receipt_by_another_key(world):
    room = world.room()
    pack = world.pack(room)
    forged = with_receipt(world, pack, room, key=sign.generate())
    assert failed(world, forged) == ["receipt.signature", "receipt.alice", "receipt.bob"]


def test_a_receipt_with_words_of_others_for_a_key_id(world, pack):
    (signature,) = pack.receipt_envelope.signatures
    worded = replace(pack.receipt_envelope, signatures=(replace(signature, keyid="APPROVED BY THE AUDITOR"),))
    assert "receipt.signature" in failed(world, replace(pack, receipt_envelope=worded))


def test_a_receipt_of_another_run(world, pack):
    strange = world.pack()
    mixed = replace(
        pack, receipt_envelope=strange.receipt_envelope, receipt=strange.receipt, receipts=strange.receipts
    )
    assert failed(world, mixed) == ["receipt.signature"]


def test_a_second_receipt_that_the_room_itself_signed_is_not_the_recorded_one(world):
    room = world.room()
    pack = world.pack(room)
    second = with_receipt(world, pack, room, exit_status=1)
    assert failed(world, second) == ["receipt.alice", "receipt.bob"]


@pytest.mark.parametrize("what", ["image", "datasets", "none"])
def test_a_receipt_with_other_disks(world, what):
    room = world.room()
    pack = world.pack(room)
    image = replace(pack.receipt.image, root_hash=fake_tpm.digest("x"))
    data = (replace(pack.receipt.datasets[0], manifest_digest=fake_tpm.digest("x")),)
    changes = {"image": {"image": image}, "datasets": {"datasets": data}, "none": {"datasets": ()}}[what]
    assert failed(world, with_receipt(world, pack, room, **changes))[0] == "receipt.disks"


def test_the_release_in_the_place_of_the_receipt(world, pack):
    receipts = (replace(pack.receipts[0], ledger=pack.releases[0].ledger), pack.receipts[1])
    assert failed(world, replace(pack, receipts=receipts)) == ["receipt.alice"]


def test_a_receipt_recorded_before_its_release(world, pack):
    value = canonical.loads(pack.receipts[0].ledger.entry, what="entry", max_bytes=1 << 20)
    receipts = (replace(pack.receipts[0], ledger=world.forge("alice", value)), pack.receipts[1])
    assert failed(world, replace(pack, receipts=receipts)) == ["receipt.alice"]


def test_a_broker_s_part_missing_or_there_twice(world, pack):
    for changed in (
        {"releases": pack.releases[:1]},
        {"receipts": pack.receipts[:1]},
        {"releases": (*pack.releases, pack.releases[0])},
        {"receipts": (*pack.receipts, pack.receipts[0])},
    ):
        assert failed(world, replace(pack, **changed)) == ["brokers.complete"]


def leaves(value, place=()):
    """(place, text) of every text in the JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*place, index))
    elif isinstance(value, str):
        yield place, value


def refused(world, data):
    try:
        changed = proofpack.parse(data)
    except Malformed:
        return True
    return bool(failed(world, changed))


def test_any_changed_byte_of_any_binary_field_is_refused(world, pack):
    """Every field; of long ones a sample, the ends included."""
    top = json.loads(pack.encode())
    chance = random.Random(7)  # noqa: S311 - the same sample every time
    fields_seen = 0
    for place, text in leaves(top):
        try:
            data = bytearray(base64.b64decode(text, validate=True))
        except ValueError:
            continue
        if len(data) < 16 or text == "":
            continue
        fields_seen += 1
        places = (*(chance.randrange(len(data)) for _ in range(6)), 0, len(data) - 1)
        for at in effort.some(places):
            data[at] ^= 1 << chance.randrange(8)
            inner = top
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = base64.b64encode(data).decode()
            spoilt = canonical.dumps(top) + b"\n"
            inner[place[-1]] = text
            data = bytearray(base64.b64decode(text))
            assert refused(world, spoilt), (place, at)
    assert fields_seen > 30


def test_any_changed_byte_of_the_file_is_refused(world, pack):
    data = pack.encode()
    chance = random.Random(11)  # noqa: S311 - the same sample every time
    for _ in effort.some(range(400)):
        at = chance.randrange(len(data))
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << chance.randrange(7)
        assert refused(world, bytes(spoilt)), at


def test_one_pack_has_one_spelling(pack):
    data = pack.encode()
    for other, why in (
        (data[:-1], "not in its one canonical form"),
        (data + b"\n", "not in its one canonical form"),
        (b" " + data, "not in its one canonical form"),
        (data.replace(b",", b", ", 1), "not in its one canonical form"),
        (data + data, "not JSON"),
    ):
        with pytest.raises(Malformed, match=why):
            proofpack.parse(other)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda top: top.update(more=1), "unknown key 'more'"),
        (lambda top: top.pop("receipts"), "key 'receipts' is missing"),
        (lambda top: top.update(format="strongroom-proof/2"), "format: expected 'strongroom-proof/1'"),
        (lambda top: top.update(releases=[]), "without one of each it proves nothing"),
        (lambda top: top.update(receipts=[]), "without one of each it proves nothing"),
        (lambda top: top.update(releases=top["releases"] * 20), "releases: expected a list of at most 32"),
        (lambda top: top["releases"][0].update(more=1), "unknown key 'more'"),
        (
            lambda top: top["releases"][0]["ledger"].update(hashes=["AAAA"]),
            "hashes\\[0\\]: expected 32 bytes in base64, got 3 bytes",
        ),
        (lambda top: top["releases"][0].update(certificates=[1]), "data: expected base64 of at most"),
        (lambda top: top.update(manifests=["!"]), "data: expected base64"),
        (lambda top: top.update(agreement=top["receipt"]), "payloadType: expected"),
    ],
)
def test_malformed_packs(pack, change, why):
    top = json.loads(pack.encode())
    change(top)
    with pytest.raises(Malformed, match=why):
        proofpack.parse(canonical.dumps(top) + b"\n")


@examples(150)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_pack_or_malformed(data):
    with contextlib.suppress(Malformed):
        proofpack.parse(data)


@examples(150)
@given(st.data())
def test_any_value_in_the_place_of_any_other_is_told_in_checks(world, pack, data):
    """Neither parsing nor judging ever raises anything but Malformed."""
    top = json.loads(pack.encode())
    place, _ = data.draw(st.sampled_from(sorted(leaves(top), key=str)))
    inner = top
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = data.draw(
        st.one_of(st.none(), st.integers(-5, 1 << 53 - 1), st.text(max_size=20), st.lists(st.integers(0, 3)))
    )
    assert refused(world, canonical.dumps(top) + b"\n")
