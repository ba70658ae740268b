"""Receipts: signed by the run's own key, one for each run, appended with a proof."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.broker.running.receipt import receipt
from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.errors import Conflict, Malformed, Refused, Unavailable
from strongroom.ledger import proof
from strongroom.ledger.describe import describe_entry
from strongroom.model import receipt as receipt_model
from strongroom.model import record
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm


@pytest.fixture
def room(world):
    agreement = world.agreement()
    made = world.room(agreement)
    world.release(made.request(world.challenge(agreement).nonce))
    return made


def post(world, body):
    return asyncio.run(receipt(world.broker, body))


def test_a_receipt_is_appended_with_its_proof(world, room):
    body = room.receipt(contracts.NOW)
    entry, checkpoint = proof.verify(post(world, body), world.broker.notary.public)
    assert entry.kind is record.RecordKind.RECEIPT
    assert entry.run_id == room.keys.run_id
    assert entry.body == {"envelope": fields.format_data(body)}
    assert checkpoint.size == 2
    assert world.store.runs_by_room() == [(room.agreement.contract.digest, "main", 1, 1)]


def test_the_same_receipt_again_gets_the_same_entry(world, room):
    body = room.receipt(contracts.NOW)
    first, again = post(world, body), post(world, body)
    assert (first.index, first.entry) == (again.index, again.entry)
    assert world.store.ledger.size() == 2


def test_a_second_receipt_of_a_run_is_a_conflict(world, room):
    post(world, room.receipt(contracts.NOW))
    with pytest.raises(Conflict, match="this run has handed in another receipt"):
        post(world, room.receipt(contracts.NOW, exit_status=1))
    assert world.store.ledger.size() == 2


def test_whoever_passes_a_receipt_on_changes_nothing_of_it(world, room):
    """An operator sees it before the broker does: what is recorded first stands, so nothing else may be."""
    body = room.receipt(contracts.NOW)
    envelope, _ = receipt_model.parse_envelope(body)
    (signature,) = envelope.signatures
    named = replace(envelope, signatures=(replace(signature, keyid="APPROVED BY THE AUDITOR"),))
    for other in (b" " + body, named.encode()):
        with pytest.raises(Refused, match="not spelled as rooms spell it"):
            post(world, other)
    assert world.store.ledger.size() == 1
    post(world, body)


def test_a_receipt_by_another_key_is_refused(world, room):
    with pytest.raises(Refused, match="not of a run that keys were released to under that"):
        post(world, room.receipt(contracts.NOW, key=sign.generate()))
    stranger = sign.generate()
    with pytest.raises(Refused, match="not of a run that keys were released to under that"):
        post(world, room.receipt(contracts.NOW, key=stranger, signing_key=stranger.public.raw))
    assert world.store.ledger.size() == 1


def test_a_receipt_of_a_run_without_keys_is_refused(world, room):
    other = world.room(room.agreement)
    with pytest.raises(Refused, match="not of a run"):
        post(world, other.receipt(contracts.NOW))
    with pytest.raises(Refused, match="not of a run that keys were released to under that"):
        post(world, room.receipt(contracts.NOW, run_id=other.keys.run_id))
    with pytest.raises(Refused, match="not of a run that keys were released to under that"):
        post(world, room.receipt(contracts.NOW, contract_digest=fake_tpm.digest("other")))


def test_a_receipt_with_signatures_to_spare_is_refused(world, room):
    envelope, _ = receipt_model.parse_envelope(room.receipt(contracts.NOW))
    padded = replace(envelope, signatures=envelope.signatures * 2).encode()
    with pytest.raises(Refused, match="not of a run that keys were released to under that"):
        post(world, padded)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{}", "key 'payloadType' is missing"),
        (b"\xff", "not JSON"),
        (b'{"payloadType":"x","payload":"","signatures":[]}', "payloadType: expected"),
    ],
)
def test_malformed_receipts(world, body, why):
    with pytest.raises(Malformed, match=why):
        post(world, body)


def test_a_receipt_that_nobody_has_time_for_is_unavailable_and_recorded_nowhere(world, room):
    class Crowded:
        async def run(self, work, *, patient=False):
            raise Unavailable("workers: too many wait")

    crowded = replace(world.broker, workers=Crowded())
    with pytest.raises(Unavailable, match="too many wait"):
        asyncio.run(receipt(crowded, room.receipt(contracts.NOW), peer="192.0.2.7"))
    assert world.store.ledger.size() == 1
    post(world, room.receipt(contracts.NOW))
    assert world.store.ledger.size() == 2


def running(room, sequence, **changes):
    return room.receipt(contracts.NOW, outcome=receipt_model.Outcome.RUNNING, sequence=sequence, **changes)


def test_a_service_hands_in_receipts_of_rising_numbers_until_the_last(world, room):
    first = post(world, running(room, 1))
    assert describe_entry(first.entry) == "receipt 1: running"
    post(world, running(room, 3))  # one in between was lost with its broker
    for late in (running(room, 2), running(room, 3, ended=contracts.NOW), room.receipt(contracts.NOW)):
        with pytest.raises(Conflict, match="expected a number higher than 3") as caught:
            post(world, late)
        assert caught.value.code == "receipt-order"
    assert post(world, running(room, 3)).index == 2  # its answer was lost on the way
    assert world.store.runs_by_room()[0][3] == 0
    last = room.receipt(contracts.NOW, sequence=4)
    assert describe_entry(post(world, last).entry) == "receipt 4, the last: exited, status 0"
    assert world.store.runs_by_room()[0][3] == 1
    for after in (running(room, 5), room.receipt(contracts.NOW, sequence=5)):
        with pytest.raises(Conflict, match="its last one") as caught:
            post(world, after)
        assert caught.value.code == "receipt-exists"
    assert post(world, last).index == 3
    assert world.store.ledger.size() == 4


def test_the_first_and_the_newest_entries_of_a_run_without_end_are_found(world, room):
    for sequence in range(1, 80):  # within what is recorded at once
        post(world, running(room, sequence))
    entries = world.store.ledger.of_run(room.keys.run_id)
    assert [index for index, _ in entries] == [*range(32), *range(48, 80)]


@pytest.mark.parametrize("end", [{"exit_status": 1}, {"details": ("stopped",)}])
def test_a_receipt_of_a_run_that_goes_on_says_nothing_of_an_end(world, room, end):
    with pytest.raises(Malformed, match="of a run that goes on"):
        post(world, running(room, 1, **end))


def test_rule_59_receipts_without_end_are_recorded_as_often_as_rooms_make_them(world, room):
    """Of a simulated room whoever has the machine signs receipts. What a stranger finds in the ledger and hands in again takes nothing from the room."""
    first = running(room, 1)
    for _ in range(2 * world.broker.budgets.reports):
        post(world, first)
    most = world.broker.budgets.reports
    for sequence in range(2, most + 1):
        post(world, running(room, sequence))
    size = world.store.ledger.size()
    with pytest.raises(Unavailable) as caught:
        post(world, running(room, most + 1))
    assert caught.value.code == "too-many-receipts"
    assert world.store.ledger.size() == size
    world.clock.advance(timedelta(seconds=world.broker.budgets.report_seconds))
    post(world, running(room, most + 1))
    post(world, room.receipt(contracts.NOW, sequence=most + 2))  # the last one is never too much
