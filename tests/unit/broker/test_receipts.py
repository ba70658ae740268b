"""Receipts: signed by the run's own key, one for each run, appended with a proof."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from strongroom.broker.receipt import receipt
from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.errors import Conflict, Malformed, Refused, Unavailable
from strongroom.ledger import proof
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
