"""A service's room with two real brokers: from its keys over renewals to its last receipt. Disks and program are stood in for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from strongroom.agent import program, room
from strongroom.broker.administration import pause, series
from strongroom.errors import Refused
from strongroom.model import record
from strongroom.model.contracts.room_terms import Restart, ServiceTerms
from strongroom.model.receipt import Outcome
from strongroom_testing.contracts import changed


def serving(contract):
    return changed(contract, wall_seconds=0, service=ServiceTerms(renewal_seconds=60, restart=Restart.NEVER))


def lives(script):
    """A program of a service, beside which `script(service, life)` is called at every turn of the room's loop."""

    def run(channel, terms, released, keys, guard, reads, progress):
        progress.started = time.monotonic()
        service = progress.life.begin(terms.room.service, watchdog=lambda: None)
        deadline = time.monotonic() + 60
        while service.ending is None and time.monotonic() < deadline:
            script(service, progress.life)
            wait = service.step()
            if service.ending is None:
                channel.carrier.turn(min(wait, 0.02))
        for watch in service._watches:
            watch.close()
        graceful = bool(service.ending.grace)
        return program.Ended(
            outcome=Outcome.EXITED if graceful else Outcome.KILLED,
            exit_status=0 if graceful else 9,
            details=(service.ending.detail,),
            started=progress.started,
            ended=time.monotonic(),
        )

    return run


def renewing(house, times, then=lambda service, life: None):
    """Have the room renew so often, one after the other, and then do `then`."""

    def script(service, life):
        if life.sequence < times:
            service._renewals.due = 0.0
        else:
            then(service, life)

    return script


def stop(house):
    return lambda service, life: house.node.control(kind="stop")


def entries(house, party):
    ledger, before = house.world.owners[party].broker.store.ledger, house.before[party]
    return [record.parse(leaf) for leaf in ledger.leaves(before, ledger.size() - before)]


def test_a_service_renews_at_every_broker_and_signs_numbered_receipts_until_its_last(house, monkeypatch):
    monkeypatch.setattr(room, "_run", lives(renewing(house, 2, stop(house))))
    house.live(serving)
    for party in ("alice", "bob"):
        kinds = [entry.kind.value for entry in entries(house, party)]
        assert kinds == ["release", *["renewal", "receipt"] * 2, "receipt"], party
        receipts = house.receipts()[party]
        assert [(one.sequence, one.outcome) for one in receipts] == [
            (1, Outcome.RUNNING),
            (2, Outcome.RUNNING),
            (3, Outcome.EXITED),
        ]
        assert receipts[-1].details == ("stopped",)
        runs = {entry.run_id for entry in entries(house, party)}
        assert len(runs) == 1
    phases = [one["name"] for one in house.node.controls if one.get("kind") == "phase"]
    assert [name for name in phases if name.startswith("renew")] == ["renewed:alice", "renewed:bob"] * 2
    assert house.left() == ["out-0.tar.age"]


def test_any_party_pauses_a_room_which_ends_by_its_watch_alone_and_nothing_leaves(house, monkeypatch):
    paused = []

    def script(service, life):
        if not paused and time.monotonic() - life.began > 0.5:
            paused.append(time.monotonic())
            broker = house.world.owners["bob"].broker
            find = series.of_digest(life.terms.contract.digest, verb="pause")
            asyncio.run(pause.pause(broker, find))

    monkeypatch.setattr(room, "_run", lives(script))
    house.live(serving)
    for party in ("alice", "bob"):
        assert [entry.kind.value for entry in entries(house, party) if entry.run_id][-1] == "receipt"
        (receipt,) = house.receipts()[party]
        assert (receipt.outcome, receipt.details, receipt.outputs) == (Outcome.KILLED, ("paused",), ())
    assert house.left() == []


def test_a_broker_that_refuses_a_renewal_ends_the_room(house, monkeypatch):
    house.twists["bob", "/v1/renewals"] = lambda status, answer: (
        403,
        b'{"error":{"code":"x","message":"no","hint":""}}',
    )
    monkeypatch.setattr(room, "_run", lives(renewing(house, 1)))
    house.live(serving)
    (receipt,) = house.receipts()["alice"]
    assert receipt.details == ("renewal-refused",)
    assert house.left() == []


def test_a_renewal_that_is_no_renewal_does_not_count(house, monkeypatch):
    """A broker that answers with the proof of another entry, say the release's, has renewed nothing."""
    first = {}

    def keep(status, answer):
        first["answer"] = answer
        return status, answer.encode()

    house.twists["alice", "/v1/releases"] = keep
    house.twists["alice", "/v1/renewals"] = lambda status, answer: (
        200,
        replace(answer, ledger=first["answer"].ledger).encode(),
    )
    monkeypatch.setattr(room, "_run", lives(renewing(house, 1)))
    house.live(serving)
    assert house.receipts()["bob"][0].details == ("renewal-refused",)


def test_rule_50_the_clock_is_the_brokers_before_the_program_starts_and_again_at_renewals(house, monkeypatch):
    shown = []

    def script(service, life):
        if not shown:
            shown.append(house.wall.shown)
            house.wall.shown -= 5.0
        renewing(house, 1, stop(house))(service, life)

    monkeypatch.setattr(room, "_run", lives(script))
    house.live(serving)
    now = house.world.owners["alice"].broker.clock().timestamp()
    assert abs(shown[0] - now) < 60
    assert abs(house.wall.shown - shown[0]) < 4


def test_rule_50_brokers_whose_clocks_differ_start_no_program(house, monkeypatch):
    def late(status, answer):
        from datetime import timedelta

        return status, replace(answer, time=answer.time + timedelta(hours=1)).encode()

    house.twists["bob", "/v1/challenges"] = late
    with pytest.raises(Refused, match="away from that of alice") as caught:
        house.live()
    assert caught.value.code == "clocks-differ"
    for party in ("alice", "bob"):
        assert [one.outcome for one in house.receipts()[party]] == [Outcome.NOT_STARTED]


def test_rule_50_a_clock_that_drifted_ends_the_room(house, monkeypatch):
    def script(service, life):
        house.wall.shown = time.monotonic() + life.clock._first.middle + 3600
        renewing(house, 1)(service, life)

    monkeypatch.setattr(room, "_run", lives(script))
    house.live(serving)
    assert house.receipts()["alice"][0].details == ("clock-drift",)
    assert house.left() == []
