"""What a broker that serves tells its owner as it goes: each new ledger entry, and of all else a sum once in a while.

A stranger at full speed makes no line of its own. What has a line of its own is bounded by what the ledger takes; whatever
left no entry (nonces of nobody, contracts that nobody here signed, denials beyond the budgets, errors) is counted, and
printed as one sum: after a second, and as long as it goes on ever later, up to once a minute. Names in a sum come from closed
sets or from contracts that the broker's own party signed; how many there are is bounded, and so is everything kept here.

Telling happens in a thread of its own: a reader who is slow, or gone, delays no release. What does not fit is counted.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from strongroom.errors import StrongroomError
from strongroom.model import record as record_model
from strongroom.model.identifiers import NO_CONTRACT_ID, ContractId

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model import messages
    from strongroom.model.record import Record

QUEUED = 1024
KINDS = 32  # of what is summed
ADDRESSES = 1024
REMEMBERED = 16_384  # entries that were printed: a receipt that comes again is no news
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=1)
OTHER = "other"
UNREAD = frozenset((record_model.RecordKind.RELEASE, record_model.RecordKind.RENEWAL))
NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A decision or a receipt that is in the ledger. contract_id: empty where it is not known. entry: the leaf's bytes."""

    peer: str
    contract_id: ContractId
    entry: bytes
    index: int

    def record(self) -> Record:
        """The entry; of a release or renewal without its body, which stays unread: those come as fast as the broker can make them."""
        heading = record_model.heading(self.entry)
        return heading if heading.kind in UNREAD else record_model.parse(self.entry)


@dataclass(frozen=True, kw_only=True)
class RequestKind:
    """What requests without an entry have in common. reason: the failed check, or the code of the error."""

    request: str
    contract_id: ContractId
    reason: str


@dataclass(frozen=True, kw_only=True)
class Summed:
    """Requests that left no entry. addresses: how many there were, as far as counted; busiest: of them. untold: lines lost."""

    since: datetime
    until: datetime
    kinds: tuple[tuple[RequestKind, int], ...]
    addresses: int
    busiest: tuple[tuple[str, int], ...]
    untold: int

    @property
    def requests(self) -> int:
        """How many."""
        return sum(count for _, count in self.kinds)


Event = Recorded | Summed


def _nobody(_event: Event) -> None:
    """Nothing is printed."""


class RequestLog:
    """Safe among threads. clock: as the broker's. size: of the ledger when it begins: what stands there is no news."""

    def __init__(
        self,
        tell: Callable[[Event], None] = _nobody,
        *,
        clock: Callable[[], datetime] = lambda: NEVER,
        size: int = 0,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._size = size
        self._lock = threading.Lock()
        self._events: queue.Queue[Recorded | None] = queue.Queue(QUEUED)
        self._noted: OrderedDict[int, None] = OrderedDict()
        self._wait = SHORTEST
        self._clear()
        self._thread: threading.Thread | None = None
        if tell is not _nobody:
            self._thread = threading.Thread(target=self._serve, name="request-log", daemon=True)
            self._thread.start()

    def recorded(
        self, proof: messages.LedgerProof, *, request: str, peer: str, contract_id: ContractId
    ) -> None:
        """Print an entry, unless it was printed before: whoever sends a recorded receipt again is counted."""
        with self._lock:
            known = proof.index < self._size or proof.index in self._noted
            if not known:
                self._noted[proof.index] = None
                while len(self._noted) > REMEMBERED:
                    self._size = max(self._size, self._noted.popitem(last=False)[0] + 1)
        if known:
            self.counted(request=request, reason="recorded-before", peer=peer, contract_id=contract_id)
            return
        try:
            self._events.put_nowait(
                Recorded(peer=peer, contract_id=contract_id, entry=proof.entry, index=proof.index)
            )
        except queue.Full:
            with self._lock:
                self._untold += 1

    def counted(
        self, *, request: str, reason: str, peer: str, contract_id: ContractId = NO_CONTRACT_ID
    ) -> None:
        """Count a request that left no entry."""
        kind = RequestKind(request=request, contract_id=contract_id, reason=reason)
        with self._lock:
            if not self._kinds:
                self._since = self._clock()
            if kind not in self._kinds and len(self._kinds) >= KINDS:
                kind = RequestKind(request=OTHER, contract_id=NO_CONTRACT_ID, reason=OTHER)
            self._kinds[kind] += 1
            if peer in self._peers or len(self._peers) < ADDRESSES:
                self._peers[peer] += 1

    def due(self, now: datetime, *, last: bool = False) -> Summed | None:
        """The sum, when it is time for one, or the last time. Each begins anew."""
        with self._lock:
            quiet = not self._kinds and not self._untold
            if quiet or (not last and now - self._since < self._wait):
                if quiet and now - self._since >= 2 * self._wait:
                    self._wait = SHORTEST
                return None
            summed = Summed(
                since=self._since,
                until=now,
                kinds=tuple(self._kinds.most_common()),
                addresses=len(self._peers),
                busiest=tuple(self._peers.most_common(3)),
                untold=self._untold,
            )
            self._wait = min(LONGEST, 2 * self._wait)
            self._clear(now)
            return summed

    def close(self) -> None:
        """Tell what is left, as far as somebody listens, and end."""
        if self._thread is not None:
            try:
                self._events.put_nowait(None)
            except queue.Full:
                return  # nobody reads: there is no sense in waiting for them
            self._thread.join(2.0)

    def _clear(self, now: datetime = NEVER) -> None:
        self._since = now
        self._kinds: Counter[RequestKind] = Counter()
        self._peers: Counter[str] = Counter()
        self._untold = 0

    def _serve(self) -> None:
        while True:
            event: Recorded | None = None
            ended = False
            try:
                event = self._events.get(timeout=SHORTEST.total_seconds() / 2)
                ended = event is None
            except queue.Empty:
                pass
            if event is not None:
                self._say(event)
            if (summed := self.due(self._clock(), last=ended)) is not None:
                self._say(summed)
            if ended:
                return

    def _say(self, event: Event) -> None:
        try:
            self._tell(event)
        except Exception:  # noqa: BLE001 - one entry that cannot be shown silences none of those after it
            with self._lock:
                self._untold += 1


def answered(
    log: RequestLog,
    answer: messages.ReleaseAnswer | messages.DenialAnswer,
    *,
    peer: str,
    contract_id: ContractId = NO_CONTRACT_ID,
) -> None:
    """Tell or count what a release request was answered with. contract_id: of the one that it named."""
    if answer.ledger is not None:
        log.recorded(answer.ledger, request="release", peer=peer, contract_id=contract_id)
        return
    reason = next((str(check["name"]) for check in answer.verdict["checks"] if not check["ok"]), OTHER)
    log.counted(request="release", reason=reason, peer=peer, contract_id=contract_id)


def failed(
    log: RequestLog, failure: Exception, *, request: str, peer: str, contract_id: ContractId = NO_CONTRACT_ID
) -> None:
    """Count a request that was answered with an error."""
    reason = failure.code if isinstance(failure, StrongroomError) else "defect"
    log.counted(request=request, reason=reason, peer=peer, contract_id=contract_id)
