"""What ends a service, and how; when it attests again. With a clock, brokers and a node that are arguments."""

from __future__ import annotations

import json

import pytest

from strongroom.agent.life import service as services
from strongroom.agent.life.schedule import Renewals, VerdictSpan
from strongroom.agent.life.service import ServiceLife
from strongroom.agent.program import Ending
from strongroom.errors import Malformed, PolicyDenied, Refused, Unavailable
from strongroom.model.receipt import DETAILS
from strongroom.model.verdict import Check
from strongroom.model.watch import WatchState

STOP = Ending(detail="stopped", grace=services.GRACE_SECONDS)


class Watch:
    def __init__(self) -> None:
        self.steps, self.closed = [], False

    def step(self, now):
        self.steps.append(now)
        return now + 20.0

    def close(self):
        self.closed = True


class House:
    """A service whose verdict lasts 1000 s and whose renewals are due each 60 s. answers: what renewals raise, or None for success."""

    def __init__(self, *answers, not_after=10_000.0):
        self.now, self.answers, self.controls, self.notes = 0.0, list(answers), [], []
        self.watch, self.renewals, self.took = Watch(), [], 0.0
        self.service = ServiceLife(
            Renewals(self.standing(), renewal_seconds=60.0),
            not_after=not_after,
            renew=self.renew,
            watches=[self.watch],
            controls=self.take,
            clock=lambda: self.now,
            on_failure=lambda: self.notes.append(self.now),
        )

    def standing(self):
        return VerdictSpan(since=self.now, verdict_end=self.now + 1000.0, certificate_end=self.now + 600.0)

    def take(self):
        taken, self.controls = self.controls, []
        return [json.dumps(one).encode() for one in taken]

    def renew(self):
        self.renewals.append(self.now)
        self.now += self.took
        answer = self.answers.pop(0) if self.answers else None
        if callable(answer):
            answer = answer(self)
        if answer is not None:
            raise answer
        return self.standing()

    def lives(self, until):
        """Step as the room's loop does, until that second or the end."""
        while self.service.ending is None and self.now < until:
            wait = self.service.step()
            self.now += 0.0 if self.service.ending else max(wait, 0.01)
        return self.service.ending


def denied(*names):
    checks = tuple(Check.judged(name, expected="a", got="b", ok=False) for name in names)
    return PolicyDenied("denied", verdict=checks)


def test_an_idle_service_attests_again_by_the_clock():
    house = House()
    assert house.lives(400.0) is None
    assert [round(moment) for moment in house.renewals] == [60, 120, 180, 240, 300, 360]
    assert house.watch.steps


def test_the_nodes_stop_gives_the_program_a_bounded_time():
    house = House()
    house.controls.append({"kind": "stop"})
    assert house.lives(400.0) == STOP
    assert house.watch.closed


def test_a_message_that_is_no_stop_ends_the_room():
    house = House()
    house.controls.append({"kind": "go"})
    with pytest.raises(Malformed, match="kind"):
        house.service.step()


def test_the_contracts_end_stops_it():
    assert House(not_after=100.0).lives(400.0) == STOP


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        (WatchState.PAUSED, "paused"),
        (WatchState.WITHDRAWN, "paused"),
        (WatchState.SUPERSEDED, "paused"),
        (WatchState.ENDED, "renewal-refused"),
    ],
)
def test_what_a_broker_says_kills_it_at_once_also_while_it_stops(state, detail):
    house = House()
    house.controls.append({"kind": "stop"})
    house.service.step()
    house.service.hear_state(state)
    assert house.service.ending == Ending(detail=detail)
    assert House().service.ending is None


def test_a_run_that_stands_goes_on():
    house = House()
    house.service.hear_state(WatchState.STANDS)
    assert house.service.ending is None


@pytest.mark.parametrize(
    ("cause", "detail"),
    [
        (denied("contract.paused"), "paused"),
        (denied("contract.withdrawn"), "paused"),
        (denied("contract.version", "platform.reference"), "paused"),
        (denied("platform.tcb.snp"), "renewal-refused"),
        (denied("run.released"), "renewal-refused"),
        (Refused("no", code="wrong-pin"), "renewal-refused"),
        (Refused("no", code="clock-drift"), "clock-drift"),
    ],
)
def test_a_renewal_that_is_refused_kills_it_at_once(cause, detail):
    house = House(cause)
    assert house.lives(400.0) == Ending(detail=detail)
    assert len(house.renewals) == 1
    assert detail in DETAILS


@pytest.mark.parametrize(
    "cause",
    [Unavailable("down"), Malformed("odd"), denied("nonce.fresh"), Unavailable("late", code="clock-unsure")],
)
def test_a_renewal_that_fails_is_tried_again_and_heals_by_itself(cause):
    house = House(cause, cause, cause)
    assert house.lives(200.0) is None
    assert [round(moment) for moment in house.renewals] == [60, 62, 66, 74, 134, 194]
    assert len(house.notes) == 1


def test_without_its_brokers_it_ends_when_the_verdict_does():
    """Fail closed: the certificate ended before, and the room tried to the end."""
    house = House(*[Unavailable("down")] * 1000)
    assert house.lives(2000.0) == Ending(detail="renewal-overdue")
    assert 1000.0 <= house.now < 1002.0
    assert len(house.renewals) > 15
    assert house.notes == [pytest.approx(60.0)]


def test_a_stop_during_a_renewal_makes_it_give_up():
    def stopped(house):
        assert not house.service.must_hurry()
        house.controls.append({"kind": "stop"})
        assert house.service.must_hurry()
        return Unavailable("the room is to end", code="stopped")

    house = House(stopped)
    assert house.lives(400.0) == STOP
    assert len(house.renewals) == 1


def test_a_pause_during_a_renewal_that_is_refused_for_it_is_a_pause():
    def paused(house):
        house.service.hear_state(WatchState.PAUSED)
        return denied("run.released")

    assert House(paused).lives(400.0) == Ending(detail="paused")


def test_a_slow_renewal_counts_from_its_end():
    house = House(Unavailable("slow"))
    house.took = 80.0
    house.lives(150.0)
    assert house.renewals[0] == pytest.approx(60.0, abs=1)
    assert house.renewals[1] == pytest.approx(142.0, abs=1)


def test_a_renewal_that_waits_gives_up_when_the_verdict_or_the_contract_ends():
    for not_after, end in ((10_000.0, 1000.0), (500.0, 500.0)):
        house = House(not_after=not_after)
        house.now = end - 1
        assert not house.service.must_hurry()
        house.now = end
        assert house.service.must_hurry()
        house.service.step()
        assert house.service.ending is not None
