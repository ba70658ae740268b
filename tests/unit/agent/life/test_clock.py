"""Rule 50: a room's time is its brokers', whatever its host says or delays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from strongroom.agent.life import clock
from strongroom.agent.life.clock import RoomClock
from strongroom.errors import Refused, Unavailable

NOON = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)


class Fake:
    """A machine: true time and its monotonic clock pass together; its wall clock is what was set, and slews."""

    def __init__(self, *, wall: datetime, monotonic: float = 100.0) -> None:
        self.monotonic = monotonic
        self.wall = wall.timestamp()
        self.set_to: list[float] = []
        self.slewing = 0.0

    def now(self) -> float:
        return self.wall

    def set(self, seconds: float) -> None:
        self.set_to.append(seconds - self.wall)
        self.wall = seconds

    def slew(self, seconds: float) -> None:
        self.slewing = seconds

    def passes(self, seconds: float, *, slowed: float = 0.0) -> None:
        """slowed: by how much of it the host keeps the guest from noticing."""
        self.monotonic += seconds - slowed
        self.wall += seconds - slowed


def heard(machine, true, *, there=0.1, back=0.1, party="alice"):
    """A challenge at true time `true`: the request takes `there` seconds, the answer `back`."""
    sent = machine.monotonic
    machine.passes(there + back)
    said = (true + timedelta(seconds=there)).replace(microsecond=0)
    return clock.read(party, said, sent=sent, heard=machine.monotonic)


def wrong_by(machine, true, since):
    return machine.wall - (true + timedelta(seconds=machine.monotonic - since)).timestamp()


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
@pytest.mark.parametrize(("there", "back"), [(0.0, 0.0), (0.1, 2.0), (2.0, 0.1)])
def test_rule_50_the_first_broker_sets_the_clock_however_far_off_it_was(there, back, fraction):
    for years in (-1, 1, 30):
        machine = Fake(wall=NOON + timedelta(days=365 * years))
        true, since = NOON + timedelta(seconds=fraction), machine.monotonic
        reading = heard(machine, true, there=there, back=back)
        RoomClock(machine).take(reading, monotonic=machine.monotonic)
        assert abs(wrong_by(machine, true, since)) <= (there + back + 1) / 2 + 1e-6


def test_rule_50_brokers_that_differ_beyond_their_round_trips_are_refused():
    for apart, refused in ((1.0, False), (-1.0, False), (4.3, True), (-4.3, True), (3600.0, True)):
        machine = Fake(wall=NOON)
        room = RoomClock(machine)
        room.take(heard(machine, NOON), monotonic=machine.monotonic)
        other = heard(machine, NOON + timedelta(seconds=0.2 + apart), party="bob")
        if not refused:
            room.take(other, monotonic=machine.monotonic)
            continue
        with pytest.raises(Refused, match=r"broker of bob is .* away from that of alice") as caught:
            room.take(other, monotonic=machine.monotonic)
        assert caught.value.code == "clocks-differ"
    assert len(machine.set_to) == 1


def test_rule_50_a_slow_broker_makes_no_wrong_time_and_a_very_slow_one_none():
    machine = Fake(wall=NOON)
    with pytest.raises(Unavailable, match=r"took 31\.0 s") as caught:
        heard(machine, NOON, there=0.5, back=30.5)
    assert caught.value.code == "clock-unsure"
    with pytest.raises(Unavailable, match="too little"):
        clock.read("alice", NOON, sent=5.0, heard=4.0)


def room_at(true):
    machine = Fake(wall=true + timedelta(days=365))
    room = RoomClock(machine)
    room.take(heard(machine, true), monotonic=machine.monotonic)
    return machine, room


def test_rule_50_a_clock_that_is_right_is_left_alone():
    machine, room = room_at(NOON)
    machine.passes(3600)
    assert room.renew(heard(machine, NOON + timedelta(seconds=3600.2)), monotonic=machine.monotonic) == 0
    assert (len(machine.set_to), machine.slewing) == (1, 0.0)


def test_rule_50_a_guest_that_was_paused_is_set_forward():
    machine, room = room_at(NOON)
    machine.passes(3600, slowed=5)
    ahead = room.renew(heard(machine, NOON + timedelta(seconds=3600.2)), monotonic=machine.monotonic)
    assert -6 < ahead < -3
    assert machine.set_to[-1] == pytest.approx(-ahead)


def test_rule_50_a_clock_that_is_ahead_is_slowed_and_never_set_back():
    machine, room = room_at(NOON)
    machine.passes(3600, slowed=-5)
    ahead = room.renew(heard(machine, NOON + timedelta(seconds=3600.2)), monotonic=machine.monotonic)
    assert 3 < ahead < 6
    assert (len(machine.set_to), machine.slewing) == (1, ahead)
    assert all(step > 0 for step in machine.set_to[1:])


@pytest.mark.parametrize("slowed", [20.0, -20.0, 3500.0])
def test_rule_50_a_guest_that_is_slowed_or_rushed_beyond_the_bound_ends(slowed):
    machine, room = room_at(NOON)
    machine.passes(3600, slowed=slowed)
    reading = heard(machine, NOON + timedelta(seconds=3600.2))
    with pytest.raises(Refused, match="that of alice's broker; expected 10 s at most") as caught:
        room.renew(reading, monotonic=machine.monotonic)
    assert caught.value.code == "clock-drift"
    assert (len(machine.set_to), machine.slewing) == (1, 0.0)


def test_rule_50_a_delayed_answer_hides_no_more_than_its_delay():
    """Who delays an answer by d hides a drift of d at most, and is not listened to beyond `MAX_ROUND_TRIP`."""
    machine, room = room_at(NOON)
    machine.passes(3600, slowed=100)
    reading = heard(machine, NOON + timedelta(seconds=3600.2), there=0.1, back=29.0)
    with pytest.raises(Refused, match="behind that of alice"):
        room.renew(reading, monotonic=machine.monotonic)
