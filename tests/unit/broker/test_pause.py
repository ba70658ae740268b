"""Pauses: of a contract or a room, in every version, recorded, and taken back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from strongroom.broker.administration import pause, series
from strongroom.broker.administration.status import status
from strongroom.broker.admit_contract import admit
from strongroom.broker.running.renewal import renewal
from strongroom.broker.standing import standing
from strongroom.errors import Conflict, NotFound, Refused
from strongroom.ledger import proof
from strongroom.ledger.describe import describe
from strongroom.model import messages, record
from strongroom_testing import brokers
from strongroom_testing.contracts import changed
from tests.unit.broker.denials import failed


def act(world, agreement, verb="pause", room=None):
    find = series.of_file(world.broker, agreement.encode(), verb=verb, room=room)
    proved = asyncio.run(getattr(pause, verb)(world.broker, find, room=room))
    return proof.verify(proved, world.broker.notary.public)[0]


def test_a_paused_contract_is_released_by_no_worker_until_it_is_resumed(tmp_path):
    with brokers.world(tmp_path) as one, brokers.world(tmp_path) as owner:
        agreement = one.agreement()
        assert isinstance(one.ask(agreement), messages.ReleaseAnswer)
        entry = act(owner, agreement)
        assert (entry.kind, entry.contract_digest) == (record.RecordKind.PAUSE, agreement.contract.digest)
        assert describe(entry) == "flights paused, in every version: nothing is released or renewed"
        for worker in (one, owner):
            assert failed(worker.ask(agreement))[0] == "contract.paused"
        entry = act(owner, agreement, "resume")
        assert entry.kind is record.RecordKind.RESUMPTION
        assert describe(entry) == "flights goes on: released and renewed again"
        assert isinstance(one.ask(agreement), messages.ReleaseAnswer)


def test_a_pause_of_a_contract_that_nobody_has_run_counts(world):
    agreement = world.agreement(signers=())
    act(world, agreement)
    assert failed(world.ask(world.agreement()))[0] == "contract.paused"


def test_a_paused_room_is_that_room_alone(world):
    agreement = world.agreement()
    entry = act(world, agreement, room="main")
    assert describe(entry) == "room main of flights paused, in every version: nothing is released or renewed"
    known = status(world.store).contracts[0]
    assert (known.paused, known.to_json()["paused"]) == (True, True)
    assert failed(world.ask(agreement))[0] == "contract.paused"
    entry = act(world, agreement, "resume", room="main")
    assert describe(entry) == "room main of flights goes on: released and renewed again"
    find = series.of_digest(agreement.contract.digest, verb="pause")
    asyncio.run(
        pause.pause(world.broker, find, room="other")
    )  # by digest: which rooms there are is not known
    assert isinstance(world.ask(agreement), messages.ReleaseAnswer)
    assert isinstance(world.ask(agreement), messages.ReleaseAnswer)  # by what was remembered of the first
    assert status(world.store).contracts[0].paused is False


def test_a_pause_lasts_through_later_versions_and_withdrawals(world):
    first = world.agreement()
    world.ask(first)
    act(world, first)
    second = world.agreement(lambda c: replace(c, version=2, replaces=first.contract.digest))
    asyncio.run(admit(world.broker, second.encode()))
    assert failed(world.ask(second))[0] == "contract.paused"
    act(world, second, "resume")
    assert isinstance(world.ask(second), messages.ReleaseAnswer)


def test_standing_says_it(world):
    agreement = world.agreement()
    act(world, agreement)
    asked = messages.StandingRequest(agreement=agreement.encode(), room="main")
    checks = asyncio.run(standing(world.broker, asked.encode())).checks
    assert [check.name for check in checks if not check.ok] == ["contract.paused"]


def test_what_is_paused_already_or_not_at_all_is_said(world):
    agreement = world.agreement()
    with pytest.raises(NotFound, match="the contract is not paused") as unknown:
        act(world, agreement, "resume")
    assert unknown.value.code == "not-paused"
    act(world, agreement)
    with pytest.raises(Conflict, match="the contract is paused already") as again:
        act(world, agreement)
    assert again.value.code == "contract-paused"
    with pytest.raises(NotFound, match="room main is not paused by itself"):
        act(world, agreement, "resume", room="main")
    act(world, agreement, room="main")
    with pytest.raises(Conflict, match="room main is paused already"):
        act(world, agreement, room="main")
    act(world, agreement, "resume")  # of all that was paused
    assert isinstance(world.ask(agreement), messages.ReleaseAnswer)
    assert world.store.ledger.size() == 4


def test_a_room_that_the_contract_lacks_and_a_contract_of_others_are_not_paused(world):
    with pytest.raises(NotFound, match="flights has no room web") as missing:
        act(world, world.agreement(), room="web")
    assert missing.value.code == "no-room"
    with pytest.raises(Refused, match="alice owns no disk of flights"):
        act(world, world.agreement(lambda c: changed(c, datasets=())))
    assert world.store.ledger.size() == 0


def test_a_pause_revokes_the_certificates_of_its_rooms_those_of_renewals_too(world):
    agreement = world.agreement()
    room = world.room(agreement)
    world.release(room.request(world.challenge(agreement).nonce, names=brokers.NAMES))
    renewed = room.request(world.challenge(agreement).nonce, names=brokers.NAMES)
    asyncio.run(renewal(world.broker, renewed))
    act(world, agreement, room="main")
    revoked = world.store.read(
        lambda state: state.certificates.revoked_leaves(agreement.contract.digest, now=world.clock.now)
    )
    assert [leaf.run_id for leaf in revoked] == [room.keys.run_id] * 2
