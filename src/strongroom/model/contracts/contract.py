"""The contract: everything that the parties agree on, in one JSON document.

It is hashed and signed as exact bytes; this file parses those bytes strictly (unknown, duplicate
and missing keys are refused; empty means no) and never re-serialises what it was given.

::

    {"format": "strongroom-contract/2",
     "id": name, "version": 1.., "replaces": null | digest of the version before,
     "parties": [{"name", "role", "signing_key", "recipient", "broker"}],
     "rooms": [{"name", "image", "datasets", "outputs", …}],                     `room_terms` has them
     "disclosure": {"output_sizes": "exact" | "power-of-two", "exit_status": "exact" | "zero-or-one"},
     "receipts": {"wait_seconds": 0..86400},
     "platforms": [{"tee", "simulated", "memory_guard", "roots": [digest], "machines": [text],
                    "references": [{register: value}], "policy": object, may be absent}],
     "limits": {"runs", "not_before", "not_after"},
     "approvals": {"parties": [party], "threshold"}}
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model import party as party_model
from strongroom.model.contracts import peering, room_terms
from strongroom.model.contracts import policy as policy_model
from strongroom.model.contracts.room_terms import MAX_PARTIES, RoomTerms
from strongroom.model.identifiers import (
    ContractDigest,
    ContractId,
    KeyId,
    ManifestDigest,
    PartyName,
    RoomName,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

FORMAT = "strongroom-contract/2"
PAYLOAD_TYPE = "application/vnd.strongroom.contract+json"
MAX_BYTES = 128 * 1024  # a broker hashes them for a stranger
MAX_ROOMS = 16
MAX_REGISTERS = 48  # of one reference: verdicts tell each, and records have room for so many


class Role(enum.StrEnum):
    """What a party is in a contract."""

    DATA_OWNER = "data-owner"
    PROGRAM_OWNER = "program-owner"
    RECIPIENT = "recipient"
    AUDITOR = "auditor"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A party in its role."""

    party: party_model.Party
    role: Role


class OutputSizes(enum.StrEnum):
    """How exactly the size of a sealed file tells the size of what is in it."""

    EXACT = "exact"
    POWER_OF_TWO = "power-of-two"  # padded, inside the sealed file, to a power of two


class ExitStatus(enum.StrEnum):
    """How exactly a receipt tells the exit status."""

    EXACT = "exact"
    ZERO_OR_ONE = "zero-or-one"  # 1 stands for every status that is not 0, and for every signal


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """How much the operator and readers of the ledgers learn of what a program did (docs/limits.md)."""

    output_sizes: OutputSizes
    exit_status: ExitStatus


@dataclass(frozen=True, kw_only=True)
class ReceiptTerms:
    """How long a room tries to have its receipt recorded by every broker; without all of them nothing leaves."""

    wait_seconds: int


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One kind of room that the parties accept.

    `roots` are digests of trusted root certificates (DER); `machines` an allow list of machine
    identities (empty list: refused at parse unless it is the single text "any"); `references` are
    alternatives, each a full set of register values; `memory_guard` true means it must be on.
    `policy` is what else is demanded; None (the key is absent) means every strict default.
    """

    tee: str
    simulated: bool
    memory_guard: bool
    roots: tuple[str, ...]
    machines: tuple[str, ...]
    references: tuple[dict[str, str], ...]
    policy: policy_model.Policy | None = None


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """How often each of the rooms may run, and when."""

    runs: int
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, kw_only=True)
class Approvals:
    """Whose signatures count, and how many of them are needed."""

    parties: tuple[PartyName, ...]
    threshold: int


@dataclass(frozen=True, kw_only=True)
class Contract:
    """A parsed contract. `raw` is the exact bytes; `digest` is over them."""

    raw: bytes
    id: ContractId
    version: int
    replaces: ContractDigest | None
    members: tuple[Member, ...]
    rooms: tuple[RoomTerms, ...]
    disclosure: Disclosure
    receipts: ReceiptTerms
    platforms: tuple[Platform, ...]
    limits: RunLimits
    approvals: Approvals

    @cached_property
    def digest(self) -> ContractDigest:
        """SHA-256 over the exact bytes."""
        return ContractDigest(digest.sha256(self.raw))

    def party(self, name: PartyName) -> party_model.Party:
        """The party of that name; parsing has made sure that every named one exists."""
        for member in self.members:
            if member.party.name == name:
                return member.party
        names = ", ".join(member.party.name for member in self.members)
        raise Malformed(
            f"contract: no party is called {name!r}; there are: {names or 'none'}", code="unknown-party"
        )

    def recipients(self, names: Iterable[PartyName]) -> tuple[str, ...]:
        """The age recipients of the named parties."""
        return tuple(self.party(name).recipient for name in names)

    def room(self, name: RoomName) -> RoomTerms:
        """The room of that name. Raises `Malformed`."""
        for room in self.rooms:
            if room.name == name:
                return room
        names = ", ".join(room.name for room in self.rooms)
        raise Malformed(f"contract: no room is called {name!r}; there are: {names}", code="unknown-room")

    def disks_of(self, keyid: KeyId, *, room: RoomName | None = None) -> tuple[ManifestDigest, ...]:
        """Manifest digests of the disks that the party with that key owns, each once, a room's image first.

        room: of that room alone, which may be none of the contract's; None for all of them. Names of parties are the
        contract's own; only the key says who somebody is.
        """
        names = {member.party.name for member in self.members if member.party.keyid == keyid}
        owned = [
            manifest
            for terms in self.rooms
            if room is None or terms.name == room
            for owner, manifest in terms.disks()
            if owner in names
        ]
        return tuple(dict.fromkeys(owned))

    def owners(self) -> tuple[PartyName, ...]:
        """Names of the parties who own a disk, each once, in contract order."""
        return self._owners

    # Kept: nothing of a contract ever changes, and a broker asks at each of its runs.
    @cached_property
    def _owners(self) -> tuple[PartyName, ...]:
        owners = {owner for room in self.rooms for owner, _ in room.disks()}
        return tuple(member.party.name for member in self.members if member.party.name in owners)

    def owner_keys(self) -> tuple[KeyId, ...]:
        """Key ids of the parties who own a disk, sorted. With the id they say which contract this is a version of."""
        return tuple(sorted(self.party(name).keyid for name in self.owners()))

    @property
    def simulated(self) -> bool:
        """Whether the contract accepts a room without hardware."""
        return any(platform.simulated for platform in self.platforms)

    def must_sign(self) -> tuple[PartyName, ...]:
        """Names of the parties whose signature no threshold replaces, in contract order.

        Who owns a disk decides alone about it; that no hardware stands behind a room everybody has to have agreed to.
        """
        return tuple(member.party.name for member in self.members) if self.simulated else self.owners()

    def key_owners(self, room: RoomName | None = None) -> tuple[PartyName, ...]:
        """Names of the parties who own a disk (of that room, or of any) and have a broker, each once, in contract order."""
        owners = self.owners() if room is None else {owner for owner, _ in self.room(room).disks()}
        return tuple(
            member.party.name
            for member in self.members
            if member.party.name in owners and member.party.broker is not None
        )


def parse(data: bytes) -> Contract:
    """Parse contract bytes. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="contract", max_bytes=MAX_BYTES), "contract", quoting=True)
    top.constant("format", FORMAT)
    replaced = top.digest_or_null("replaces")
    contract = Contract(
        raw=data,
        id=ContractId(top.name("id")),
        version=top.integer("version", low=1, high=1_000_000),
        replaces=None if replaced is None else ContractDigest(replaced),
        members=tuple(_member(item) for item in top.objects("parties", max_items=MAX_PARTIES)),
        rooms=tuple(room_terms.read(item) for item in top.objects("rooms", max_items=MAX_ROOMS)),
        disclosure=_disclosure(top.object("disclosure")),
        receipts=_receipts(top.object("receipts")),
        platforms=tuple(read_platform(item) for item in top.objects("platforms", max_items=16)),
        limits=_limits(top.object("limits")),
        approvals=_approvals(top.object("approvals")),
    )
    top.done()
    _cross_check(contract)
    return contract


def _member(source: fields.Fields) -> Member:
    role = Role(source.choice("role", Role))
    member = Member(party=party_model.read(source), role=role)
    source.done()
    return member


def _disclosure(source: fields.Fields) -> Disclosure:
    disclosure = Disclosure(
        output_sizes=OutputSizes(source.choice("output_sizes", OutputSizes)),
        exit_status=ExitStatus(source.choice("exit_status", ExitStatus)),
    )
    source.done()
    return disclosure


def _receipts(source: fields.Fields) -> ReceiptTerms:
    terms = ReceiptTerms(wait_seconds=source.integer("wait_seconds", low=0, high=86_400))
    source.done()
    return terms


def read_platform(source: fields.Fields) -> Platform:
    """Read one of `platforms`. Raises `Malformed`."""
    has_policy = "policy" in source.names()
    platform = Platform(
        tee=source.name("tee"),
        simulated=source.boolean("simulated"),
        memory_guard=source.boolean("memory_guard"),
        roots=source.texts("roots", max_items=16, pattern=fields.DIGEST),
        machines=source.texts("machines", max_items=1024, max_length=200),
        references=tuple(read_reference(item) for item in source.objects("references", max_items=64)),
        policy=policy_model.read(source.object("policy")) if has_policy else None,
    )
    source.done()
    for key, value, hint in (
        ("roots", platform.roots, "name who vouches for the rooms: digests of root certificates"),
        ("machines", platform.machines, 'the single entry "any" accepts every machine of the roots'),
        ("references", platform.references, "`strongroom measure` computes the registers of a room"),
    ):
        if not value:
            raise Malformed(f"{source.what}.{key}: empty, which no room could meet", hint=hint)
    return platform


def read_reference(item: fields.Fields) -> dict[str, str]:
    """Read one alternative: register values by name. Raises `Malformed`."""
    return policy_model.read_reference(item, most=MAX_REGISTERS)


def _limits(source: fields.Fields) -> RunLimits:
    limits = RunLimits(
        runs=source.integer("runs", low=1, high=1_000_000_000),
        not_before=source.time("not_before"),
        not_after=source.time("not_after"),
    )
    source.done()
    if limits.not_before >= limits.not_after:
        begin, end = fields.format_time(limits.not_before), fields.format_time(limits.not_after)
        raise Malformed(f"{source.what}.not_after: expected a time after not_before ({begin}), got {end}")
    return limits


def _approvals(source: fields.Fields) -> Approvals:
    approvals = Approvals(
        parties=room_terms.party_names(source, "parties"),
        threshold=source.integer("threshold", low=1, high=MAX_PARTIES),
    )
    source.done()
    return approvals


def _cross_check(contract: Contract) -> None:
    names = [member.party.name for member in contract.members]
    room_terms.unique(names, "contract.parties: name")
    # Two parties with one key would let one person's signature count twice.
    room_terms.unique([member.party.keyid for member in contract.members], "contract.parties: signing_key")
    room_terms.unique([room.name for room in contract.rooms], "contract.rooms: name")
    room_terms.unique(contract.approvals.parties, "contract.approvals.parties: name")
    if not contract.rooms:
        raise Malformed("contract.rooms: empty, so there is nothing to run", code="empty")
    if not contract.platforms:
        raise Malformed("contract.platforms: empty, so no room may run it", code="empty")
    if (contract.version == 1) != (contract.replaces is None):
        wanted = "null in version 1" if contract.version == 1 else "the digest of the version before"
        raise Malformed(f"contract.replaces: expected {wanted}, got {contract.replaces or 'null'}")
    if contract.approvals.threshold > len(contract.approvals.parties):
        most, got = len(contract.approvals.parties), contract.approvals.threshold
        raise Malformed(
            f"contract.approvals.threshold: expected at most {most}, as many as approve, got {got}"
        )
    peering.check(contract.rooms)
    for name in (*contract.approvals.parties, *(name for room in contract.rooms for name in room.named())):
        contract.party(name)
    # Whoever gives something must have agreed to how it is used.
    for owner in contract.owners():
        if owner not in contract.approvals.parties:
            raise Malformed(
                f"contract.approvals.parties: the owner {owner!r} is missing; whoever owns a disk approves"
            )
