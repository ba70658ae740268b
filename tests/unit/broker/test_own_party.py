"""The first gate: a broker serves what its own party signed, and a stranger's contract costs and leaves nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import replace
from types import SimpleNamespace

import pytest

from strongroom.broker import own_party, request_checks
from strongroom.broker.admit_contract import admit
from strongroom.broker.budgets import Budgets
from strongroom.crypto import sign
from strongroom.encoding import dsse
from strongroom.errors import Refused
from strongroom.model import identity, manifest, messages, signatures
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import certificate_terms, drafting
from strongroom.model.contracts import contract as contract_model
from strongroom_testing import brokers, contracts, simulated
from strongroom_testing.contracts import changed
from strongroom_testing.vendors import fake_tpm

MALLORY = identity.generate("mallory")
HERS = ("vault.alice.example", "login.alice.example")


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


def drawn(change, one, signers):
    agreement = agreement_model.draft(contract_model.parse(drafting.encode(change(one))))
    for signer in signers:
        agreement = agreement_model.add_signature(agreement, signer.signing)
    return agreement


def stranger(world, *, version=1, platforms=None, alice=contract_model.Role.AUDITOR, signers=(MALLORY,)):
    """A contract of mallory's: her image, her data, her machine, her names; alice's public party file stands in it."""
    own = contract_model.Member(party=MALLORY.party(), role=contract_model.Role.DATA_OWNER)
    named = contract_model.Member(party=world.settings.party, role=alice)

    def change(one):
        return changed(
            one,
            version=version,
            replaces=None if version == 1 else fake_tpm.digest("whatever"),
            members=(own, named),
            image=replace(one.rooms[0].image, owner="mallory"),
            datasets=(replace(one.rooms[0].datasets[0], owner="mallory"),),
            outputs=(replace(one.rooms[0].outputs[0], recipients=("mallory",)),),
            platforms=platforms or one.platforms,
            certificate=certificate_terms.CertificateTerms(names=HERS, lifetime_seconds=86_400),
            approvals=contract_model.Approvals(parties=("mallory",), threshold=1),
        )

    return drawn(change, world.agreement().contract, signers)


def ask(world, agreement):
    room = world.room(agreement)
    return world.release(room.request(world.challenge(agreement).nonce, names=HERS))


def failed(answer):
    assert isinstance(answer, messages.DenialAnswer), "served, where nothing was due"
    return [check["name"] for check in answer.verdict["checks"] if not check["ok"]]


class NobodyIsAsked:
    """An endorser that must not be reached."""

    def endorse(self, evidence, *, now, vek):
        raise AssertionError("a vendor was asked")


def test_a_strangers_contract_gets_no_certificate_and_leaves_no_trace(world):
    genuine = world.agreement()
    assert isinstance(world.ask(genuine), messages.ReleaseAnswer)
    size, versions, runs = (
        world.store.ledger.size(),
        world.store.versions(),
        world.store.runs_by_room(),
    )
    for version in (1, 2, 1_000_000):
        answer = ask(world, stranger(world, version=version))
        assert failed(answer) == ["own.signature"]
        assert answer.ledger is None
    assert world.store.ledger.size() == size
    assert world.store.versions() == versions
    assert world.store.runs_by_room() == runs
    # The genuine contract stands as it did.
    assert isinstance(world.ask(genuine), messages.ReleaseAnswer)


def test_a_strangers_contract_asks_no_vendor(world):
    machine = simulated.machine("snp", now=contracts.NOW)
    guarded = replace(world, broker=replace(world.broker, endorser=NobodyIsAsked()))
    agreement = stranger(world, platforms=(machine.platform,))
    room = brokers.Room(tpm=None, agreement=agreement, audience=world.broker.audience)
    nonce = guarded.challenge(agreement).nonce
    request = messages.ReleaseRequest(
        nonce=nonce,
        contract_digest=agreement.contract.digest,
        agreement=agreement.encode(),
        evidence=machine.launch(agreement.contract.digest).evidence(room.binding(nonce)),
        keys=room.keys,
        role="main",
        csr=None,
    )
    assert failed(guarded.release(request.encode())) == ["own.signature"]


def test_a_strangers_contracts_use_up_no_budget(tmp_path):
    with brokers.world(tmp_path, budgets=Budgets(denials=1, denial_seconds=1e9)) as world:
        agreement = stranger(world)
        body = world.room(agreement).request(world.challenge(agreement).nonce)
        for _ in range(30):
            assert failed(world.release(body)) == ["own.signature"]  # the nonce is not used up either
        assert world.store.ledger.size() == 0
        honest = world.ask(world.agreement(signers=("alice",)))
        assert isinstance(honest, messages.DenialAnswer)
        assert honest.ledger is not None  # the only denial that the budget has


def test_a_strangers_contract_costs_few_verifications_and_is_not_parsed(world, monkeypatch):
    verified = []
    verify = sign.VerifyingKey.verify

    def counting(self, signature, message):
        verified.append(self)
        return verify(self, signature, message)

    agreement = stranger(world)
    lie = replace(agreement.envelope.signatures[0], keyid=world.settings.party.keyid)
    others = tuple(replace(lie, keyid=fake_tpm.digest(str(at))) for at in range(30))
    costly = replace(agreement, envelope=replace(agreement.envelope, signatures=(lie, *others)))
    body = world.room(costly).request(world.challenge(costly).nonce)
    monkeypatch.setattr(sign.VerifyingKey, "verify", counting)
    monkeypatch.setattr(contract_model, "parse", lambda _data: pytest.fail("the contract was parsed"))
    assert failed(world.release(body)) == ["own.signature"]
    assert verified == [world.settings.party.signing_key] * (1 + signatures.TRIES_EACH)


def test_a_strangers_contract_stays_in_no_memory(world):
    for version in range(1, 20):
        ask(world, stranger(world, version=version))
    assert len(world.broker.agreements._kept) == 0


def test_what_its_party_signed_as_an_auditor_gets_nothing(world):
    """alice did sign; she owns no disk of it, so her broker has nothing to give."""
    signed = stranger(world, signers=(MALLORY, world.scene.alice))
    answer = ask(world, signed)
    assert failed(answer) == ["own.disk"]
    assert answer.ledger is None
    with pytest.raises(Refused, match=r"own\.disk"):
        asyncio.run(admit(world.broker, signed.encode()))
    assert world.store.ledger.size() == 0


def test_what_its_party_signed_as_a_recipient_gets_nothing_either(world):
    receiving = stranger(world, alice=contract_model.Role.RECIPIENT)
    signed = drawn(
        lambda one: changed(one, outputs=(replace(one.rooms[0].outputs[0], recipients=("alice",)),)),
        receiving.contract,
        (MALLORY, world.scene.alice),
    )
    assert failed(ask(world, signed)) == ["own.disk"]


def other_broker(party, **changes):
    return replace(party, broker=replace(party.broker, **changes))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda p: replace(p, recipient=MALLORY.party().recipient), id="recipient"),
        pytest.param(lambda p: replace(p, broker=None), id="no broker"),
        pytest.param(lambda p: other_broker(p, pin=fake_tpm.digest("x")), id="broker.pin"),
        pytest.param(lambda p: other_broker(p, ledger_key=b"m" * 32), id="broker.ledger_key"),
        pytest.param(lambda p: other_broker(p, authority=fake_tpm.digest("x")), id="broker.authority"),
    ],
)
def test_an_entry_that_is_not_its_party_file_gets_nothing_though_it_is_signed(world, spoil):
    def change(one):
        entry = replace(one.members[0], party=spoil(one.members[0].party))
        return replace(one, members=(entry, *one.members[1:]))

    one = drawn(change, world.agreement().contract, (world.scene.alice, world.scene.bob))
    answer = world.ask(one)
    assert failed(answer) == ["own.entry"]
    assert answer.ledger is None
    with pytest.raises(Refused, match=r"own\.entry"):
        asyncio.run(admit(world.broker, one.encode()))
    assert world.store.ledger.size() == 0


def test_its_partys_key_under_another_name_gets_nothing(world):
    renamed = replace(world.settings.party, name="alicia")

    def change(one):
        return changed(
            one,
            members=(replace(one.members[0], party=renamed), *one.members[1:]),
            datasets=(replace(one.rooms[0].datasets[0], owner="alicia"),),
            approvals=contract_model.Approvals(parties=("alicia", "bob"), threshold=2),
        )

    one = drawn(change, world.agreement().contract, (world.scene.alice, world.scene.bob))
    assert failed(world.ask(one)) == ["own.entry"]


def test_a_contract_that_does_not_name_its_partys_key_gets_nothing_though_it_signed_it(world):
    nameless = drawn(
        lambda one: replace(one, members=one.members[:1]), stranger(world).contract, signers=(MALLORY,)
    )
    sealed = nameless.envelope
    mine = dsse.DsseSignature(
        keyid=world.settings.party.keyid, sig=world.scene.alice.signing.sign(sealed.pae())
    )
    signed = replace(nameless, envelope=replace(sealed, signatures=(*sealed.signatures, mine)))
    reading = own_party.read(signed.encode(), world.settings.party)
    assert [check.name for check in reading.checks if not check.ok] == ["own.entry", "own.disk"]
    assert reading.checks[1].got is None
    assert reading.agreement is None


def test_every_field_of_a_party_counts_but_where_its_broker_listens(world):
    """Whatever fields a party or a broker's address gets: each is compared, or stands in this list."""
    moved = other_broker(world.settings.party, url="https://elsewhere.example:1")

    def change(one):
        return replace(one, members=(replace(one.members[0], party=moved), *one.members[1:]))

    one = drawn(change, world.agreement().contract, (world.scene.alice, world.scene.bob))
    assert isinstance(world.ask(one), messages.ReleaseAnswer)
    party = world.settings.party
    assert {field.name for field in dataclasses.fields(party)} == {
        "name",
        "signing_key",
        "recipient",
        "broker",
    }
    assert {field.name for field in dataclasses.fields(party.broker)} == {
        "url",
        "pin",
        "ledger_key",
        "authority",
    }


def test_a_signature_counts_beside_what_somebody_put_there(world):
    """Whoever passes a contract on voids no signature by a second one under its key id, nor by another key id."""
    agreement = world.agreement()
    mine, other = agreement.envelope.signatures
    for beside in (mine, replace(mine, sig=bytes(64))):
        more = replace(agreement.envelope, signatures=(beside, replace(mine, keyid=other.keyid), other))
        assert isinstance(world.ask(replace(agreement, envelope=more)), messages.ReleaseAnswer)


def test_the_record_of_a_release_says_that_the_gate_was_passed(world):
    answer = world.ask(world.agreement())
    assert [check["name"] for check in answer.verdict["checks"]][:3] == [
        "own.signature",
        "own.entry",
        "own.disk",
    ]
    passed = {check["name"] for check in answer.verdict["checks"] if check["ok"]}
    assert {"nonce.fresh", "nonce.contract", "request.role", "run.unique", "keys.present"} <= passed


def test_a_disk_without_a_cipher_needs_no_key_and_every_other_has_one():
    plain = SimpleNamespace(manifest_digest="a", cipher=manifest.NO_CIPHER, sealed_key=None)
    held = SimpleNamespace(manifest_digest="b", cipher="aes-xts", sealed_key=b"sealed")
    assert request_checks._keys(("a", "b"), (plain, held)).ok
    lost = SimpleNamespace(manifest_digest="b", cipher="aes-xts", sealed_key=None)
    refused = request_checks._keys(("a", "b"), (plain, lost))
    assert not refused.ok
    assert refused.got == {"missing": ["b"]}
