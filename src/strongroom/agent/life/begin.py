"""A service's life, made of what the room has when its program starts: brokers to renew at, tokens to watch with, receipts to number."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from strongroom.agent import attest, finish, program
from strongroom.agent.life import clock as clocks
from strongroom.agent.life.schedule import Renewals, VerdictSpan
from strongroom.agent.life.service import ServiceLife
from strongroom.agent.life.watcher import Watcher
from strongroom.errors import StrongroomError
from strongroom.model.receipt import Outcome
from strongroom.model.watch import WatchRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strongroom.agent.channel import Channel
    from strongroom.agent.life.clock import RoomClock
    from strongroom.model.contracts.room_terms import RoomTerms, ServiceTerms
    from strongroom.model.identifiers import PartyName
    from strongroom.model.room.agreed import Terms
    from strongroom.model.room.channel import Start


@dataclass(kw_only=True)
class LivingRoom:
    """What a service has and renews. latest: by party, in the order in which they were asked. sequence: of the newest receipt.

    on_renewed: called with a party's name once its broker has renewed; on_all: with what all of them said, once all have; on_failure: once for renewals that fail in a row.
    """

    channel: Channel
    attester: attest.Attester
    start: Start
    terms: Terms
    keys: attest.Keys
    clock: RoomClock
    latest: dict[PartyName, attest.Released]
    on_renewed: Callable[[PartyName], None]
    on_failure: Callable[[], None]
    on_all: Callable[[Sequence[attest.Released]], None]
    began: float
    sequence: int = 0

    def begin(self, terms: ServiceTerms, *, watchdog: Callable[[], None]) -> ServiceLife:
        """The service, from now on. watchdog: called at each step."""
        own, first = self.terms.room, next(iter(self.latest.values()))
        watches: list[Watcher] = []
        service = ServiceLife(
            Renewals(_span(tuple(self.latest.values()), own), renewal_seconds=terms.renewal_seconds),
            not_after=first.heard + (self.terms.contract.limits.not_after - first.moment).total_seconds(),
            renew=lambda: self._renew(service),
            watches=watches,
            controls=self.channel.take_controls,
            clock=time.monotonic,
            on_failure=self.on_failure,
            watchdog=watchdog,
        )
        for party in self.latest:
            address = self.terms.contract.party(party).broker
            if address is not None:
                watches.append(
                    Watcher(
                        self.channel.carrier,
                        party,
                        address,
                        request=partial(self._watch_request, party),
                        ended=service.hear_state,
                    )
                )
        return service

    def _watch_request(self, party: PartyName) -> bytes:
        token = self.latest[party].answer.watch
        return WatchRequest(run_id=self.keys.public.run_id, token=token).encode()

    def _renew(self, service: ServiceLife) -> VerdictSpan:
        """Attest at every broker, anchor the clock, and report. Raises as `attest.attest` and `RoomClock.renew`."""
        self.channel.must_hurry = service.must_hurry
        certificate = self.terms.room.certificate
        if certificate is not None:
            self.keys = attest.with_new_tls_key(self.keys, certificate.key)
        try:
            for party in self.latest:
                renewal = attest.attest(
                    self.channel,
                    self.attester,
                    self.start,
                    self.terms.contract,
                    self.terms.room,
                    self.keys,
                    party,
                    None,
                )
                self.clock.renew(reading(renewal), monotonic=time.monotonic())
                self.latest[party] = renewal
                self.on_renewed(party)
            self.on_all(tuple(self.latest.values()))
            self._report()
        finally:
            self.channel.must_hurry = lambda: False
        return _span(tuple(self.latest.values()), self.terms.room)

    def _report(self) -> None:
        """An interim receipt, at every broker. One that does not record it has the next one; the renewal itself is recorded there."""
        self.sequence += 1
        now = time.monotonic()
        goes_on = program.Ended(
            outcome=Outcome.RUNNING, exit_status=0, details=(), started=self.began, ended=now
        )
        first = next(iter(self.latest.values()))
        receipt = finish.make_receipt(self.terms, goes_on, (), first, sequence=self.sequence)
        envelope = finish.sign_receipt(receipt, self.keys)
        for party in self.latest:
            with contextlib.suppress(StrongroomError):
                finish.post_one(self.channel, self.terms.contract, party, envelope)


def reading(released: attest.Released) -> clocks.ClockReading:
    """What a broker's challenge says of the time. Raises `Unavailable` where it took too long."""
    return clocks.read(released.party, released.moment, sent=released.asked, heard=released.heard)


def _span(released: Sequence[attest.Released], own: RoomTerms) -> VerdictSpan:
    verdict_end = min(release.verdict_end for release in released)
    since = min(release.heard for release in released)
    certificate = own.certificate
    return VerdictSpan(
        since=since,
        verdict_end=verdict_end,
        certificate_end=verdict_end if certificate is None else since + certificate.lifetime_seconds,
    )
