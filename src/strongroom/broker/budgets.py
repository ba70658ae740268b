"""What strangers may use up, and the counters that hold them to it. All of it is bounded memory of one process."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.model.identifiers import NO_CONTRACT, ContractDigest

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.identifiers import RunId


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """How much of what.

    denials: how many denials in a row are recorded in the ledger; `denial_seconds`: after how long one more is.
    denials_each, denial_each_seconds: the same for each contract and each peer address. A denial beyond any of them
    is answered and not recorded. failures, failure_seconds: how many requests of an address may fail before its
    further ones have to wait behind everybody else's. failures_each, failure_each_seconds: the same under one contract
    from wherever, for all but the addresses that rooms under it were released to before. agreement_bytes: of agreements kept, parsed. reports, report_seconds: how many renewals of a run, and how many of its receipts
    but the last, are recorded at once, and after how long one more is. certificates: how many its program gets by ACME at once, and then one more each time that an eighth of
    their life has gone.
    """

    nonce_lifetime: timedelta = timedelta(seconds=120)
    verdict_lifetime: timedelta = timedelta(hours=24)
    denials: int = 1_000
    denial_seconds: float = 1.0
    denials_each: int = 200
    denial_each_seconds: float = 5.0
    failures: int = 60
    failure_seconds: float = 1.0
    failures_each: int = 240
    failure_each_seconds: float = 0.25
    agreement_bytes: int = 4 * 1024 * 1024
    reports: int = 100
    report_seconds: float = 15.0
    certificates: int = 64


class Allowance:
    """A token bucket: `capacity` at once, one more every `seconds`."""

    __slots__ = ("_capacity", "_left", "_seconds", "_since")

    def __init__(self, capacity: int, seconds: float) -> None:
        self._capacity = capacity
        self._left = float(capacity)
        self._seconds = seconds
        self._since: datetime | None = None

    def left(self, now: datetime) -> bool:
        """Whether one may be used now."""
        if self._since is not None:
            earned = (now - self._since).total_seconds() / self._seconds
            self._left = min(float(self._capacity), self._left + max(0.0, earned))
        self._since = now
        return self._left >= 1

    def take(self, now: datetime) -> bool:
        """Whether one may be used now; if so it is."""
        if not self.left(now):
            return False
        self._left -= 1
        return True


class Allowances:
    """An allowance for each of many names. The name that was asked for longest ago is forgotten, and its allowance is whole again."""

    __slots__ = ("_capacity", "_kept", "_most", "_seconds")

    def __init__(self, capacity: int, seconds: float, *, most: int = 4096) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._most = most
        self._kept: OrderedDict[str, Allowance] = OrderedDict()

    def allowance(self, name: str, *, seconds: float | None = None) -> Allowance:
        """The allowance of that name. seconds: for one more, where it is another time than for the others."""
        allowance = self._kept.pop(name, None) or Allowance(
            self._capacity, self._seconds if seconds is None else seconds
        )
        self._kept[name] = allowance
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return allowance


class Denials:
    """Which denials are recorded: so many of one contract, of one address, and of all."""

    __slots__ = ("_all", "_contracts", "_peers")

    def __init__(self, budgets: Budgets) -> None:
        self._all = Allowance(budgets.denials, budgets.denial_seconds)
        self._contracts = Allowances(budgets.denials_each, budgets.denial_each_seconds)
        self._peers = Allowances(budgets.denials_each, budgets.denial_each_seconds)

    def take(self, now: datetime, *, contract_digest: ContractDigest, peer: str) -> bool:
        """Whether one more may be recorded. One that may not takes nothing from the others' budget."""
        own = (self._contracts.allowance(contract_digest), self._peers.allowance(peer))
        return (
            all(allowance.left(now) for allowance in own)
            and self._all.take(now)
            and all(allowance.take(now) for allowance in own)
        )


class RunShares:
    """How often a run's own requests are recorded, each of which makes the ledger longer: a room that lives has them without end, and of a simulated one whoever
    has the machine makes as many as they like.
    """

    __slots__ = ("_certificates", "_receipts", "_renewals")

    def __init__(self, budgets: Budgets) -> None:
        self._renewals = Allowances(budgets.reports, budgets.report_seconds)
        self._receipts = Allowances(budgets.reports, budgets.report_seconds)
        self._certificates = Allowances(budgets.certificates, 1.0)

    def renews(self, run_id: RunId, now: datetime) -> bool:
        """Whether one more renewal may be recorded, which has proved itself."""
        return self._renewals.allowance(run_id).take(now)

    def reports(self, run_id: RunId, now: datetime) -> bool:
        """Whether one more receipt may be that is not the last, signed by the run."""
        return self._receipts.allowance(run_id).take(now)

    def certified(self, run_id: RunId, now: datetime, *, lifetime_seconds: float) -> bool:
        """Whether its program may have one more certificate by ACME."""
        return self._certificates.allowance(run_id, seconds=lifetime_seconds / 8).take(now)


class Failures:
    """Whose requests go to the patient thread: of addresses that keep failing, and under contracts that keep failing.

    Whoever holds a genuine contract can send junk under it from many addresses. That slows down addresses which nothing
    was released to yet under that contract; the others stay prompt.
    """

    __slots__ = ("_contracts", "_known", "_most", "_peers")

    def __init__(self, budgets: Budgets, *, most: int = 4096) -> None:
        self._peers = Allowances(budgets.failures, budgets.failure_seconds)
        self._contracts = Allowances(budgets.failures_each, budgets.failure_each_seconds)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._most = most

    def failed(self, now: datetime, *, peer: str) -> None:
        """Count a failure of `peer`."""
        self._peers.allowance(peer).take(now)

    def failed_under(self, contract_digest: ContractDigest, now: datetime) -> None:
        """Count a failure under a contract that the broker's own party signed: nobody else's counts for anything."""
        self._contracts.allowance(contract_digest).take(now)

    def released(self, *, peer: str, contract_digest: ContractDigest) -> None:
        """Remember that a room behind `peer` had its keys. The pairs longest ago are forgotten."""
        self._known.pop((contract_digest, peer), None)
        self._known[contract_digest, peer] = None
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def patient(self, now: datetime, *, peer: str, contract_digest: ContractDigest = NO_CONTRACT) -> bool:
        """Whether a request has to wait behind everybody else's. contract_digest: of that which keys are asked for under, if they are."""
        if not self._peers.allowance(peer).left(now):
            return True
        if not contract_digest or (contract_digest, peer) in self._known:
            return False
        return not self._contracts.allowance(contract_digest).left(now)
