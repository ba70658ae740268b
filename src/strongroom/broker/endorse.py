"""The endorsements that a release is judged with: what its room brought along, and what vendors say.

Vendors are asked before the release's transaction, in a thread: no vendor's slowness holds up the database or anybody else's
release. Nobody makes a broker ask vendors but a room under a contract that this broker's owner approved, and that
names this kind of TEE; how often is bounded by the library of statements behind `Endorser`. Of what the
room brought for its processor the certificate (`vek`) counts alone where vendors are asked: it must not be the host
who chooses how old a list of revocations may be. What it brought for attached devices is taken along.

  a vendor cannot be reached, or is behind       `Unavailable`: nothing is decided, nothing recorded, the nonce stays
  it does not know this machine, or was lied     a failed check `endorsements.found`: a denial that is recorded
  about
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.appraisal.checks import listed
from strongroom.appraisal.terms import check_terms
from strongroom.errors import Malformed, NotFound, Refused, Unavailable
from strongroom.model import check_names, messages
from strongroom.model.endorsements import SELF_CONTAINED, Endorsements
from strongroom.model.verdict import Check, Words

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.broker.broker import Broker
    from strongroom.broker.parsed_request import ParsedRequest

SECONDS = 40.0
VEK = "vek"
_DEVICE = "device-"
_SOURCE = "docs/endorsements.md, In a broker"
_EXPECTED = "what the hardware's vendor says of it, current and signed"


@dataclass(frozen=True, kw_only=True)
class Endorsed:
    """Endorsements, and the checks that getting them made: none where nothing was asked."""

    endorsements: Endorsements
    checks: tuple[Check, ...] = ()


def brought(broker: Broker, ask: ParsedRequest) -> Endorsed | None:
    """What the room brought, where that is all that there will be; None where vendors are to be asked."""
    endorser, evidence = broker.endorser, ask.request.evidence
    # Without an endorser nobody can be asked; and what will be denied is worth no vendor's time.
    if endorser is None or evidence.tee in SELF_CONTAINED or not _worth_asking(ask, broker.clock()):
        return _bounded(Endorsed(endorsements=ask.request.endorsements))
    return None


async def fetched(broker: Broker, ask: ParsedRequest) -> Endorsed:
    """What the vendors say, where `brought` is None. Raises `Unavailable`."""
    return _bounded(await _fetched(broker, ask))


def _bounded(endorsed: Endorsed) -> Endorsed:
    size = sum(map(len, endorsed.endorsements.parts.values()))
    if size <= messages.MAX_ENDORSED:
        return endorsed
    # Asked before anything is decided: a release whose answer the room could not take would use up its run.
    check = Check.failed(check_names.ENDORSEMENTS_SIZE, expected=messages.MAX_ENDORSED, got=size)
    return Endorsed(endorsements=endorsed.endorsements, checks=(*endorsed.checks, check))


async def _fetched(broker: Broker, ask: ParsedRequest) -> Endorsed:
    evidence, brought = ask.request.evidence, ask.request.endorsements
    endorser, now = broker.endorser, broker.clock()
    if endorser is None:
        return Endorsed(endorsements=brought)
    devices = {name: part for name, part in brought.parts.items() if name.startswith(_DEVICE)}
    vek = brought.parts.get(VEK)
    try:
        async with asyncio.timeout(SECONDS):
            endorsements = await asyncio.to_thread(endorser.endorse, evidence, now=now, vek=vek)
    except TimeoutError:
        raise Unavailable(
            f"endorsements: nothing complete came within {SECONDS:g} s",
            code="vendor-slow",
            hint="try again: what has come meanwhile is kept",
        ) from None
    except (NotFound, Refused, Malformed) as cause:
        words = Words(expected=_EXPECTED, got=cause.message[:400], hint=cause.hint, source=_SOURCE)
        check = Check.failed(
            check_names.ENDORSEMENTS_FOUND, expected="current", got={"refused": cause.code}, words=words
        )
        return Endorsed(endorsements=brought, checks=(check,))
    check = Check.passed(
        check_names.ENDORSEMENTS_FOUND, expected="current", got=listed(sorted(endorsements.parts))
    )
    return Endorsed(endorsements=Endorsements(parts={**devices, **endorsements.parts}), checks=(check,))


def _worth_asking(ask: ParsedRequest, now: datetime) -> bool:
    if ask.request.evidence.tee not in {platform.tee for platform in ask.contract.platforms}:
        return False
    return all(check.ok for check in check_terms(ask.agreement, now=now, runs_used=0))
