"""The room's clock: what brokers say the time is, and nothing else (rule 50).

A broker's challenge says its time in whole seconds. It was so at some instant between the request's leaving and the answer's coming, by
the room's monotonic clock. So one challenge makes an interval in which UTC minus monotonic lies (`ClockReading`): as wide as the round trip, and the second that
is not said. The first broker's sets the clock before the program starts; the others' must meet it, or the run is refused (`clocks-differ`).

Each renewal reads again. What is behind is set forward; what is ahead is slowed down by the kernel until it is right, and never set back.
A clock that has left the brokers' time by more than `MAX_DRIFT` ends the room: its host delays or slows it. A challenge that took longer than
`MAX_ROUND_TRIP` says too little, and counts as one that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Refused, Unavailable

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.identifiers import PartyName

RESOLUTION = 1.0  # seconds: brokers say whole ones
APART = 2.0  # seconds by which clocks of brokers may differ beyond what a reading leaves open
MAX_ROUND_TRIP = 30.0
MAX_DRIFT = 10.0


@dataclass(frozen=True, kw_only=True)
class ClockReading:
    """One broker's time. earliest, latest: of UTC (seconds since 1970) minus the monotonic clock (seconds)."""

    party: PartyName
    earliest: float
    latest: float

    @property
    def middle(self) -> float:
        """The best guess, wrong by half of the width at most."""
        return (self.earliest + self.latest) / 2


class SystemClock(Protocol):
    """The kernel's wall clock."""

    def now(self) -> float:
        """Seconds since 1970."""
        ...

    def set(self, seconds: float) -> None:
        """Have the wall clock show that many seconds since 1970."""
        ...

    def slew(self, seconds: float) -> None:
        """Slow the wall clock down until it is behind by so many seconds more than else; what was asked for before is forgotten."""
        ...


def read(party: PartyName, moment: datetime, *, sent: float, heard: float) -> ClockReading:
    """The reading of a challenge: `moment` is the broker's time, `sent` and `heard` are monotonic. Raises `Unavailable`."""
    if not 0 <= heard - sent <= MAX_ROUND_TRIP:
        raise Unavailable(
            f"clock: the challenge of {party}'s broker took {heard - sent:.1f} s, so that its time says too little; expected {MAX_ROUND_TRIP:g} s at most",
            code="clock-unsure",
            hint="the node, its network or the broker is slow; the room asks again where it can",
        )
    seconds = moment.timestamp()
    return ClockReading(party=party, earliest=seconds - heard, latest=seconds + RESOLUTION - sent)


class RoomClock:
    """The room's clock, set by readings. monotonic: seconds, of the same clock as the readings'."""

    def __init__(self, system: SystemClock) -> None:
        self._system = system
        self._first: ClockReading | None = None

    def take(self, reading: ClockReading, *, monotonic: float) -> None:
        """Take the reading of one more broker before the program starts; the first sets the clock. Raises `Refused` (`clocks-differ`)."""
        if self._first is None:
            self._first = reading
            self._system.set(reading.middle + monotonic)
            return
        apart = max(reading.earliest - self._first.latest, self._first.earliest - reading.latest)
        if apart > APART:
            raise Refused(
                f"clock: the broker of {reading.party} is {apart:.1f} s away from that of {self._first.party}, beyond what the round trips explain; expected {APART:g} s at most",
                code="clocks-differ",
                hint="one of the two brokers' machines has a wrong clock: its owner sets it right (NTP)",
            )

    def renew(self, reading: ClockReading, *, monotonic: float) -> float:
        """Anchor the clock again; return by how much it was ahead (seconds; negative: behind), as far as the reading is sure.

        Raises `Refused` (`clock-drift`), and then changes nothing.
        """
        shown = self._system.now() - monotonic
        ahead = max(0.0, shown - reading.latest) - max(0.0, reading.earliest - shown)
        if abs(ahead) > MAX_DRIFT:
            raise Refused(
                f"clock: the room's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} that of {reading.party}'s broker; expected {MAX_DRIFT:g} s at most",
                code="clock-drift",
                hint="the host stopped, delayed or slowed the room, or the broker's clock was set: the room ends",
            )
        if ahead < 0:
            self._system.set(reading.earliest + monotonic)
        self._system.slew(max(0.0, ahead))
        return ahead
