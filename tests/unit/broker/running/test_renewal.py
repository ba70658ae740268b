"""Renewals: a run attests again. All that a release asks, no keys, and nothing is counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from strongroom.broker.administration import pause, series
from strongroom.broker.administration.remove_key import remove_key
from strongroom.broker.administration.withdraw import withdraw
from strongroom.broker.admit_contract import admit
from strongroom.broker.running.receipt import receipt
from strongroom.broker.running.renewal import renewal
from strongroom.crypto import tls
from strongroom.errors import Unavailable
from strongroom.ledger import proof
from strongroom.model import binding, messages, record
from strongroom_testing import brokers
from strongroom_testing.brokers import NAMES
from strongroom_testing.vendors.fake_tpm import Fault
from tests.unit.broker.denials import failed


def renewed(world, room, **changes):
    nonce = world.challenge(room.agreement).nonce
    return asyncio.run(renewal(world.broker, room.request(nonce, **changes)))


@pytest.fixture
def room(world):
    made = world.room(world.agreement(runs=1))
    released = world.release(made.request(world.challenge(made.agreement).nonce, names=NAMES))
    assert isinstance(released, messages.ReleaseAnswer)
    return made


def test_a_renewal_is_recorded_and_has_a_certificate_and_no_keys(world, room):
    world.clock.advance(timedelta(minutes=5))
    room.tls = tls.generate()  # a new key with each certificate, if the room likes
    room.keys = binding.RoomKeys(signing=room.keys.signing, tls=room.tls.spki, kem=room.keys.kem)
    answer = renewed(world, room, names=NAMES)
    assert answer.sealed == b""
    entry, _ = proof.verify(answer.ledger, world.broker.notary.public)
    assert (entry.kind, entry.run_id, entry.body["disks"]) == (
        record.RecordKind.RENEWAL,
        room.keys.run_id,
        [],
    )
    certificate = x509.load_der_x509_certificate(answer.certificates[0])
    assert certificate.not_valid_after_utc == world.clock.now + timedelta(seconds=600)
    assert answer.watch == world.broker.watch_token(room.keys.run_id)


def test_the_last_run_of_a_contract_is_renewed_as_often_as_it_asks_and_counts_once(world, room):
    for _ in range(3):
        assert isinstance(renewed(world, room), messages.ReleaseAnswer)
    assert world.store.runs_by_room() == [(room.agreement.contract.digest, "main", 1, 0)]
    assert failed(world.ask(room.agreement))[0] == "contract.runs"


def test_a_renewal_is_judged_again_from_its_entry(world, room):
    """The runs that it was judged with are in the entry: of the others alone."""
    answer = renewed(world, room)
    entry, _ = proof.verify(answer.ledger, world.broker.notary.public)
    assert entry.body["judged"]["runs_used"] == 0
    runs = next(check for check in entry.body["verdict"]["checks"] if check["name"] == "contract.runs")
    assert (runs["got"], runs["ok"]) == (0, True)


def test_only_a_run_that_keys_were_released_to_is_renewed(world, room):
    assert failed(renewed(world, world.room(room.agreement)))[0] == "run.released"
    other = world.agreement(lambda c: replace(c, id="other"))
    moved = world.room(other)
    moved.signing, moved.keys = room.signing, replace(moved.keys, signing=room.keys.signing)
    assert failed(renewed(world, moved))[0] == "run.released"


def test_a_release_is_no_renewal_and_a_renewal_no_release(world, room):
    assert failed(world.release(room.request(world.challenge(room.agreement).nonce)))[0] == "run.unique"


def test_a_run_that_has_ended_is_not_renewed(world, room):
    asyncio.run(receipt(world.broker, room.receipt(world.clock.now)))
    answer = renewed(world, room)
    assert failed(answer)[0] == "run.released"
    assert next(check for check in answer.verdict["checks"] if not check["ok"])["got"] == "ended"


def test_a_nonce_renews_once(world, room):
    body = room.request(world.challenge(room.agreement).nonce)
    assert isinstance(asyncio.run(renewal(world.broker, body)), messages.ReleaseAnswer)
    assert failed(asyncio.run(renewal(world.broker, body)))[0] == "nonce.fresh"


def test_evidence_that_no_longer_holds_ends_the_renewals(world, room):
    assert failed(renewed(world, room, fault=Fault.OTHER_NONCE))[0].startswith("evidence.")
    world.clock.now = room.agreement.contract.limits.not_after
    assert failed(renewed(world, room))[0] == "contract.validity"


@pytest.mark.parametrize(
    ("end", "check"),
    [
        (lambda w, a: withdraw(w.broker, a.encode()), "contract.withdrawn"),
        (lambda w, a: admit(w.broker, _second(w, a).encode()), "contract.version"),
        (lambda w, a: remove_key(w.broker, brokers.manifest_digest(w.disk)), "keys.present"),
        (
            lambda w, a: pause.pause(w.broker, series.of_file(w.broker, a.encode(), verb="pause")),
            "contract.paused",
        ),
    ],
)
def test_what_the_owner_ends_is_not_renewed(world, room, end, check):
    asyncio.run(end(world, room.agreement))
    assert failed(renewed(world, room))[0] == check


def _second(world, agreement):
    return world.agreement(lambda c: replace(c, version=2, replaces=agreement.contract.digest), runs=1)


def test_a_last_receipt_between_preparing_and_deciding_counts(world, room, monkeypatch):
    """The transaction decides: a run that ended a moment before is not renewed."""
    from strongroom.broker import request_checks

    check, asked = request_checks.check, []

    def checking(ask, state):
        made = check(ask, state)
        if not asked:
            asked.append(1)
            asyncio.run(receipt(world.broker, room.receipt(world.clock.now)))
        return made

    monkeypatch.setattr(request_checks, "check", checking)
    assert failed(renewed(world, room))[0] == "run.released"
    assert asked


def test_a_storage_that_fails_renews_nothing(world, room):
    class Full:
        def __getattr__(self, name):
            return getattr(world.store, name)

        async def write(self, work):
            raise Unavailable("broker store: the disk is full")

    full = replace(world.broker, store=Full())
    with pytest.raises(Unavailable, match="the disk is full"):
        asyncio.run(renewal(full, room.request(world.challenge(room.agreement).nonce)))
    assert world.store.ledger.size() == 1


def test_rule_59_renewals_without_end_are_recorded_as_often_as_rooms_ask(world, room):
    """Each is an entry for good. Whoever has the machine of a simulated room can make evidence as often as they like, and whoever has the
    network of any room can have it ask again.
    """
    broker = replace(world.broker, budgets=replace(world.broker.budgets, reports=3))

    def again():
        return asyncio.run(renewal(broker, room.request(world.challenge(room.agreement).nonce)))

    for _ in range(3):
        assert isinstance(again(), messages.ReleaseAnswer)
    size = world.store.ledger.size()
    with pytest.raises(Unavailable) as caught:
        again()
    assert caught.value.code == "too-many-renewals"
    assert world.store.ledger.size() == size
    world.clock.advance(timedelta(seconds=broker.budgets.report_seconds))
    assert isinstance(again(), messages.ReleaseAnswer)
