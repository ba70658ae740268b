"""The contract: everything that the parties agree on, in one JSON document.

It is hashed and signed as exact bytes; this file parses those bytes strictly (unknown, duplicate
and missing keys are refused; empty means no) and never re-serialises what it was given.

::

    {"format": "strongroom-contract/1",
     "id": name, "version": 1.., "replaces": null | digest of the version before,
     "parties": [{"name", "role", "signing_key", "recipient", "broker"}],
     "image": {"owner": party, "manifest": digest, "arguments": null | [text], "environment": {name: text}},
     "datasets": [{"name", "owner": party, "manifest": digest}],
     "outputs": [{"path": "/out" | "/out/NAME", "recipients": [party], "max_bytes"}],
     "logs": null | {"recipients": [party], "max_bytes"},
     "disclosure": {"output_sizes": "exact" | "power-of-two", "exit_status": "exact" | "zero-or-one"},
     "receipts": {"wait_seconds": 0..86400},
     "platforms": [{"tee", "simulated", "memory_guard", "roots": [digest], "machines": [text],
                    "references": [{register: value}], "policy": object, may be absent}],
     "network": {"egress": [], "peers": []},
     "certificate": null | {"names": [DNS name], "lifetime_seconds"},
     "limits": {"runs", "not_before", "not_after", "wall_seconds", "memory_mib"},
     "approvals": {"parties": [party], "threshold"}}
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed
from strongroom.model import party as party_model
from strongroom.model.contracts import policy as policy_model
from strongroom.model.identifiers import ContractDigest, ContractId, KeyId, ManifestDigest, PartyName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

FORMAT = "strongroom-contract/1"
PAYLOAD_TYPE = "application/vnd.strongroom.contract+json"
MAX_BYTES = 128 * 1024  # a broker hashes them for a stranger
MAX_PARTIES = 32  # each may sign: an envelope holds as many signatures
MAX_REGISTERS = 48  # of one reference: verdicts tell each, and records have room for so many

OUTPUT_PATH = re.compile(r"/out(?:/[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?)?", re.ASCII)
DNS_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-)){1,8}", re.ASCII)
# The first two in words.
OUTPUT_LIKE = "/out, or /out/ and a name of lower-case letters, digits, dots, dashes and underscores"
DNS_LIKE = "a DNS name of two labels or more, in lower case, like room.flights.example"
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


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


@dataclass(frozen=True, kw_only=True)
class Image:
    """The program: whose, which sealed disk, and what may differ from the image's own settings.

    `arguments` None means the image's own CMD; `environment` is added to the image's own ENV.
    """

    owner: PartyName
    manifest_digest: ManifestDigest
    arguments: tuple[str, ...] | None
    environment: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A sealed disk that the room mounts read-only at `/data/<name>`."""

    name: str
    owner: PartyName
    manifest_digest: ManifestDigest


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
class Output:
    """A directory whose files leave as one age file (a tar within) to `recipients` (party names)."""

    path: str
    recipients: tuple[PartyName, ...]
    max_bytes: int


@dataclass(frozen=True, kw_only=True)
class Logs:
    """Who may read the program's standard output and error, sealed, and how much of it."""

    recipients: tuple[PartyName, ...]
    max_bytes: int


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
class Network:
    """What the room may reach. Both lists are empty in this version: no network."""

    egress: tuple[str, ...]
    peers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CertificateTerms:
    """The DNS names that a room's certificate may carry, and for how many seconds it lives."""

    names: tuple[str, ...]
    lifetime_seconds: int


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """How often, when, how long and how large."""

    runs: int
    not_before: datetime
    not_after: datetime
    wall_seconds: int
    memory_mib: int


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
    image: Image
    datasets: tuple[Dataset, ...]
    outputs: tuple[Output, ...]
    logs: Logs | None
    disclosure: Disclosure
    receipts: ReceiptTerms
    platforms: tuple[Platform, ...]
    network: Network
    certificate: CertificateTerms | None
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

    def disks_of(self, keyid: KeyId) -> tuple[ManifestDigest, ...]:
        """Manifest digests of the disks that the party with that key owns, each once, the image first.

        Names are the contract's own; only the key says who somebody is.
        """
        names = {member.party.name for member in self.members if member.party.keyid == keyid}
        owned = [self.image.manifest_digest] if self.image.owner in names else []
        owned += [dataset.manifest_digest for dataset in self.datasets if dataset.owner in names]
        return tuple(dict.fromkeys(owned))

    def owners(self) -> tuple[PartyName, ...]:
        """Names of the parties who own a disk, each once, in contract order."""
        return self._owners

    # Kept: nothing of a contract ever changes, and a broker asks at each of its runs.
    @cached_property
    def _owners(self) -> tuple[PartyName, ...]:
        owners = {self.image.owner, *(dataset.owner for dataset in self.datasets)}
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

    def key_owners(self) -> tuple[PartyName, ...]:
        """Names of the parties who own a disk and have a broker, each once, in contract order."""
        owners = self.owners()
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
        image=_image(top.object("image")),
        datasets=tuple(_dataset(item) for item in top.objects("datasets", max_items=64)),
        outputs=tuple(_output(item) for item in top.objects("outputs", max_items=64)),
        logs=_logs(top.object_or_null("logs")),
        disclosure=_disclosure(top.object("disclosure")),
        receipts=_receipts(top.object("receipts")),
        platforms=tuple(read_platform(item) for item in top.objects("platforms", max_items=16)),
        network=_network(top.object("network")),
        certificate=_certificate(top.object_or_null("certificate")),
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


def _image(source: fields.Fields) -> Image:
    arguments = source.words_or_null("arguments", max_items=256)
    environment = source.text_map("environment", max_items=256)
    for name in environment:
        if ENV_NAME.fullmatch(name) is None:
            raise Malformed(
                f"{source.what}.environment: expected names of at most 128 letters, digits and _, no digit first, got {unexpected.quoted(name)}"
            )
    image = Image(
        owner=PartyName(source.name("owner")),
        manifest_digest=ManifestDigest(source.digest("manifest")),
        arguments=arguments,
        environment=environment,
    )
    source.done()
    return image


def _dataset(source: fields.Fields) -> Dataset:
    dataset = Dataset(
        name=source.name("name"),
        owner=PartyName(source.name("owner")),
        manifest_digest=ManifestDigest(source.digest("manifest")),
    )
    source.done()
    return dataset


def _party_names(source: fields.Fields, key: str) -> tuple[PartyName, ...]:
    names = source.texts(key, max_items=MAX_PARTIES, max_length=64, pattern=fields.NAME)
    return tuple(PartyName(name) for name in names)


def _output(source: fields.Fields) -> Output:
    output = Output(
        path=source.text("path", max_length=80, pattern=OUTPUT_PATH, like=OUTPUT_LIKE),
        recipients=_party_names(source, "recipients"),
        max_bytes=source.integer("max_bytes", low=1, high=1 << 40),
    )
    source.done()
    if not output.recipients:
        raise Malformed(f"{source.what}.recipients: an output needs at least one recipient")
    return output


def _logs(source: fields.Fields | None) -> Logs | None:
    if source is None:
        return None
    logs = Logs(
        recipients=_party_names(source, "recipients"),
        max_bytes=source.integer("max_bytes", low=1, high=1 << 30),
    )
    source.done()
    if not logs.recipients:
        raise Malformed(f"{source.what}.recipients: logs need at least one recipient")
    return logs


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


def _network(source: fields.Fields) -> Network:
    network = Network(egress=source.texts("egress", max_items=0), peers=source.texts("peers", max_items=0))
    source.done()
    return network


def _certificate(source: fields.Fields | None) -> CertificateTerms | None:
    if source is None:
        return None
    terms = CertificateTerms(
        names=source.texts("names", max_items=32, max_length=253, pattern=DNS_NAME, like=DNS_LIKE),
        lifetime_seconds=source.integer("lifetime_seconds", low=60, high=86_400),
    )
    source.done()
    if not terms.names:
        raise Malformed(f"{source.what}.names: a certificate needs at least one name")
    return terms


def _limits(source: fields.Fields) -> RunLimits:
    limits = RunLimits(
        runs=source.integer("runs", low=1, high=1_000_000_000),
        not_before=source.time("not_before"),
        not_after=source.time("not_after"),
        wall_seconds=source.integer("wall_seconds", low=1, high=30 * 86_400),
        memory_mib=source.integer("memory_mib", low=256, high=1 << 20),
    )
    source.done()
    if limits.not_before >= limits.not_after:
        begin, end = fields.format_time(limits.not_before), fields.format_time(limits.not_after)
        raise Malformed(f"{source.what}.not_after: expected a time after not_before ({begin}), got {end}")
    return limits


def _approvals(source: fields.Fields) -> Approvals:
    approvals = Approvals(
        parties=_party_names(source, "parties"),
        threshold=source.integer("threshold", low=1, high=MAX_PARTIES),
    )
    source.done()
    return approvals


def _cross_check(contract: Contract) -> None:
    names = [member.party.name for member in contract.members]
    _unique(names, "parties: name")
    # Two parties with one key would let one person's signature count twice.
    _unique([member.party.keyid for member in contract.members], "parties: signing_key")
    _unique([dataset.name for dataset in contract.datasets], "datasets: name")
    _unique([output.path for output in contract.outputs], "outputs: path")
    _unique(contract.approvals.parties, "approvals.parties: name")
    paths = [output.path for output in contract.outputs]
    if "/out" in paths and len(paths) > 1:
        raise Malformed("contract.outputs: /out beside paths below it, which it holds", code="overlap")
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
    named = [contract.image.owner, *contract.approvals.parties, *(data.owner for data in contract.datasets)]
    for output in contract.outputs:
        named += output.recipients
    named += contract.logs.recipients if contract.logs is not None else ()
    for name in named:
        contract.party(name)
    # Whoever gives something must have agreed to how it is used.
    for owner in contract.owners():
        if owner not in contract.approvals.parties:
            raise Malformed(
                f"contract.approvals.parties: the owner {owner!r} is missing; whoever owns a disk approves"
            )


def _unique(values: Sequence[str], what: str) -> None:
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise Malformed(f"contract.{what} {twice!r} appears twice", code="duplicate")
