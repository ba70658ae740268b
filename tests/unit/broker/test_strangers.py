"""A stranger's request costs the broker almost nothing: no transaction, no parsing, no place in any cache."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.api.broker import routes
from strongroom.broker import own_party, ports, request_checks, versions
from strongroom.broker import release as release_module
from strongroom.broker.budgets import Allowances, Budgets, Denials, Failures
from strongroom.broker.nonces import NonceMaker
from strongroom.broker.ports import KnownVersion
from strongroom.broker.release import release
from strongroom.broker.running.receipt import receipt
from strongroom.broker.workers import READING, READING_EACH, WAITING, Workers
from strongroom.crypto import digest, sign
from strongroom.encoding import canonical, dsse, fields, framed
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.model import messages
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom.store import sqlite
from strongroom_testing import brokers, contracts
from strongroom_testing.vendors import fake_tpm

CONTRACT = "sha256:" + "0" * 64


class Watched:
    """A store that counts transactions, and lets a test change things between preparing and deciding."""

    def __init__(self, store):
        self._store = store
        self.ledger, self.read = store.ledger, store.read
        self.writes = 0
        self.meanwhile = []

    async def write(self, work):
        self.writes += 1
        if self.meanwhile:
            await self._store.write(self.meanwhile.pop(0))
        return await self._store.write(work)


@pytest.fixture
def watched(world):
    return replace(world, broker=replace(world.broker, store=Watched(world.store)))


def failed(answer):
    assert isinstance(answer, messages.DenialAnswer), "released, where a denial was due"
    return [check["name"] for check in answer.verdict["checks"] if not check["ok"]]


def largest(agreement):
    """The largest agreement that is read at all, with as many signatures as there may be; all of them junk."""
    signatures = tuple(
        dsse.DsseSignature(keyid=fake_tpm.digest(str(at)), sig=bytes(64)) for at in range(dsse.MAX_SIGNATURES)
    )
    payload = bytes(contract_model.MAX_BYTES)
    return replace(agreement.envelope, payload=payload, signatures=signatures).encode()


def test_every_body_that_a_stranger_may_send_is_well_below_a_mebibyte(world):
    assert max(row.limit for row in routes.ROUTES) <= 512 * 1024
    assert next(row.limit for row in routes.ROUTES if row.name == "receipt") <= 128 * 1024
    assert len(largest(world.agreement())) <= messages.MAX_AGREEMENT < messages.MAX_REQUEST


def test_a_nonce_that_is_not_ours_costs_no_parsing_no_verification_and_no_transaction(watched, monkeypatch):
    agreement = watched.agreement()
    body = watched.room(agreement).request(bytes(32))
    huge = replace(watched.room(agreement).ask(bytes(32)), agreement=largest(agreement)).encode()
    watched.broker.store.writes = 0

    def touched(*_args, **_more):
        raise AssertionError("looked at, before the nonce was known as ours")

    monkeypatch.setattr(own_party, "read", touched)
    monkeypatch.setattr(messages, "parse_release_request", touched)
    monkeypatch.setattr(sign.VerifyingKey, "verify", touched)
    for one in (body, huge):
        assert failed(watched.release(one)) == ["nonce.fresh"]
    assert watched.broker.store.writes == 0


def test_a_contract_of_strangers_opens_no_transaction_and_costs_a_verification_for_each_signature(
    watched, monkeypatch
):
    agreement = watched.agreement(signers=("bob",))
    asked = watched.room(agreement).ask(watched.challenge(agreement).nonce)
    watched.broker.store.writes = 0
    tried = []
    verify = sign.VerifyingKey.verify
    monkeypatch.setattr(sign.VerifyingKey, "verify", lambda *args: tried.append(1) or verify(*args))
    alice = watched.scene.alice.party().keyid
    forged = dsse.DsseSignature(keyid=alice, sig=bytes(64))
    envelope = agreement.envelope
    for signatures in (envelope.signatures, (*envelope.signatures, forged), (forged, forged)):
        claimed = replace(asked, agreement=replace(envelope, signatures=signatures).encode())
        assert failed(watched.release(claimed.encode())) == ["own.signature"]
    assert watched.broker.store.writes == 0
    assert len(tried) == 1 + 2 + 1, "no signature is tried twice by one key"
    assert watched.broker.agreements.held == 0


def test_each_signature_of_a_contract_is_verified_once(watched, monkeypatch):
    agreement = watched.agreement(lambda one: replace(one, id="seen-by-nobody-before"))
    body = watched.room(agreement).request(watched.challenge(agreement).nonce)
    tried = []
    verify = sign.VerifyingKey.verify

    def counting(key, signature, message):
        if message.startswith(b"DSSEv1"):
            tried.append((key.raw, signature))
        return verify(key, signature, message)

    monkeypatch.setattr(sign.VerifyingKey, "verify", counting)
    assert isinstance(watched.release(body), messages.ReleaseAnswer)
    assert len(tried) == len(set(tried)) == 2


def test_a_denial_beyond_the_budget_opens_no_transaction(tmp_path):
    with brokers.world(tmp_path, budgets=Budgets(denials=1)) as plain:
        world = replace(plain, broker=replace(plain.broker, store=Watched(plain.store)))
        agreement = world.agreement(signers=("alice",))
        assert world.ask(agreement).ledger is not None
        body = world.room(agreement).request(world.challenge(agreement).nonce)
        world.broker.store.writes = 0
        assert world.release(body).ledger is None
        assert world.broker.store.writes == 0


def test_while_a_request_is_verified_neither_the_loop_nor_the_database_waits(world, monkeypatch):
    """Four seconds of verification used to be four seconds of nothing else."""
    agreement = world.agreement()
    slow, quick = (world.room(agreement).request(world.challenge(agreement).nonce) for _ in range(2))
    entered, go = threading.Event(), threading.Event()
    judge = release_module.judge

    def slowly(*args, **more):
        if not entered.is_set():
            entered.set()
            assert go.wait(60)
        return judge(*args, **more)

    monkeypatch.setattr(release_module, "judge", slowly)

    async def both():
        first = asyncio.ensure_future(release(world.broker, slow))
        assert await asyncio.to_thread(entered.wait, 60)
        second = await release(world.broker, quick)
        assert not first.done()
        go.set()
        return second, await first

    assert all(isinstance(one, messages.ReleaseAnswer) for one in asyncio.run(both()))


def later(world, first):
    return world.agreement(lambda one: replace(one, version=2, replaces=first.contract.digest))


def test_what_changes_between_preparing_and_deciding_is_judged_again(watched):
    """A version admitted while evidence is verified withdraws the one that is being verified."""

    first = watched.agreement()
    body = watched.room(first).request(watched.challenge(first).nonce)
    second = later(watched, first).contract

    def admitted(transaction):
        transaction.contracts.raise_to(versions.series(second), versions.known(second))

    watched.broker.store.meanwhile = [admitted]
    answer = watched.release(body)
    assert failed(answer)[0] == "contract.version"
    assert watched.store.runs_by_room() == []
    assert watched.broker.store.writes >= 2


def test_a_disk_that_is_changed_meanwhile_is_sealed_anew(watched):
    from strongroom.broker.broker import DISK_KEY

    agreement = watched.agreement()
    room, nonce = watched.room(agreement), watched.challenge(agreement).nonce
    manifest = agreement.contract.rooms[0].datasets[0].manifest_digest
    fresh = bytes(reversed(brokers.DISK_KEY))
    sealed = watched.broker.at_rest.seal(fresh, purpose=DISK_KEY, name=manifest, random=watched.broker.random)
    known = watched.store.read(lambda state: state.disks.find(manifest))
    watched.broker.store.meanwhile = [
        lambda transaction: transaction.disks.put(replace(known, sealed_key=sealed))
    ]
    assert room.open(watched.release(room.request(nonce)), nonce) == {manifest: fresh}


def test_a_run_used_up_meanwhile_is_counted_and_may_be_one_too_many(watched):
    from strongroom.broker.ports import Run

    agreement = watched.agreement(runs=2)
    digest = agreement.contract.digest

    def another(name):
        run = Run(
            room="main", run_id=name, contract_digest=digest, signing_key=b"k" * 32, release=0, receipt=None
        )
        return lambda transaction: transaction.runs.add(run)

    body = watched.room(agreement).request(watched.challenge(agreement).nonce)
    watched.broker.store.meanwhile = [another("run-a")]
    accepted = watched.release(body)
    runs = [check for check in accepted.verdict["checks"] if check["name"] == "contract.runs"]
    assert [check["got"] for check in runs] == [1]
    body = watched.room(agreement).request(watched.challenge(agreement).nonce)
    assert "contract.runs" in failed(watched.release(body))


def test_what_keeps_changing_releases_nothing(watched, monkeypatch):
    agreement = watched.agreement()
    body = watched.room(agreement).request(watched.challenge(agreement).nonce)
    turns = iter(range(1, 1000))
    known = request_checks.known

    def different(*args):
        return replace(known(*args), version=KnownVersion(version=next(turns), digest="sha256:" + "0" * 64))

    monkeypatch.setattr(request_checks, "known", different)
    with pytest.raises(Unavailable) as caught:
        watched.release(body)
    assert caught.value.code == "contended"
    assert watched.store.runs_by_room() == []
    assert watched.store.ledger.size() == 0


def test_a_verdict_that_waited_too_long_is_made_anew(watched):
    agreement = watched.agreement()
    body = watched.room(agreement).request(watched.challenge(agreement).nonce)
    watched.broker.store.meanwhile = [lambda _: watched.clock.advance(timedelta(seconds=6))]
    answer = watched.release(body)
    assert fields.Fields(answer.verdict, "verdict").time("decided") == contracts.NOW + timedelta(seconds=6)


def test_agreements_are_kept_by_their_bytes_and_only_of_those_that_passed_the_gate(tmp_path):
    with brokers.world(tmp_path, budgets=Budgets(agreement_bytes=12_000)) as world:
        sizes = []
        for at in range(8):
            agreement = world.agreement(lambda one, at=at: replace(one, id=f"contract-{at}"))
            sizes.append(len(agreement.encode()))
            assert isinstance(world.ask(agreement), messages.ReleaseAnswer)
            assert world.broker.agreements.held <= 12_000
        held = world.broker.agreements.held
        assert 12_000 - max(sizes) <= held
        world.ask(world.agreement(lambda one: replace(one, id="unsigned"), signers=("bob",)))
        assert world.broker.agreements.held == held


def test_denials_are_counted_for_each_contract_and_each_address():
    denials = Denials(Budgets(denials=10, denials_each=3, denial_each_seconds=5))
    now = contracts.NOW
    assert [denials.take(now, contract_digest="a", peer=str(at)) for at in range(5)] == [True] * 3 + [
        False
    ] * 2
    assert [denials.take(now, contract_digest=f"c{at}", peer="p") for at in range(5)] == [True] * 3 + [
        False
    ] * 2
    # What was refused took nothing from the budget of all.
    taken = [denials.take(now, contract_digest=f"d{at}", peer=f"q{at}") for at in range(6)]
    assert taken == [True] * 4 + [False] * 2
    later = now + timedelta(seconds=5)
    assert denials.take(later, contract_digest="a", peer="fresh")
    assert not denials.take(later, contract_digest="a", peer="other")


def test_names_of_allowances_take_bounded_room():
    allowances = Allowances(1, 60, most=8)
    for at in range(100):
        assert allowances.allowance(str(at)).take(contracts.NOW)
    assert len(allowances._kept) == 8
    assert not allowances.allowance("99").take(contracts.NOW)


def in_lanes(world):
    """The same world, and a list to which each piece of work adds whether it had to wait behind others."""
    lanes = []

    class Lanes(Workers):
        async def run(self, work, *, patient=False):
            lanes.append(patient)
            return await super().run(work, patient=patient)

    return replace(world, broker=replace(world.broker, workers=Lanes(rest=lambda _: None))), lanes


def test_whose_requests_keep_failing_waits_behind_everybody_else(tmp_path):
    with brokers.world(tmp_path, budgets=Budgets(failures=3)) as plain:
        world, lanes = in_lanes(plain)
        unsigned, genuine = world.agreement(signers=("bob",)), world.agreement()

        def ask(agreement, peer):
            body = world.room(agreement).request(world.challenge(agreement).nonce)
            return asyncio.run(release(world.broker, body, peer=peer))

        for _ in range(5):
            ask(unsigned, "192.0.2.1")
        assert lanes == [False] * 3 + [True] * 2
        assert isinstance(ask(genuine, "192.0.2.2"), messages.ReleaseAnswer)
        assert lanes[5:] == [False]
        # Nobody is shut out: who is honest behind the same address is served, later.
        assert isinstance(ask(genuine, "192.0.2.1"), messages.ReleaseAnswer)
        assert lanes[6:] == [True]
        world.clock.advance(timedelta(seconds=10))
        ask(genuine, "192.0.2.1")
        assert lanes[7:] == [False]


def test_junk_under_a_genuine_contract_from_many_addresses_makes_new_addresses_wait(tmp_path):
    """Evidence that was for another nonce costs a whole verification; whoever holds the contract may have many addresses."""
    with brokers.world(tmp_path, budgets=Budgets(failures_each=3)) as plain:
        world, lanes = in_lanes(plain)
        genuine = world.agreement()
        other = world.agreement(lambda one: replace(one, id="other"))

        def ask(agreement, peer, *, junk=False):
            room, nonce = world.room(agreement), world.challenge(agreement).nonce
            old = room.ask(bytes(32) if junk else nonce)
            lanes.clear()
            return asyncio.run(release(world.broker, replace(old, nonce=nonce).encode(), peer=peer))

        assert isinstance(ask(genuine, "192.0.2.1"), messages.ReleaseAnswer)
        for at in range(5):
            assert failed(ask(genuine, f"198.51.100.{at}", junk=True))
            assert lanes == [at >= 3]
        # A room behind an address that is new waits; nobody is shut out, and who had keys before is as prompt as ever.
        assert isinstance(ask(genuine, "192.0.2.2"), messages.ReleaseAnswer)
        assert lanes == [True]
        assert isinstance(ask(genuine, "192.0.2.1"), messages.ReleaseAnswer)
        assert lanes == [False]
        assert isinstance(ask(other, "192.0.2.3"), messages.ReleaseAnswer)
        assert lanes == [False]


def test_who_only_names_a_contract_does_not_use_up_its_budget(tmp_path):
    with brokers.world(tmp_path, budgets=Budgets(failures_each=1)) as world:
        genuine, unsigned = world.agreement(), world.agreement(signers=("bob",))
        room, nonce = world.room(genuine), world.challenge(genuine).nonce
        for agreement in (unsigned.encode(), b"{}"):
            body = replace(room.ask(nonce), agreement=agreement).encode()
            with contextlib.suppress(Malformed):
                assert failed(asyncio.run(release(world.broker, body, peer="198.51.100.1")))
        now, contract = world.clock(), genuine.contract.digest
        assert not world.broker.failures.patient(now, peer="192.0.2.1", contract_digest=contract)


def test_addresses_that_had_keys_take_bounded_room():
    failures = Failures(Budgets(failures_each=1), most=2)
    for at in range(3):
        failures.released(peer=str(at), contract_digest=CONTRACT)
    for _ in range(2):
        failures.failed_under(CONTRACT, contracts.NOW)
    waits = [failures.patient(contracts.NOW, peer=str(at), contract_digest=CONTRACT) for at in range(3)]
    assert waits == [True, False, False]


def test_who_looks_at_the_ledger_waits_for_one_thread_and_few_may_wait():
    rests, go = [], threading.Event()
    workers = Workers(rest=rests.append)

    async def crowd():
        waiting = [
            asyncio.ensure_future(workers.read(go.wait, peer=f"192.0.2.{at % 4}")) for at in range(READING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await workers.read(lambda: None, peer="192.0.2.9")
        assert caught.value.code == "too-many-readers"
        begun = asyncio.ensure_future(workers.read(lambda: "to its end", begun=True))
        assert await workers.run(lambda: "at once") == "at once"
        go.set()
        assert await begun == "to its end"
        await asyncio.gather(*waiting)
        return await workers.read(sum, range(300_000))

    assert asyncio.run(crowd()) == sum(range(300_000))
    assert len(rests) == READING + 2
    assert rests[-1] > 0


def test_one_address_has_a_quarter_of_the_places_of_who_reads_the_ledger():
    go = threading.Event()
    workers = Workers(rest=lambda _: None)

    async def crowd():
        waiting = [
            asyncio.ensure_future(workers.read(go.wait, peer="192.0.2.1")) for _ in range(READING_EACH)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await workers.read(lambda: None, peer="192.0.2.1")
        assert caught.value.code == "too-many-readers"
        other = asyncio.ensure_future(workers.read(lambda: "from elsewhere", peer="192.0.2.2"))
        go.set()
        await asyncio.gather(*waiting)
        return await other, await workers.read(lambda: "again", peer="192.0.2.1")

    assert asyncio.run(crowd()) == ("from elsewhere", "again")


def test_the_patient_one_rests_for_thrice_what_it_worked_and_few_may_wait_for_it():
    rests, go = [], threading.Event()
    workers = Workers(rest=rests.append)

    async def crowd():
        waiting = [asyncio.ensure_future(workers.run(go.wait, patient=True)) for _ in range(WAITING)]
        await asyncio.sleep(0)
        assert workers.crowded
        with pytest.raises(Unavailable) as caught:
            await workers.run(lambda: None, patient=True)
        assert caught.value.code == "too-many-failures"
        assert await workers.run(lambda: "at once") == "at once"
        go.set()
        await asyncio.gather(*waiting)
        assert not workers.crowded
        await workers.run(lambda: sum(range(300_000)), patient=True)

    asyncio.run(crowd())
    assert len(rests) == WAITING + 1
    assert rests[-1] > 0


def test_while_many_wait_an_address_that_failed_is_refused_by_its_first_line(tmp_path, monkeypatch):
    with brokers.world(tmp_path, budgets=Budgets(failures=1)) as world:
        agreement = world.agreement()
        body = world.room(agreement).request(world.challenge(agreement).nonce)
        assert failed(
            asyncio.run(release(world.broker, world.room(agreement).request(bytes(32)), peer="bad"))
        )
        monkeypatch.setattr(Workers, "crowded", True)
        with pytest.raises(Unavailable) as caught:
            asyncio.run(release(world.broker, body, peer="bad"))
        assert caught.value.code == "too-many-failures"
        assert isinstance(asyncio.run(release(world.broker, body, peer="good")), messages.ReleaseAnswer)


@pytest.mark.parametrize("fault", [RuntimeError("nobody foresaw"), Malformed("nobody foresaw")])
def test_what_fails_in_a_way_that_nobody_foresaw_is_counted_too(tmp_path, monkeypatch, fault):
    """A request that is a defect would else be judged at once for ever, where a plain no has to wait."""

    def failing(*_args, **_more):
        raise fault

    with brokers.world(tmp_path, budgets=Budgets(failures=1)) as world:
        agreement = world.agreement()
        body = world.room(agreement).request(world.challenge(agreement).nonce)
        monkeypatch.setattr(messages, "parse_release_request", failing)
        assert not world.broker.failures.patient(world.clock(), peer="bad")
        with pytest.raises((RuntimeError, Malformed), match="nobody foresaw"):
            asyncio.run(release(world.broker, body, peer="bad"))
        assert world.broker.failures.patient(world.clock(), peer="bad")


KEY = bytes(range(32))
END = contracts.NOW + timedelta(seconds=120)


def made(key=KEY, contract=CONTRACT):
    return NonceMaker(key).make(contract, end=END, random=lambda count: b"r" * count)


def test_rule_18_a_nonce_is_known_by_its_key_and_contract_alone():
    assert len(made()) == messages.NONCE_BYTES
    assert NonceMaker(KEY).end(made(), CONTRACT) == END
    for key, contract, nonce in (
        (bytes(32), CONTRACT, made()),
        (KEY, "sha256:" + "1" * 64, made()),
        (KEY, CONTRACT, made(contract="sha256:" + "1" * 64)),
        (KEY, CONTRACT, made()[:-1]),
        (KEY, CONTRACT, made() + b"\0"),
        (KEY, CONTRACT, bytes(32)),
    ):
        assert NonceMaker(key).end(nonce, contract) is None


def test_a_nonce_ends_with_the_hmac_that_its_page_states():
    whole = framed.join("strongroom/nonce/1", made()[:16], CONTRACT.encode())
    assert made()[16:] == hmac.digest(KEY, whole, "sha256")[:16]


@given(st.integers(0, 255))
def test_rule_18_no_bit_of_a_nonce_may_change(bit):
    nonce = bytearray(made())
    nonce[bit // 8] ^= 1 << bit % 8
    assert NonceMaker(KEY).end(bytes(nonce), CONTRACT) is None


def test_a_challenge_stores_nothing_but_the_time_once_in_ten_seconds(watched):
    agreement = watched.agreement()
    watched.broker.store.writes = 0
    for _ in range(50):
        watched.challenge(agreement)
    assert watched.broker.store.writes == 1
    watched.clock.advance(timedelta(seconds=10))
    watched.challenge(agreement)
    assert watched.broker.store.writes == 2


def test_the_verdict_is_in_an_answer_once(world):
    for agreement in (world.agreement(), world.agreement(signers=("alice",))):
        answer = world.ask(agreement)
        top = json.loads(answer.encode())
        assert top.get("verdict") is None
        held = json.loads(fields.Fields(top["ledger"], "ledger").data("entry", max_bytes=1 << 20))
        assert held["body"]["verdict"] == answer.verdict


def test_a_denial_that_says_its_verdict_twice_is_refused(world):
    answer = world.ask(world.agreement(signers=("alice",)))
    top = json.loads(answer.encode())
    top["verdict"] = answer.verdict
    with pytest.raises(Malformed, match="expected null, as the ledger's entry holds the verdict"):
        brokers.parse_denial(canonical.dumps(top))


def test_an_agreement_that_is_only_signed_by_its_own_party_is_parsed_and_denied(world):
    agreement = world.agreement(signers=("alice",))
    assert agreement_model.read(agreement.encode()) == agreement
    assert "contract.approvals" in failed(world.ask(agreement))


def test_a_strangers_receipt_opens_no_transaction_and_is_looked_at_beside_the_loop(watched, monkeypatch):
    """Run, contract and signing key stand in the public ledger: anybody can claim to be that run."""
    agreement = watched.agreement()
    room = watched.room(agreement)
    watched.release(room.request(watched.challenge(agreement).nonce))
    watched.broker.store.writes = 0
    threads, waited = set(), []
    verify, run = sign.VerifyingKey.verify, watched.broker.workers.run

    def noting(*args):
        threads.add(threading.current_thread())
        return verify(*args)

    def asked(_workers, work, *, patient):
        waited.append(patient)
        return run(work)

    monkeypatch.setattr(sign.VerifyingKey, "verify", noting)
    monkeypatch.setattr(Workers, "run", asked)
    stranger = sign.generate()
    named = digest.sha256(stranger.public.raw).encode()
    forged = room.receipt(contracts.NOW, key=stranger).replace(
        named, digest.sha256(room.keys.signing).encode()
    )
    for _ in range(watched.broker.budgets.failures + 1):
        with pytest.raises(Refused, match="not of a run that keys were released to under that contract"):
            asyncio.run(receipt(watched.broker, forged, peer="192.0.2.1"))
    assert watched.broker.store.writes == 0
    assert threads
    assert threading.main_thread() not in threads
    assert waited[0] is False
    assert waited[-1] is True


def test_denials_in_a_runs_name_do_not_stand_between_its_release_and_its_receipt(world):
    """A room's public keys are in the hands of its host, who asks in its name again and again."""
    agreement = world.agreement()
    room = world.room(agreement)
    released = world.release(room.request(world.challenge(agreement).nonce))
    for _ in range(sqlite.OF_RUN):
        assert "run.unique" in failed(world.release(room.request(world.challenge(agreement).nonce)))
    kept = asyncio.run(receipt(world.broker, room.receipt(contracts.NOW)))
    entries = [entry for _, entry in world.store.ledger.of_run(room.keys.run_id)]
    assert entries == [released.ledger.entry, kept.entry]


def test_what_was_known_last_prepares_an_acceptance_without_asking_and_never_a_denial(watched, monkeypatch):
    from strongroom.broker.ports import Run

    agreement = watched.agreement(runs=3)
    digest, manifest = agreement.contract.digest, agreement.contract.rooms[0].datasets[0].manifest_digest
    assert isinstance(watched.ask(agreement), messages.ReleaseAnswer)
    reads = []
    read = watched.broker.store.read
    monkeypatch.setattr(watched.broker.store, "read", lambda work: reads.append(1) or read(work))
    assert isinstance(watched.ask(agreement), messages.ReleaseAnswer)
    assert not reads
    # Another process gives the last run: what was known says one is left, and the storage decides.
    run = Run(
        room="main", run_id="run-x", contract_digest=digest, signing_key=b"k" * 32, release=0, receipt=None
    )
    asyncio.run(watched.store.write(lambda transaction: transaction.runs.add(run)))
    assert failed(watched.ask(agreement)) == ["contract.runs", "evidence.verified"]
    # Another process forgets the disk, and has it again: neither is hidden by what was known.
    other = watched.agreement(lambda one: replace(one, id="other"), runs=9)
    known = watched.store.read(lambda state: state.disks.find(manifest))
    assert isinstance(watched.ask(other), messages.ReleaseAnswer)
    asyncio.run(watched.store.write(lambda transaction: transaction.disks.remove(manifest)))
    assert failed(watched.ask(other))[0] == "keys.present"
    asyncio.run(watched.store.write(lambda transaction: transaction.disks.put(known)))
    assert isinstance(watched.ask(other), messages.ReleaseAnswer)


def test_a_denial_by_what_was_known_is_judged_once_where_it_still_stands(watched, monkeypatch):
    agreement = watched.agreement()
    assert isinstance(watched.ask(agreement), messages.ReleaseAnswer)
    judged = []
    judge = release_module.judge
    monkeypatch.setattr(
        release_module, "judge", lambda *args, **more: judged.append(1) or judge(*args, **more)
    )
    room, old = watched.room(agreement), watched.room(agreement)
    stale = old.ask(watched.challenge(agreement).nonce).evidence
    asked = replace(room.ask(watched.challenge(agreement).nonce), evidence=stale)
    assert failed(watched.release(asked.encode())) == ["evidence.binding"]
    assert len(judged) == 1


def test_of_contracts_that_keys_were_released_under_the_last_ones_are_remembered():
    from strongroom.broker.broker import RecentContracts

    seen = RecentContracts(most=2)
    known = ports.Known(version=None, run=None, disks=())
    for contract in ("a", "b", "a", "c"):
        seen.keep(contract, "main", known, 1)
    assert [seen.last(one, "main") is not None for one in "abc"] == [True, False, True]
