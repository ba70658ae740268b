"""A broker: what its use cases need, in one value. Time, randomness and storage come from outside."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from strongroom.acme.exchange import Exchange
from strongroom.acme.nonces import ReplayNonces
from strongroom.acme.tokens import TokenMaker
from strongroom.broker import own_party
from strongroom.broker.budgets import Denials, Failures, RunShares
from strongroom.broker.nonces import PURPOSE, NonceMaker
from strongroom.broker.request_log import RequestLog
from strongroom.broker.workers import Workers
from strongroom.encoding import framed
from strongroom.model.identifiers import NO_CONTRACT_ID, ContractDigest, ContractId, RoomName

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.authority.roots import Authority
    from strongroom.broker.budgets import Budgets
    from strongroom.broker.log_signer import Notary
    from strongroom.broker.ports import Endorser, Known, Store
    from strongroom.crypto.aead import AtRest
    from strongroom.model.identifiers import RunId
    from strongroom.model.party import Party

ACME = "acme"
DISK_KEY = "disk-key"  # purpose under which disks' keys are encrypted at rest
WATCH = "watch"  # purpose of the key that watch tokens are made with
_WATCH_LABEL = "strongroom/watch/1"


class Agreements:
    """Agreements that passed the gate (`own_party.read`), by the digest of their exact bytes; the least recently used ones go.

    most: bytes of them in all. roots: of the party's authority, by digest (`own_party`). Nothing else is kept: what strangers send takes no room here. Safe among threads.
    """

    __slots__ = ("_held", "_ids", "_kept", "_lock", "_most", "_roots")

    def __init__(self, most: int, roots: frozenset[str] = frozenset()) -> None:
        self._roots = roots
        self._kept: OrderedDict[bytes, tuple[int, own_party.GateVerdict]] = OrderedDict()
        self._ids: dict[ContractDigest, ContractId] = {}
        self._held = 0
        self._most = most
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How many bytes of agreements are kept."""
        return self._held

    def read(self, data: bytes, own: Party) -> own_party.GateVerdict:
        """As `own_party.read`, which an exact repetition need not do twice. Raises `Malformed`."""
        key = hashlib.sha256(data).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][1]
        reading = own_party.read(data, own, roots=self._roots)
        if reading.agreement is not None:
            self._keep(key, len(data), reading)
            self._ids[reading.contract_digest] = reading.agreement.contract.id
        return reading

    def id_of(self, contract_digest: ContractDigest) -> ContractId:
        """The id of a contract that is kept, by the digest of its bytes; empty for any other."""
        return self._ids.get(contract_digest, NO_CONTRACT_ID)

    def _keep(self, key: bytes, size: int, reading: own_party.GateVerdict) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = (size, reading)
                self._held += size
            while self._held > self._most:
                _, (gone, dropped) = self._kept.popitem(last=False)
                self._held -= gone
                self._ids.pop(dropped.contract_digest, None)


class RecentContracts:
    """What the storage said last of contracts that keys were released under, by their digests; the oldest ones go.

    Good to prepare an acceptance with, which the transaction compares with what the storage says then; never to deny by:
    it may have changed since. most: contracts' rooms. Safe among threads.
    """

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int = 1024) -> None:
        self._kept: dict[tuple[ContractDigest, RoomName], tuple[Known, int]] = {}
        self._most = most

    def last(self, contract_digest: ContractDigest, room: RoomName) -> tuple[Known, int] | None:
        """What was known when keys were last released to this room of that contract, and how many runs were used then."""
        return self._kept.get((contract_digest, room))

    def keep(self, contract_digest: ContractDigest, room: RoomName, known: Known, runs_used: int) -> None:
        """Remember `known`. Called by the event loop alone."""
        self._kept.pop((contract_digest, room), None)
        self._kept[(contract_digest, room)] = (known, runs_used)
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]


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
    endorser: Endorser | None = None
    workers: Workers = field(default_factory=Workers)
    request_log: RequestLog = field(default_factory=RequestLog)

    @cached_property
    def nonces(self) -> NonceMaker:
        """The nonces of this broker and its replicas."""
        return NonceMaker(self.at_rest.mac_key(PURPOSE))

    @cached_property
    def _watch_key(self) -> bytes:
        return self.at_rest.mac_key(WATCH)

    def watch_token(self, run_id: RunId) -> bytes:
        """32 bytes by which a room shows that the run is its own, where a signature would cost more. Any replica knows them."""
        return hmac.digest(self._watch_key, framed.join(_WATCH_LABEL, run_id.encode()), "sha256")

    @cached_property
    def acme(self) -> Exchange:
        """The resources of ACME."""
        key = self.at_rest.mac_key(ACME)
        address = self.party.broker
        return Exchange(
            base=f"{'' if address is None else address.url.rstrip('/')}/acme",
            tokens=TokenMaker(key),
            nonces=ReplayNonces(key, random=self.random),
            random=self.random,
        )

    @cached_property
    def agreements(self) -> Agreements:
        """Agreements that passed the gate."""
        return Agreements(self.budgets.agreement_bytes, self.authority.digests)

    @cached_property
    def seen(self) -> RecentContracts:
        """What was last known of contracts that keys were released under."""
        return RecentContracts()

    @cached_property
    def denials(self) -> Denials:
        """Which denials are recorded."""
        return Denials(self.budgets)

    @cached_property
    def runs(self) -> RunShares:
        """How often what a run asks for is recorded."""
        return RunShares(self.budgets)

    @cached_property
    def failures(self) -> Failures:
        """Whose requests have to wait behind everybody else's."""
        return Failures(self.budgets)

    @cached_property
    def lists(self) -> dict[str, tuple[tuple[tuple[int, datetime], ...], datetime, bytes]]:
        """Revocation lists that were asked for last, by whose they are (`certificates.standing`): entries, when made, DER."""
        return {}
