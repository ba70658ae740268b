"""Vendors are asked before the transaction, for whom it is worth it, and a vendor's silence decides nothing."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from strongroom.broker import endorse
from strongroom.errors import Malformed, NotFound, Refused, Unavailable
from strongroom.model import messages, record
from strongroom.model.endorsements import NONE, Endorsements
from strongroom_testing import brokers, contracts, simulated
from strongroom_testing.vendors import fake_amd

NOW = contracts.NOW


class Asked:
    """An endorser that counts, and answers as it is told."""

    def __init__(self, machine, answer=None):
        self.machine, self.answer, self.asked = machine, answer, []

    def endorse(self, evidence, *, now, vek):
        self.asked.append((evidence, vek))
        if self.answer is None:
            return self.machine.endorse(evidence, now=now)
        return self.answer()


def raising(cause):
    def answer():
        raise cause

    return answer


class Side:
    def __init__(self, world, machine, endorser):
        self.world = replace(world, broker=replace(world.broker, endorser=endorser))
        self.machine = machine
        self.agreement = world.agreement(lambda one: replace(one, platforms=(machine.platform,)))
        self.room = brokers.Room(tpm=None, agreement=self.agreement, audience=world.broker.audience)
        self.nonce = self.world.challenge(self.agreement).nonce

    def request(self, agreement=None, **changes):
        contract = (agreement or self.agreement).contract.digest
        binding = replace(self.room.binding(self.nonce), contract_digest=contract)
        launched = self.machine.launch(contract)
        made = messages.ReleaseRequest(
            nonce=self.nonce,
            contract_digest=contract,
            agreement=(agreement or self.agreement).encode(),
            evidence=launched.evidence(binding),
            keys=self.room.keys,
            role="main",
            csr=None,
        )
        return replace(made, **changes)

    def release(self, request=None):
        return self.world.release((request or self.request()).encode())

    def failed(self, answer):
        assert isinstance(answer, messages.DenialAnswer)
        return {check["name"] for check in answer.verdict["checks"] if not check["ok"]}


@pytest.fixture
def machine():
    return simulated.machine("snp", now=NOW)


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


def test_an_endorsed_room_is_released_and_the_digest_is_recorded(world, machine):
    side = Side(world, machine, asked := Asked(machine))
    answer = side.release()
    assert isinstance(answer, messages.ReleaseAnswer)
    assert len(asked.asked) == 1
    assert answer.endorsements.parts.keys() == {"vek", "issuers", "crl"}
    again = messages.parse_release_answer(answer.encode())
    assert again.endorsements == answer.endorsements


@pytest.mark.parametrize("code", ["vendor-unreachable", "stale", "offline"])
def test_a_vendor_that_does_not_answer_decides_nothing(world, machine, code):
    silent = Side(world, machine, Asked(machine, raising(Unavailable("away", code=code))))
    before = world.store.ledger.size()
    request = silent.request()
    with pytest.raises(Unavailable) as caught:
        silent.release(request)
    assert (caught.value.code, world.store.ledger.size()) == (code, before)
    # The nonce is as it was: the same request is good once the vendor is back.
    silent.world = replace(world, broker=replace(world.broker, endorser=machine))
    assert isinstance(silent.release(request), messages.ReleaseAnswer)


def test_a_vendor_that_takes_too_long_is_not_waited_for(world, machine, monkeypatch):
    monkeypatch.setattr(endorse, "SECONDS", 0.05)
    side = Side(world, machine, Asked(machine, lambda: time.sleep(0.3) or NONE))
    with pytest.raises(Unavailable) as caught:
        side.release()
    assert caught.value.code == "vendor-slow"


@pytest.mark.parametrize(
    "cause",
    [NotFound("no such chip", code="not-published"), Refused("older than seen", code="downgrade", hint="h")],
)
def test_a_machine_that_its_vendor_does_not_know_is_denied_and_that_is_recorded(world, machine, cause):
    side = Side(world, machine, Asked(machine, raising(cause)))
    answer = side.release()
    assert "endorsements.found" in side.failed(answer)
    assert answer.ledger is not None
    entry = record.parse(answer.ledger.entry)
    assert entry.kind is record.RecordKind.DENIAL
    words = answer.words["endorsements.found"]
    assert (words.got, words.hint) == (cause.message, cause.hint)
    kept = next(c for c in entry.body["verdict"]["checks"] if c["name"] == "endorsements.found")
    assert kept["got"] == {"refused": cause.code}
    assert cause.message not in str(entry.body)


def test_where_vendors_are_asked_the_host_does_not_choose_the_age_of_a_list(world):
    """Rule 2: a list that the room brought never stands in for the one that the vendor has now."""
    machine = simulated.machine("snp", now=NOW)
    stale = machine._vendor._chip.endorsements(fault=fake_amd.Fault.CRL_STALE)
    brought = machine.endorse(None, now=NOW)
    side = Side(world, machine, asked := Asked(machine, lambda: stale))
    answer = side.release(side.request(endorsements=brought))
    assert side.failed(answer) == {"evidence.revocation"}
    # Of what came along, the certificate alone was handed on.
    assert asked.asked[0][1] == brought.parts["vek"]


def test_without_an_endorser_what_the_room_brought_is_all_there_is(world, machine):
    side = Side(world, machine, None)
    assert side.failed(side.release()) == {"evidence.parts"}
    other = Side(world, machine, None)
    answer = other.release(other.request(endorsements=machine.endorse(None, now=NOW)))
    assert isinstance(answer, messages.ReleaseAnswer)


def test_nobody_is_asked_where_the_answer_is_no_anyway(world, machine):
    side = Side(world, machine, asked := Asked(machine))
    unsigned = world.agreement(lambda one: replace(one, platforms=(machine.platform,)), signers=("alice",))
    assert "contract.approvals" in side.failed(side.release(side.request(unsigned)))
    other = simulated.machine("tdx", now=NOW).platform
    elsewhere = world.agreement(lambda one: replace(one, id="other", platforms=(other,)))
    side.nonce = side.world.challenge(elsewhere).nonce
    assert side.failed(side.release(side.request(elsewhere)))
    assert asked.asked == []


def test_evidence_that_carries_all_is_asked_nobody_for(world):
    enclave = simulated.machine("nitro", now=NOW)
    side = Side(world, enclave, asked := Asked(enclave))
    launched = enclave.launch(side.agreement.contract.digest)
    launched.hardware.bind_contract(side.agreement.contract.digest)
    request = side.request(evidence=launched.evidence(side.room.binding(side.nonce)))
    assert isinstance(side.release(request), messages.ReleaseAnswer)
    assert asked.asked == []
    # Nor is what nobody asked for let pass.
    again = Side(world, enclave, asked)
    stray = again.request(endorsements=Endorsements(parts={"vek": b"x"}))
    assert again.failed(again.release(stray)) == {"evidence.parts"}


def test_what_would_not_fit_into_the_answer_is_denied_before_a_run_is_used_up(world, machine):
    huge = machine.endorse(None, now=NOW)
    huge = Endorsements(parts=huge.parts | {"crl": bytes(messages.MAX_ENDORSED)})
    side = Side(world, machine, Asked(machine, lambda: huge))
    assert "endorsements.size" in side.failed(side.release())
    assert world.store.runs_by_room() == []
    # What a room brings is bounded with its request.
    with pytest.raises(Malformed) as caught:
        side.release(side.request(endorsements=huge))
    assert caught.value.code == "too-large"


def test_the_largest_endorsements_fit_into_the_answer(world, machine):
    parts = machine.endorse(None, now=NOW).parts
    rest = messages.MAX_ENDORSED - sum(map(len, parts.values()))
    side = Side(world, machine, machine)
    answer = side.release()
    assert isinstance(answer, messages.ReleaseAnswer)
    full = replace(answer, endorsements=Endorsements(parts=parts | {"more": bytes(rest)}))
    assert len(full.encode()) < messages.MAX_ANSWER
    assert messages.parse_release_answer(full.encode()) == full
