"""What a broker asks of its storage. `store` implements it; tests may too.

The one promise that everything rests on: `Store.write` runs its work alone (no other writer, in this
process or another, is between its reads and its commit) and returns only after the commit is durable.
When it raises, nothing of that work is stored.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from strongroom.ledger import tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence
    from strongroom.model.identifiers import ContractDigest, ContractId, ManifestDigest, RoomName, RunId

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


ALL_ROOMS = "*"  # no room's name


class NonceUse(enum.StrEnum):
    """How a nonce stood when it was to be used."""

    FRESH = "fresh"  # it is used now
    USED = "used"  # before, by whoever shares the storage
    ENDED = "ended"  # by the clock of whoever shares the storage


@dataclass(frozen=True, kw_only=True)
class Series:
    """The versions of one contract. owners: a digest over the keys of those who own its disks."""

    id: ContractId
    owners: str


@dataclass(frozen=True, kw_only=True)
class KnownVersion:
    """The highest version seen of a series. runs: how many it permits, None where nobody remembered. withdrawn: the series is.

    paused: names of rooms that the owner has paused, of every version; `ALL_ROOMS` among them: each of them.
    """

    version: int
    digest: ContractDigest
    runs: int | None = None
    withdrawn: bool = False
    paused: frozenset[str] = frozenset()

    def is_paused(self, room: RoomName) -> bool:
        """Whether that room is."""
        return not self.paused.isdisjoint((room, ALL_ROOMS))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that keys were released to. Indices are places in the ledger.

    receipt: of the last one, which ended the run; None: it goes on. sequence: the highest number of a receipt, 0 before the first;
    latest: where that one is, None before it.
    """

    run_id: RunId
    contract_digest: ContractDigest
    room: RoomName
    signing_key: bytes
    release: int
    receipt: int | None
    sequence: int = 0
    latest: int | None = None


@dataclass(frozen=True, kw_only=True)
class KnownDisk:
    """A disk of the owner. `sealed_key` is encrypted at rest; None for a disk without encryption."""

    manifest_digest: ManifestDigest
    cipher: str
    sealed_key: bytes | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Committed(Generic[T_co]):
    """What a work returned, and the ledger's size in a durable state that includes that work."""

    value: T_co
    size: int


class Nonces(Protocol):
    """Nonces that were used. Among all who share the storage each counts once, and none after its end."""

    def use(self, nonce: bytes, *, expires: datetime, now: datetime) -> NonceUse:
        """Use the nonce up. It stays known until `expires`, and is refused as ended from then on."""

    def used(self, nonce: bytes) -> bool:
        """Whether the nonce is known as used. False decides nothing: `use` does."""


class Clock(Protocol):
    """The latest time that anybody who shares the storage has known. It never goes back."""

    def reach(self, now: datetime) -> datetime:
        """Remember `now` as a time that was, and return the latest time remembered, in whole seconds."""


class Contracts(Protocol):
    """The version chain of each series."""

    def highest(self, series: Series) -> KnownVersion | None:
        """The highest version seen."""

    def raise_to(self, series: Series, version: KnownVersion) -> None:
        """Remember a version as the highest. The caller has checked that it is not lower, and the series not withdrawn."""

    def withdraw(self, series: Series, version: KnownVersion) -> None:
        """Remember that the series is withdrawn, for ever. version: what to remember where nothing is known of it."""

    def pause(self, series: Series, version: KnownVersion) -> None:
        """Remember which rooms of the series are paused: `version.paused`. version: what to remember of it else, where nothing is known."""

    def of_digest(self, contract_digest: ContractDigest) -> Series | None:
        """The series whose highest known version has that digest."""


class Runs(Protocol):
    """Runs, each once, and how many each room of a contract has used."""

    def used(self, contract_digest: ContractDigest, room: RoomName) -> int:
        """How many runs of that room were released under the contract of that digest."""

    def add(self, run: Run) -> None:
        """Count a run. Two runs can not get the same place in the count."""

    def find(self, run_id: RunId) -> Run | None:
        """The run of that name."""

    def report(self, run_id: RunId, *, receipt: int, sequence: int, is_last: bool) -> None:
        """Remember where the run's newest receipt stands. The caller has checked that its number is higher, and the run not ended."""


class Disks(Protocol):
    """The owner's disks and their keys, encrypted at rest."""

    def find(self, manifest_digest: ManifestDigest) -> KnownDisk | None:
        """The disk of that manifest digest."""

    def put(self, disk: KnownDisk) -> None:
        """Remember a disk, or replace what was known of it."""

    def remove(self, manifest_digest: ManifestDigest) -> None:
        """Forget a disk, and its key."""

    def every(self) -> Sequence[KnownDisk]:
        """All disks."""


@dataclass(frozen=True, kw_only=True)
class IssuedLeaf:
    """A certificate that was issued to a run. `revoked` None: not."""

    serial: int
    contract_digest: ContractDigest
    room: RoomName
    run_id: RunId
    not_after: datetime
    revoked: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class IssuedIssuer:
    """The issuer of a contract's certificates, below the root of that digest. certificate: DER. `revoked` None: not."""

    contract_digest: ContractDigest
    root: str
    certificate: bytes
    serial: int
    not_after: datetime
    revoked: datetime | None = None


class Certificates(Protocol):
    """Certificates that have not ended, and which of them were revoked. Those that have ended are forgotten."""

    def add(self, leaf: IssuedLeaf, issuer: IssuedIssuer) -> None:
        """Remember a leaf that is about to leave, and who issued it."""

    def find(self, serial: int) -> IssuedLeaf | None:
        """The leaf with that serial number."""

    def issuer(self, contract_digest: ContractDigest) -> IssuedIssuer | None:
        """The issuer of that contract's leaves, once there was one."""

    def revoke(self, contract_digest: ContractDigest, room: RoomName | None, *, now: datetime) -> int:
        """Revoke every leaf of a room, or of all rooms for None; return how many were not revoked before."""

    def revoke_issuer(self, contract_digest: ContractDigest, *, now: datetime) -> None:
        """Revoke the contract's issuer, if there was one."""

    def revoked_leaves(self, contract_digest: ContractDigest, *, now: datetime) -> Sequence[IssuedLeaf]:
        """The contract's revoked leaves that would still be good, by serial number."""

    def revoked_issuers(self, root: str, *, now: datetime) -> Sequence[IssuedIssuer]:
        """The revoked issuers below a root that would still be good, by serial number."""


class Staged(Protocol):
    """The broker's file as a rotation has made it, until it is in its place."""

    def put(self, settings: bytes) -> None:
        """Remember the file."""

    def clear(self) -> None:
        """Forget the file: it is in its place."""

    def belong(self, keys: str) -> None:
        """Remember the keys that everything here is of, instead of others."""


class Ledger(Protocol):
    """The ledger. Leaves are never changed nor removed."""

    def size(self) -> int:
        """How many leaves there are."""

    def leaves(self, start: int, count: int) -> Sequence[bytes]:
        """The bytes of leaves start … start+count-1, those just appended too; shorter only at the end of the ledger."""

    def append(self, entry: bytes, *, run_id: RunId) -> int:
        """Append a leaf; return its index."""


class Reading(Protocol):
    """What is committed, read outside any transaction: good to prepare a decision with, not to decide."""

    @property
    def nonces(self) -> Nonces:
        """Used nonces."""

    @property
    def contracts(self) -> Contracts:
        """Version chains."""

    @property
    def runs(self) -> Runs:
        """Runs."""

    @property
    def disks(self) -> Disks:
        """Disks and their keys."""

    @property
    def certificates(self) -> Certificates:
        """Certificates that were issued."""


class Transaction(Reading, Protocol):
    """Everything that one work may read and change, all or nothing."""

    @property
    def clock(self) -> Clock:
        """The latest time known."""

    @property
    def ledger(self) -> Ledger:
        """The ledger."""

    @property
    def staged(self) -> Staged:
        """The broker's file after a rotation."""


class LedgerView(tiles.Leaves, Protocol):
    """The committed ledger, read outside any transaction. Safe from any thread."""

    def size(self) -> int:
        """How many leaves are durable."""

    def total(self, start: int, count: int) -> int:
        """How many bytes leaves start … start+count-1 have together. Reads none of them."""

    def of_run(self, run_id: RunId) -> Sequence[tuple[int, bytes]]:
        """Index and bytes of the run's leaves, in order."""


class Store(Protocol):
    """A broker's storage."""

    @property
    def ledger(self) -> LedgerView:
        """The committed ledger."""

    def read(self, work: Callable[[Reading], T]) -> T:
        """What `work` reads of the committed state; it must change nothing. From any thread. Raises `Unavailable`."""

    async def write(self, work: Callable[[Transaction], T]) -> Committed[T]:
        """Run `work` in a transaction. Raises what `work` raises, or `Unavailable`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that the checks take from the storage.

    version: the highest of the contract's series. run: the one of this room's name. disks: of those that keys would be
    released for, the ones that are known.
    """

    version: KnownVersion | None
    run: Run | None
    disks: tuple[KnownDisk, ...]


class Endorser(Protocol):
    """Where endorsements come from. Safe among threads; may take as long as a vendor does."""

    def endorse(self, evidence: Evidence, *, now: datetime, vek: bytes | None) -> Endorsements:
        """All that verifying `evidence` takes; `vek` is a certificate that came with it.

        Raises `Unavailable`, or `NotFound`, `Refused`, `Malformed` when there will be none for this evidence.
        """
        ...
