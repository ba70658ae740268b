"""Releases: who gets keys, who does not, and that every decision is in the ledger before anything leaves."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from strongroom.agent import attest
from strongroom.appraisal.wording import sentences
from strongroom.broker.budgets import Allowance, Budgets
from strongroom.broker.challenge import challenge
from strongroom.crypto import hpke, spki
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.ledger import proof
from strongroom.model import evidence as evidence_model
from strongroom.model import messages, record
from strongroom.model import verdict as verdict_model
from strongroom.model.contracts import contract as contract_model
from strongroom_testing import brokers, contracts
from strongroom_testing.contracts import changed
from strongroom_testing.vendors import fake_tpm
from tests.effort import examples
from tests.unit.broker.denials import failed


def nothing_released(world, *, recorded=True):
    assert world.store.runs_by_room() == []
    entries = world.store.ledger.leaves(0, 100)
    assert all(record.parse(one).kind is record.RecordKind.DENIAL for one in entries)
    assert len(entries) == (1 if recorded else 0)


def test_a_sound_room_gets_exactly_its_keys(world):
    agreement = world.agreement()
    room = world.room(agreement)
    nonce = world.challenge(agreement).nonce
    answer = world.release(room.request(nonce, names=brokers.NAMES))
    assert room.open(answer, nonce) == {
        agreement.contract.rooms[0].datasets[0].manifest_digest: brokers.DISK_KEY
    }
    entry, checkpoint = proof.verify(answer.ledger, world.broker.notary.public)
    assert checkpoint.size == 1
    assert entry.kind is record.RecordKind.RELEASE
    assert entry.run_id == room.keys.run_id
    assert entry.contract_digest == agreement.contract.digest
    assert entry.body["verdict"] == answer.verdict
    assert entry.body["nonce"] == fields.format_data(nonce)
    assert entry.body["binding"] == fields.format_data(room.binding(nonce).digest())
    assert world.store.runs_by_room() == [(agreement.contract.digest, "main", 1, 0)]
    assert messages.parse_release_answer(answer.encode()) == answer


def test_every_check_of_a_verdict_says_what_asks_for_it(world):
    accepted = world.ask(world.agreement(), names=brokers.NAMES)
    denied = [
        world.ask(world.agreement(signers=("alice",))),
        world.ask(
            world.agreement(lambda one: replace(one, platforms=(replace(one.platforms[0], tee="snp"),)))
        ),
        world.ask(
            world.agreement(lambda one: replace(one, platforms=(replace(one.platforms[0], machines=("m",)),)))
        ),
    ]
    for answer in (accepted, *denied):
        checks = verdict_model.read_checks(fields.Fields(dict(answer.verdict), "verdict"))
        assert [check.name for check in checks if not sentences.explain(check).source] == []


def test_no_secret_is_in_the_ledger_or_in_an_answer(world, tmp_path):
    answer = world.ask(world.agreement())
    assert brokers.DISK_KEY[:16] not in answer.encode()
    for file in tmp_path.iterdir():
        assert brokers.DISK_KEY[:16] not in file.read_bytes()


def test_rule_18_a_nonce_counts_once(world):
    agreement = world.agreement()
    nonce = world.challenge(agreement).nonce
    assert isinstance(world.release(world.room(agreement).request(nonce)), messages.ReleaseAnswer)
    again = world.release(world.room(agreement).request(nonce))
    assert failed(again) == ["nonce.fresh"]
    assert again.verdict["checks"][0]["got"] == "used"
    assert again.ledger is None  # junk does not fill the ledger
    assert world.store.ledger.size() == 1


def test_rule_18_old_evidence_replayed_word_for_word_is_refused(world):
    agreement = world.agreement()
    body = world.room(agreement).request(world.challenge(agreement).nonce)
    world.release(body)
    assert "nonce.fresh" in failed(world.release(body))
    assert world.store.runs_by_room()[0][2] == 1


def test_rule_18_a_nonce_expires(world):
    agreement = world.agreement()
    given_out = world.challenge(agreement)
    world.clock.now = given_out.expires
    assert failed(world.release(world.room(agreement).request(given_out.nonce)))[0] == "nonce.fresh"
    nothing_released(world, recorded=False)


def test_rule_18_a_nonce_of_nobody_is_refused(world):
    agreement = world.agreement()
    assert "nonce.fresh" in failed(world.release(world.room(agreement).request(bytes(32))))
    nothing_released(world, recorded=False)


def test_a_nonce_for_another_contract_is_refused(world):
    one, other = world.agreement(), world.agreement(lambda c: replace(c, id="other"))
    nonce = world.challenge(other).nonce
    assert failed(world.release(world.room(one).request(nonce))) == ["nonce.fresh"]
    # Nor does it help to say in the head what it was made for.
    said = replace(world.room(one).ask(nonce), contract_digest=other.contract.digest)
    assert failed(world.release(said.encode())) == ["nonce.contract"]
    nothing_released(world, recorded=False)


def test_rule_18_two_replicas_cannot_both_accept_a_nonce(world, tmp_path):
    agreement = world.agreement()
    with brokers.world(tmp_path) as replica:
        for _ in range(8):
            nonce = world.challenge(agreement).nonce
            bodies = [world.room(agreement).request(nonce) for _ in range(2)]

            async def both(bodies=bodies):
                from strongroom.broker.release import release

                return await asyncio.gather(
                    release(world.broker, bodies[0]), release(replica.broker, bodies[1])
                )

            kinds = sorted(type(one).__name__ for one in asyncio.run(both()))
            assert kinds == ["DenialAnswer", "ReleaseAnswer"]
    assert world.store.ledger.size() == 8


def test_a_contract_that_is_not_fully_signed_is_refused(world):
    assert "contract.approvals" in failed(world.ask(world.agreement(signers=("alice",))))
    nothing_released(world)


def test_an_expired_contract_is_refused(world):
    agreement = world.agreement()
    world.clock.advance(timedelta(days=2))
    assert "contract.validity" in failed(world.ask(agreement))
    nothing_released(world)


def test_rule_38_one_changed_byte_voids_the_signatures(world):
    agreement = world.agreement()
    altered = world.agreement(lambda c: changed(c, wall_seconds=61))
    forged = replace(altered, envelope=replace(altered.envelope, signatures=agreement.envelope.signatures))
    assert failed(world.ask(forged)) == ["own.signature"]
    nothing_released(world, recorded=False)


def test_rule_38_the_same_version_with_another_digest_is_refused(world):
    world.ask(world.agreement())
    other = world.agreement(lambda c: changed(c, wall_seconds=61))
    assert failed(world.ask(other))[0] == "contract.version"


def second(world, first, **changes):
    def change(one):
        return replace(one, version=2, replaces=first.contract.digest, **changes)

    return world.agreement(change)


def test_rule_42_a_lower_version_is_refused_once_a_higher_one_ran(world):
    first = world.agreement()
    assert isinstance(world.ask(first), messages.ReleaseAnswer)
    assert isinstance(world.ask(second(world, first)), messages.ReleaseAnswer)
    assert failed(world.ask(first))[0] == "contract.version"
    assert world.store.versions()[0][1] == 2


def test_rule_42_the_next_version_must_replace_the_one_that_is_known(world):
    first = world.agreement()
    world.ask(first)
    stranger = world.agreement(lambda c: replace(c, version=2, replaces=fake_tpm.digest("other")))
    assert failed(world.ask(stranger))[0] == "contract.replaces"


def test_rule_42_an_unsigned_version_does_not_withdraw_the_signed_one(world):
    first = world.agreement()
    vandal = world.agreement(
        lambda c: replace(c, version=1_000_000, replaces=first.contract.digest), signers=("bob",)
    )
    world.ask(vandal)
    assert isinstance(world.ask(first), messages.ReleaseAnswer)


def test_the_permitted_runs_are_used_up_for_good(world):
    agreement = world.agreement(runs=2)
    assert isinstance(world.ask(agreement), messages.ReleaseAnswer)
    assert isinstance(world.ask(agreement), messages.ReleaseAnswer)
    assert "contract.runs" in failed(world.ask(agreement))
    assert world.store.runs_by_room() == [(agreement.contract.digest, "main", 2, 0)]


def test_two_and_thirty_rooms_in_one_batch_race_for_one_run(world):
    from strongroom.broker.release import release

    agreement = world.agreement(runs=1)
    bodies = [world.room(agreement).request(world.challenge(agreement).nonce) for _ in range(32)]

    async def race():
        return await asyncio.gather(*(release(world.broker, one) for one in bodies))

    answers = asyncio.run(race())
    assert sum(isinstance(one, messages.ReleaseAnswer) for one in answers) == 1
    assert world.store.runs_by_room() == [(agreement.contract.digest, "main", 1, 0)]
    assert world.store.ledger.size() == 32  # one release, 31 denials with a good nonce


def test_a_room_gets_its_keys_once(world):
    agreement = world.agreement()
    room = world.room(agreement)
    world.release(room.request(world.challenge(agreement).nonce))
    assert failed(world.release(room.request(world.challenge(agreement).nonce)))[0] == "run.unique"


@pytest.mark.parametrize("fault", list(fake_tpm.Fault))
def test_what_a_verifier_says_of_bad_evidence_is_in_no_ledger(world, fault):
    """It may quote what a stranger wrote into a certificate; whoever asked is told, through the room as well."""
    answer = world.ask(world.agreement(), fault=fault)
    name = f"evidence.{fake_tpm.REFUSED_BY[fault]}"
    words = answer.words[name]
    assert all((words.expected, words.got, words.hint, words.source))
    entry = record.parse(answer.ledger.entry)
    assert entry.body["verdict"] == answer.verdict
    kept = next(check for check in entry.body["verdict"]["checks"] if check["name"] == name)
    assert kept == {"name": name, "expected": None, "got": None, "ok": False}
    assert words.got.encode() not in answer.ledger.entry
    read = brokers.parse_denial(answer.encode())
    assert read.words == answer.words
    told = attest.read_error(403, answer.encode(), "alice").verdict
    assert next(check for check in told if check.name == name).words == words


@pytest.mark.parametrize("fault", list(fake_tpm.Fault))
def test_faulty_evidence_is_refused_and_recorded(world, fault):
    answer = world.ask(world.agreement(), fault=fault)
    assert f"evidence.{fake_tpm.REFUSED_BY[fault]}" in failed(answer)
    entry, _ = proof.verify(answer.ledger, world.broker.notary.public)
    assert entry.kind is record.RecordKind.DENIAL
    assert entry.body["disks"] == []
    nothing_released(world)


def test_another_base_is_refused(world):
    changed = replace(fake_tpm.RECORD, initrd=fake_tpm.digest("one changed byte"))
    assert failed(world.ask(world.agreement(), record=changed)) == ["platform.reference.initrd"]


def test_rule_35_sound_evidence_without_the_memory_guard_gets_nothing(world):
    unguarded = replace(fake_tpm.RECORD, memory_guard=False)
    assert failed(world.ask(world.agreement(), record=unguarded)) == ["platform.memory_guard"]


def test_another_machine_is_refused_by_the_allow_list(world):
    def listed(one):
        platforms = (contracts.platform(world.scene.tpm, machines=(fake_tpm.digest("another"),)),)
        return replace(one, platforms=platforms)

    assert failed(world.ask(world.agreement(listed))) == ["platform.machine"]


def test_rule_34_an_unknown_tee_is_refused(world):
    agreement = world.agreement()
    room = world.room(agreement)
    asked = room.ask(world.challenge(agreement).nonce)
    odd = replace(asked, evidence=evidence_model.Evidence(tee="sample", parts={"claims": b"trust me"}))
    assert "evidence.tee" in failed(world.release(odd.encode()))


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_evidence_with_any_bit_flipped_is_refused(world, data):
    agreement = world.agreement()
    asked = world.room(agreement).ask(world.challenge(agreement).nonce)
    name = data.draw(st.sampled_from(sorted(asked.evidence.parts)))
    part = bytearray(asked.evidence.parts[name])
    bit = data.draw(st.integers(0, len(part) * 8 - 1))
    part[bit // 8] ^= 1 << bit % 8
    flipped = evidence_model.Evidence(tee="tpm", parts={**asked.evidence.parts, name: bytes(part)})
    answer = world.release(replace(asked, evidence=flipped).encode())
    assert [one for one in failed(answer) if one.startswith(("evidence.", "platform."))]


def test_rule_23_keys_for_one_room_do_not_open_for_another(world):
    agreement = world.agreement()
    rooms = [world.room(agreement) for _ in range(2)]
    nonces = [world.challenge(agreement).nonce for _ in rooms]
    answers = [world.release(room.request(nonce)) for room, nonce in zip(rooms, nonces, strict=True)]
    for answer, room, nonce in (
        (answers[1], rooms[0], nonces[0]),
        (answers[0], rooms[1], nonces[1]),
        (answers[0], rooms[0], nonces[1]),
    ):
        with pytest.raises(Refused, match="sealed message does not open with this key"):
            room.open(answer, nonce)


@pytest.mark.parametrize("name", ["signing", "tls", "kem"])
def test_keys_that_the_evidence_is_not_bound_to_get_nothing(world, name):
    agreement = world.agreement()
    asked = world.room(agreement).ask(world.challenge(agreement).nonce)
    thief = world.room(agreement)
    swapped = replace(asked.keys, **{name: getattr(thief.keys, name)})
    assert "evidence.binding" in failed(world.release(replace(asked, keys=swapped).encode()))


def test_evidence_for_another_broker_is_refused(world):
    agreement = world.agreement()
    room = brokers.Room(tpm=world.scene.tpm, agreement=agreement, audience=fake_tpm.digest("other broker"))
    assert "evidence.binding" in failed(world.release(room.request(world.challenge(agreement).nonce)))


def test_another_role_is_refused(world):
    agreement = world.agreement()
    asked = world.room(agreement).ask(world.challenge(agreement).nonce)
    assert "request.role" in failed(world.release(replace(asked, role="manager").encode()))


def test_a_contract_that_names_another_broker_for_the_owner_is_refused(world):
    def elsewhere(one):
        alice = one.members[0].party
        moved = replace(alice, broker=replace(alice.broker, pin=fake_tpm.digest("other")))
        return replace(one, members=(replace(one.members[0], party=moved), *one.members[1:]))

    assert failed(world.ask(world.agreement(elsewhere)))[0] == "own.entry"


def test_somebody_elses_name_is_not_somebody_elses_key(world):
    """mallory calls himself alice and asks for alice's disk: names mean nothing, keys do."""
    from strongroom.model import identity
    from strongroom.model.contracts import agreement as agreement_model
    from strongroom.model.contracts import drafting

    mallory = identity.generate("alice")

    def usurp(one):
        party = mallory.party(world.settings.address)
        return replace(one, members=(replace(one.members[0], party=party), *one.members[1:]))

    drawn = contract_model.parse(drafting.encode(usurp(world.agreement().contract)))
    agreement = agreement_model.draft(drawn)
    for key in (mallory.signing, world.scene.bob.signing):
        agreement = agreement_model.add_signature(agreement, key)
    assert failed(world.ask(agreement)) == ["own.signature"]


def test_a_disk_that_the_broker_does_not_know_is_denied_before_anything(world):
    def unknown(one):
        return changed(
            one, datasets=(replace(one.rooms[0].datasets[0], manifest_digest=fake_tpm.digest("unknown")),)
        )

    answer = world.ask(world.agreement(unknown))
    assert failed(answer) == ["keys.present", "evidence.verified"]
    nothing_released(world)


def test_disks_of_other_owners_are_left_alone(world):
    """bob's disk has its key at bob's broker; alice's does not miss it, and would not give it."""
    answer = world.ask(world.agreement())
    assert answer.verdict["result"] == "accepted"
    entry = record.parse(answer.ledger.entry)
    assert entry.body["disks"] == [brokers.manifest_digest(world.disk)]


def test_rule_40_a_request_for_a_name_that_the_contract_lacks_is_denied(world):
    agreement = world.agreement()
    body = world.room(agreement).request(
        world.challenge(agreement).nonce, names=(brokers.NAMES[0], "bank.example")
    )
    assert failed(world.release(body))[0] == "certificate.names"
    nothing_released(world)


def test_rule_40_a_common_name_counts_as_a_name(world):
    agreement = world.agreement()
    room = world.room(agreement)
    asked = room.ask(world.challenge(agreement).nonce, csr=room.csr((), common_name="bank.example"))
    assert failed(world.release(asked.encode()))[0] == "certificate.names"


def test_a_request_where_no_certificate_is_agreed_is_denied(world):
    agreement = world.agreement(lambda c: changed(c, certificate=None))
    body = world.room(agreement).request(world.challenge(agreement).nonce, names=("a.example",))
    assert failed(world.release(body))[0] == "certificate.names"


def test_a_request_by_another_key_is_denied(world):
    agreement = world.agreement()
    room, other = world.room(agreement), world.room(agreement)
    asked = room.ask(world.challenge(agreement).nonce, csr=other.csr(brokers.NAMES))
    assert failed(world.release(asked.encode()))[0] == "certificate.key"


def test_whose_key_it_is_says_the_evidence_and_no_signature_of_the_request(world):
    agreement = world.agreement()
    room, other = world.room(agreement), world.room(agreement)
    unsigned = room.csr(brokers.NAMES)[:-8] + bytes(8)
    answer = world.release(room.ask(world.challenge(agreement).nonce, csr=unsigned).encode())
    assert spki.of_certificate(answer.certificates[0]) == room.keys.tls
    # A request that is signed well, for the key that it names, in evidence that is bound to another.
    taken = other.ask(world.challenge(agreement).nonce, csr=room.csr(brokers.NAMES))
    taken = replace(taken, keys=replace(taken.keys, tls=room.keys.tls))
    assert failed(world.release(taken.encode())) == ["evidence.binding"]


def test_no_request_no_certificate(world):
    answer = world.ask(world.agreement())
    assert answer.certificates == ()
    assert record.parse(answer.ledger.entry).body["certificate"] is None


def test_a_contract_without_certificates_releases_keys_all_the_same(world):
    answer = world.ask(world.agreement(lambda contract: changed(contract, certificate=None)))
    assert answer.certificates == ()


def test_a_kem_key_that_is_none_costs_no_run(world):
    agreement = world.agreement()
    room = world.room(agreement)
    room.keys = replace(room.keys, kem=b"\xff" * hpke.PUBLIC_BYTES)
    nonce = world.challenge(agreement).nonce
    with pytest.raises(Malformed, match="expected an X-Wing key"):
        world.release(room.request(nonce))
    nothing_released(world, recorded=False)


def cut(body):
    """Head, agreement and rest of a release request."""
    split = messages.split_release_request(body)
    head = body[: body.index(b"\n")]
    return [canonical.loads(head, what="test", max_bytes=256), split.agreement, json.loads(split.rest)]


def joined(head, agreement, rest):
    return canonical.dumps(head) + b"\n" + agreement + canonical.dumps(rest)


@pytest.mark.parametrize(
    ("part", "spoil", "message"),
    [
        (0, lambda head: head.update(extra=1), "release head: unknown key 'extra'"),
        (0, lambda head: head.pop("nonce"), "release head: key 'nonce' is missing"),
        (0, lambda head: head.update(nonce="AAAA"), "release head.nonce: expected 32 bytes"),
        (0, lambda head: head.update(contract="x"), "release head.contract: expected sha256: and 64"),
        (0, lambda head: head.update(agreement=0), "release head.agreement: expected an integer from 1"),
        (0, lambda head: head.update(agreement=1 << 20), "release head.agreement: expected an integer"),
        (0, lambda head: head.update(agreement=190_000), "its head announces an agreement of 190000 bytes"),
        (0, lambda head: head.update(agreement=head["agreement"] + 1), "envelope: not JSON"),
        (0, lambda head: head.update(pad="x" * 200), "expected a first line of at most 256 bytes"),
        (2, lambda rest: rest.update(extra=1), "release request: unknown key 'extra'"),
        (2, lambda rest: rest.update(nonce="AAAA"), "release request: unknown key 'nonce'"),
        (2, lambda rest: rest.pop("role"), "release request: key 'role' is missing"),
        (2, lambda rest: rest["keys"].update(signing="AAAA"), "keys.signing: expected 32 bytes"),
        (2, lambda rest: rest["keys"].update(tls="A" * 1372), "keys.tls: expected base64 of at most 1024"),
        (2, lambda rest: rest.update(csr=fields.format_data(b"junk")), "certificate request"),
        (2, lambda rest: rest.update(evidence=[]), "release request.evidence: expected an object"),
    ],
)
def test_malformed_requests_say_so_and_use_nothing_up(world, part, spoil, message):
    agreement = world.agreement()
    room = world.room(agreement)
    body = room.request(world.challenge(agreement).nonce)
    parts = cut(body)
    spoil(parts[part])
    with pytest.raises(Malformed, match=re.escape(message)):
        world.release(joined(*parts))
    assert isinstance(world.release(body), messages.ReleaseAnswer)


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"{}", b"{}\n", b"[" * 300 + b"\n", b"x" * messages.MAX_REQUEST]
)
def test_what_is_no_request_at_all_is_malformed(world, body):
    with pytest.raises(Malformed, match=r"release (request|head)"):
        world.release(body)


def test_a_request_beyond_the_limit_is_not_even_cut(world):
    with pytest.raises(Malformed, match="at most") as caught:
        world.release(b"x" * (messages.MAX_REQUEST + 1))
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("old", [b'"replaces":null,', b'"id":"flights",'])
def test_a_duplicate_or_unknown_key_in_the_contract_is_refused(world, old):
    """Signed all the same: strict parsing comes before signatures."""
    from strongroom.encoding import dsse

    contract = world.agreement().contract.raw
    assert old in contract
    for spoilt, why in (
        (contract.replace(old, old + old, 1), "duplicate key"),
        (contract.replace(old, b'"unknown":1,' + old, 1), "unknown key 'unknown'"),
    ):
        bare = dsse.Envelope(payload_type=contract_model.PAYLOAD_TYPE, payload=spoilt, signatures=())
        signatures = tuple(
            dsse.DsseSignature(keyid=one.party().keyid, sig=one.signing.sign(bare.pae()))
            for one in (world.scene.alice, world.scene.bob)
        )
        good = world.agreement()
        asked = world.room(good).ask(world.challenge(good).nonce)
        body = replace(asked, agreement=replace(bare, signatures=signatures).encode()).encode()
        with pytest.raises(Malformed, match=why):
            world.release(body)


class FailingLedger:
    """A store whose ledger fails when it is appended to."""

    def __init__(self, store):
        self._store = store
        self.ledger = store.ledger
        self.read = store.read

    async def write(self, work):
        def failing(transaction):
            def fail(_entry, *, run_id):
                raise Unavailable(f"ledger of {run_id}: gone", code="disk-full")

            transaction.ledger.append = fail
            try:
                return work(transaction)
            finally:
                del transaction.ledger.append

        return await self._store.write(failing)


def test_rule_52_no_record_no_release(world):
    agreement = world.agreement(runs=1)
    nonce = world.challenge(agreement).nonce
    broken = replace(world, broker=replace(world.broker, store=FailingLedger(world.store)))
    body = world.room(agreement).request(nonce)
    with pytest.raises(Unavailable, match="gone"):
        broken.release(body)
    nothing_released(world, recorded=False)
    # Nothing was used up either: when the ledger is back, the same request goes through.
    assert isinstance(world.release(body), messages.ReleaseAnswer)


def test_rule_53_a_work_that_fails_after_its_append_leaves_nothing(world):
    agreement = world.agreement()

    def spoilt(transaction):
        transaction.ledger.append(b"ghost", run_id="")
        raise Refused("changed my mind")

    async def both():
        from strongroom.broker.release import release

        bodies = [world.room(agreement).request((await challenge(world.broker, ask)).nonce) for _ in range(3)]
        return await asyncio.gather(
            release(world.broker, bodies[0]),
            world.store.write(spoilt),
            release(world.broker, bodies[1]),
            world.store.write(spoilt),
            release(world.broker, bodies[2]),
            return_exceptions=True,
        )

    ask = messages.encode_challenge_request(agreement.contract.digest)
    answers = asyncio.run(both())
    for one in (answers[0], answers[2], answers[4]):
        proof.verify(one.ledger, world.broker.notary.public)
    assert isinstance(answers[1], Refused)
    assert world.store.ledger.size() == 3


def test_rule_59_denials_beyond_the_budget_are_answered_but_not_recorded(tmp_path):
    with brokers.world(tmp_path, budgets=Budgets(denials=2)) as world:
        agreement = world.agreement(signers=("alice",))
        answers = [world.ask(agreement) for _ in range(4)]
        assert [one.ledger is not None for one in answers] == [True, True, False, False]
        world.clock.advance(timedelta(seconds=2))
        assert world.ask(agreement).ledger is not None


def test_an_allowance_never_earns_more_than_its_capacity_nor_by_a_clock_set_back():
    now = contracts.NOW
    bucket = Allowance(2, 10)
    assert [bucket.take(now), bucket.take(now), bucket.take(now)] == [True, True, False]
    assert not bucket.take(now - timedelta(days=1))
    later = now + timedelta(days=9)
    assert [bucket.take(later), bucket.take(later), bucket.take(later)] == [True, True, False]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{}", "key 'contract' is missing"),
        (b'{"contract":"x"}', "contract: expected sha256: and 64"),
        (b'{"contract":"sha256:' + b"0" * 64 + b'","more":1}', "unknown key 'more'"),
        (b"[" * 4000, "nested too deeply"),
    ],
)
def test_malformed_challenges(world, body, why):
    with pytest.raises(Malformed, match=why):
        asyncio.run(challenge(world.broker, body))


def test_nonces_differ_and_expire_in_two_minutes(world):
    agreement = world.agreement()
    made = [world.challenge(agreement) for _ in range(50)]
    assert len({one.nonce for one in made}) == 50
    assert {one.expires - one.time for one in made} == {timedelta(seconds=120)}


def test_rule_53_a_restart_remembers_nonces_runs_versions_and_ledger(tmp_path):
    with brokers.world(tmp_path) as world:
        agreement = world.agreement(runs=1)
        spare = world.challenge(agreement).nonce
        first = world.ask(agreement)
    with brokers.world(tmp_path) as world:
        assert "contract.runs" in failed(world.release(world.room(agreement).request(spare)))
        assert "nonce.fresh" in failed(world.release(world.room(agreement).request(spare)))
        ledger = world.store.ledger
        assert ledger.size() == 2
        again = world.broker.notary.prove(ledger, entry=first.ledger.entry, index=0, size=2)
        proof.verify(again, world.broker.notary.public)


def test_a_denial_travels_with_its_proof(world):
    answer = world.ask(world.agreement(signers=("alice",)))
    read = brokers.parse_denial(answer.encode())
    assert read == answer
    entry, _ = proof.verify(read.ledger, world.broker.notary.public)
    assert entry.body["verdict"] == read.verdict


def test_evidence_is_encoded_once_and_goes_by_its_digest(world, monkeypatch):
    encoded, encode = [], evidence_model.Evidence.encode

    def counted(evidence):
        encoded.append(evidence)
        return encode(evidence)

    agreement = world.agreement()
    room = world.room(agreement)
    nonce = world.challenge(agreement).nonce
    body = room.request(nonce)
    monkeypatch.setattr(evidence_model.Evidence, "encode", counted)
    assert room.open(world.release(body), nonce)
    assert len(encoded) == 1
