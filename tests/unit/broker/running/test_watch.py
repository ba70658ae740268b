"""Watches: a room that waits is told what ended its run, and strangers take no room's place."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from strongroom.broker.administration import pause, series
from strongroom.broker.running import watch as watching
from strongroom.broker.running.receipt import receipt
from strongroom.broker.running.watch import Watches, watch
from strongroom.encoding import fields
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.model.watch import WatchAnswer, WatchRequest, WatchState
from strongroom_testing import brokers


@pytest.fixture
def room(world):
    made = world.room(world.agreement())
    answer = world.release(made.request(world.challenge(made.agreement).nonce))
    made.token = answer.watch
    return made


@pytest.fixture(autouse=True)
def prompt(monkeypatch):
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.01)


def ask(room, **changes):
    return WatchRequest(**{"run_id": room.keys.run_id, "token": room.token, **changes}).encode()


async def waiting(world, watches, room, seconds=30.0):
    task = asyncio.create_task(watches.wait(room.keys.run_id, seconds=seconds))
    await asyncio.sleep(0)  # once: the task takes its place before it waits for anything
    assert room.keys.run_id in watches._waiting
    return task


def test_the_broker_of_another_process_pauses_and_the_room_is_told(world, room, tmp_path):
    async def story():
        watches = Watches(world.broker)
        told = await waiting(world, watches, room)
        await asyncio.sleep(0.05)
        assert not told.done()
        with contextlib.closing(
            brokers.sqlite.open_store(world.directory / brokers.wiring.DATABASE)
        ) as other:
            find = series.of_digest(room.agreement.contract.digest, verb="pause")
            await pause.pause(brokers.replace(world.broker, store=other), find)
        return await asyncio.wait_for(told, 30)

    assert asyncio.run(story()) is WatchState.PAUSED


def test_a_run_that_an_older_copy_does_not_know_keeps_no_other_from_being_told(world, room):
    """Its token is good, the database that was put back has no such run: looking for it ended the look for all."""
    unknown = world.room(room.agreement).keys.run_id

    async def story():
        watches = Watches(world.broker)
        told = await waiting(world, watches, room)
        watches._waiting[unknown] = asyncio.get_running_loop().create_future()
        await asyncio.sleep(0.05)
        assert not watches._polling.done()
        del watches._waiting[unknown]
        find = series.of_digest(room.agreement.contract.digest, verb="pause")
        await pause.pause(world.broker, find)
        return await asyncio.wait_for(told, 10)

    assert asyncio.run(story()) is WatchState.PAUSED


def test_what_has_ended_a_run_is_answered_at_once(world, room):
    body = room.receipt(world.clock.now)
    asyncio.run(receipt(world.broker, body))
    answer = asyncio.run(watch(world.broker, Watches(world.broker), ask(room)))
    assert answer == WatchAnswer(state=WatchState.ENDED, time=world.clock.now)
    assert json.loads(answer.encode()) == {"state": "ended", "time": fields.format_time(world.clock.now)}


def test_a_run_that_stands_is_answered_when_the_time_is_over(world, room):
    watches = Watches(world.broker)
    assert asyncio.run(watches.wait(room.keys.run_id, seconds=0.05)) is WatchState.STANDS
    assert watches._waiting == {}


def test_a_token_of_another_run_or_of_nobody_gets_no_place(world, room):
    other = world.room(room.agreement)
    watches = Watches(world.broker)
    for body in (
        ask(room, token=bytes(32)),
        ask(room, run_id=other.keys.run_id),
        ask(room, run_id=other.keys.run_id, token=bytes(32)),
    ):
        with pytest.raises(Refused, match="not the token of a run that keys were released to"):
            asyncio.run(watch(world.broker, watches, body))
    stranger = world.broker.watch_token(other.keys.run_id)  # of a run that the storage does not know
    with pytest.raises(Refused, match="not the token"):
        asyncio.run(watch(world.broker, watches, ask(room, run_id=other.keys.run_id, token=stranger)))
    assert watches._waiting == {}
    with pytest.raises(Malformed, match="run"):
        asyncio.run(watch(world.broker, watches, b"{}"))


def test_who_comes_again_takes_the_place_of_who_waited(world, room):
    async def story():
        watches = Watches(world.broker)
        first = await waiting(world, watches, room)
        place = watches._waiting[room.keys.run_id]
        second = asyncio.create_task(watches.wait(room.keys.run_id, seconds=30))
        assert await asyncio.wait_for(first, 30) is WatchState.STANDS
        assert watches._waiting[room.keys.run_id] is not place
        watches.close()
        assert await asyncio.wait_for(second, 30) is WatchState.STANDS
        assert (watches._waiting, watches._peers) == ({}, {})
        # Whoever comes while the process ends does not wait.
        assert await watches.wait(room.keys.run_id, seconds=30) is WatchState.STANDS

    asyncio.run(story())


def test_places_are_bounded_for_each_address_and_for_all(world, room, monkeypatch):
    other = world.room(room.agreement)
    other.token = world.release(other.request(world.challenge(room.agreement).nonce)).watch

    async def story(**bounds):
        for name, value in bounds.items():
            monkeypatch.setattr(watching, name, value)
        watches = Watches(world.broker)
        first = await waiting(world, watches, room)
        try:
            with pytest.raises(Unavailable, match="too many rooms wait") as caught:
                await watches.wait(other.keys.run_id, seconds=30)
            assert caught.value.code == "too-many-watches"
        finally:
            watches.close()
            await first

    asyncio.run(story(MOST=1))
    asyncio.run(story(MOST=2, MOST_EACH=1))


def test_a_storage_that_fails_for_a_while_ends_no_wait(world, room):
    class Flaky:
        ledger = None
        sizes = iter((1, None, None, 2))

        def read(self, work):
            return world.store.read(work)

        def size(self):
            size = next(self.sizes, 2)
            if size is None:
                raise Unavailable("broker store: busy")
            return size

    flaky = Flaky()
    flaky.ledger = flaky

    async def story():
        watches = Watches(brokers.replace(world.broker, store=flaky))
        told = await waiting(world, watches, room)
        find = series.of_digest(room.agreement.contract.digest, verb="pause")
        await asyncio.sleep(0.05)
        await pause.pause(world.broker, find)
        flaky.sizes = iter((3,) * 1000)
        return await asyncio.wait_for(told, 30)

    assert asyncio.run(story()) is WatchState.PAUSED


def test_a_later_version_and_a_withdrawal_are_told(world, room):
    from strongroom.broker.administration.withdraw import withdraw
    from strongroom.broker.admit_contract import admit

    first = room.agreement
    second = world.agreement(lambda c: brokers.replace(c, version=2, replaces=first.contract.digest))
    asyncio.run(admit(world.broker, second.encode()))
    state = world.store.read(lambda reading: watching.standing(reading, room.keys.run_id))
    assert state is WatchState.SUPERSEDED
    later = world.room(second)
    world.release(later.request(world.challenge(second).nonce))
    asyncio.run(withdraw(world.broker, second.encode()))
    state = world.store.read(lambda reading: watching.standing(reading, later.keys.run_id))
    assert state is WatchState.WITHDRAWN
