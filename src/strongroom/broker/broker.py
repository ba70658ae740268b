"""A broker: what its use cases need, in one value. Time, randomness and storage come from outside."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.broker import own_party

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.authority.issue import Authority
    from strongroom.broker.endorse import Endorser
    from strongroom.broker.notary import Notary
    from strongroom.broker.storage import Store
    from strongroom.crypto.aead import AtRest
    from strongroom.model.party import Party

DISK_KEY = "disk-key"


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What strangers may use up.

    open_challenges: nonces that wait to be used. denials: how many denials in a row are recorded in
    the ledger; `denial_seconds`: after how long one more is. A denial beyond that is answered, and
    its nonce used up, but not recorded.
    """

    nonce_lifetime: timedelta = timedelta(seconds=120)
    open_challenges: int = 65_536
    verdict_lifetime: timedelta = timedelta(hours=24)
    denials: int = 1_000
    denial_seconds: float = 1.0


class Allowance:
    """A token bucket: `capacity` at once, one more every `seconds`."""

    __slots__ = ("_capacity", "_left", "_seconds", "_since")

    def __init__(self, capacity: int, seconds: float) -> None:
        self._capacity = capacity
        self._left = float(capacity)
        self._seconds = seconds
        self._since: datetime | None = None

    def take(self, now: datetime) -> bool:
        """Whether one may be used now; if so it is."""
        if self._since is not None:
            earned = (now - self._since).total_seconds() / self._seconds
            self._left = min(float(self._capacity), self._left + max(0.0, earned))
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Agreements:
    """Agreements that passed the gate, by the digest of their exact bytes; the least recently used one goes.

    Nothing else is kept: what strangers send takes no room here.
    """

    __slots__ = ("_kept", "_limit")

    def __init__(self, limit: int = 64) -> None:
        self._kept: OrderedDict[bytes, own_party.Reading] = OrderedDict()
        self._limit = limit

    def read(self, data: bytes, own: Party) -> own_party.Reading:
        """As `own_party.read`, which an exact repetition need not do twice. Raises `Malformed`."""
        key = hashlib.sha256(data).digest()
        found = self._kept.pop(key, None) or own_party.read(data, own)
        if found.agreement is None:
            return found
        self._kept[key] = found
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return found


@dataclass(frozen=True, kw_only=True)
class Broker:
    """An owner's broker.

    party: the owner's public part. audience: the pin of the broker's TLS key, which evidence for it
    is bound to. clock: UTC; it must never go back. random: from the operating system. endorser: None where no
    vendor is to be asked: then only evidence that carries all that it takes is ever good.
    """

    party: Party
    audience: str
    store: Store
    clock: Callable[[], datetime]
    random: Callable[[int], bytes]
    at_rest: AtRest = field(repr=False)
    authority: Authority
    notary: Notary
    budgets: Budgets
    denials: Allowance
    agreements: Agreements = field(default_factory=Agreements)
    endorser: Endorser | None = None
