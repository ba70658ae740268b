"""A contract is drafted: from what parties chose to bytes for all of them to sign. Nothing could ever run under some drafts; those are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from strongroom import files
from strongroom.appraisal import fitness
from strongroom.appraisal.reference import values as reference_values
from strongroom.appraisal.wording import sentences
from strongroom.encoding import canonical, fields
from strongroom.errors import Misuse, Refused
from strongroom.evidence import roots
from strongroom.model import manifest as manifest_model
from strongroom.model import signatures
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import certificate_terms, drafting, room_terms
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import policy as policy_model
from strongroom.model.contracts.room_terms import RoomTerms
from strongroom.model.identifiers import ContractId, PartyName, RoomName
from strongroom.parties import papers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.contracts.contract import Contract, Disclosure, Member, Platform
    from strongroom.model.contracts.network_terms import Egress, Peer, Port
    from strongroom.model.contracts.room_terms import Output, ServiceTerms
    from strongroom.model.manifest import Manifest

LOG_BYTES = 1 << 20  # at most leave a room as its log
CERTIFICATE_SECONDS = 3600  # lifetime of a room's certificate
# Of what people see who are no recipients: sizes rounded up, and success or failure alone.
LEAST_SHOWN = contract_model.Disclosure(
    output_sizes=contract_model.OutputSizes.POWER_OF_TWO, exit_status=contract_model.ExitStatus.ZERO_OR_ONE
)
LENIENCE = timedelta(minutes=5)  # a contract is valid from so long ago: clocks of parties and brokers differ
_MAX_DESCRIPTION = 1 << 20  # bytes of a node's or a base's JSON


@dataclass(frozen=True, kw_only=True)
class RoomDraft:
    """What the parties chose for one room. image, datasets: signed manifests; a dataset's name is its manifest's where it is empty.

    arguments: in place of the image's own; None keeps those. logs: names of parties who may read the log.
    certificate_names: DNS names of the room's certificate; none: no certificate. certificate: all of its terms instead. wall_seconds: how long the program of a job may
    run, which says nothing where `service` makes it a service.
    """

    image: Path
    name: str = room_terms.DEFAULT_NAME
    datasets: tuple[tuple[str, Path], ...] = ()
    arguments: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    logs: tuple[str, ...] = ()
    certificate_names: tuple[str, ...] = ()
    certificate: CertificateTerms | None = None
    wall_seconds: int = 600
    memory_mib: int = 512
    processors: int = 1
    service: ServiceTerms | None = None
    ports: tuple[Port, ...] = ()
    peers: tuple[Peer, ...] = ()
    egress: tuple[Egress, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What the parties chose. replaces: the file of the version before. runs: of each room. threshold: signatures needed; 0 means
    every party's. days: for how long, from now. receipt_wait: seconds for which a room waits for brokers to record its receipt.
    """

    id: str
    members: tuple[Member, ...]
    rooms: tuple[RoomDraft, ...]
    platforms: tuple[Platform, ...]
    disclosure: Disclosure = LEAST_SHOWN
    receipt_wait: int = 600
    runs: int = 1
    days: int = 30
    threshold: int = 0
    replaces: Path | None = None


class LocalNode(Protocol):
    """What a contract needs of a node that runs local rooms. A node's folder has it, and a description of the node."""

    @property
    def root(self) -> str:
        """sha256:… of the root certificate, which vouches for the node's software TPMs."""

    @property
    def machine(self) -> str:
        """sha256:… that names the machine."""


@dataclass(frozen=True, kw_only=True)
class NodeDescription:
    """What `strongroom node show --json` printed, as far as contracts need it."""

    root: str
    machine: str


def draft_contract(draft: Draft, *, now: datetime) -> Agreement:
    """The contract, which nobody has signed yet. now: UTC.

    Raises `Malformed` with the place in the contract whose value does not hold, `Misuse` where nothing could ever run under it or
    it is no next version of `replaces`, `Refused` for a manifest that its owner did not sign.
    """
    previous = None if draft.replaces is None else papers.load_agreement(draft.replaces).contract
    rooms, manifests = zip(*(_room(room, draft.members) for room in draft.rooms), strict=True)
    names = tuple(member.party.name for member in draft.members)
    begin = now.replace(microsecond=0)
    contract = contract_model.Contract(
        raw=b"",  # is known once it is encoded, below
        id=ContractId(draft.id),
        version=1 if previous is None else previous.version + 1,
        replaces=None if previous is None else previous.digest,
        members=draft.members,
        rooms=rooms,
        disclosure=draft.disclosure,
        receipts=contract_model.ReceiptTerms(wait_seconds=draft.receipt_wait),
        platforms=draft.platforms,
        limits=contract_model.RunLimits(
            runs=draft.runs,
            not_before=begin - LENIENCE,
            not_after=begin + timedelta(days=draft.days),
        ),
        approvals=contract_model.Approvals(parties=names, threshold=draft.threshold or len(names)),
    )
    parsed = contract_model.parse(drafting.encode(contract))
    # Versions may differ in all but this: who could put disks of others in would take over a contract.
    if previous is not None and (parsed.id, parsed.owner_keys()) != (previous.id, previous.owner_keys()):
        differs = (
            "the owners of its disks are others"
            if parsed.id == previous.id
            else f"it is of contract {previous.id}, this one of {parsed.id}"
        )
        raise Misuse(
            f"--replaces {draft.replaces}: this is no version of that contract: {differs}",
            hint="give the file of this contract's last version, or leave --replaces out: it is a new contract then",
        )
    _refuse_unfit(parsed, manifests)
    return agreement_model.draft(parsed)


def _room(
    room: RoomDraft, members: Sequence[Member]
) -> tuple[RoomTerms, tuple[tuple[PartyName, Manifest], ...]]:
    """What the contract says of `room`, and (owner's name, manifest) of its disks, the image first."""
    image_owner, image_manifest = _owned(room.image, members, "image")
    owned = [(name, *_owned(path, members, "dataset")) for name, path in room.datasets]
    terms = RoomTerms(
        name=RoomName(room.name),
        image=room_terms.Image(
            owner=image_owner,
            manifest_digest=image_manifest.digest,
            arguments=room.arguments,
            environment=dict(room.environment),
        ),
        datasets=tuple(
            room_terms.Dataset(name=name or manifest.name, owner=owner, manifest_digest=manifest.digest)
            for name, owner, manifest in owned
        ),
        outputs=room.outputs,
        logs=room_terms.Logs(recipients=tuple(PartyName(name) for name in room.logs), max_bytes=LOG_BYTES)
        if room.logs
        else None,
        certificate=room.certificate
        or (
            certificate_terms.CertificateTerms(
                names=room.certificate_names, lifetime_seconds=CERTIFICATE_SECONDS
            )
            if room.certificate_names
            else None
        ),
        memory_mib=room.memory_mib,
        ports=room.ports,
        peers=room.peers,
        egress=room.egress,
        wall_seconds=0 if room.service else room.wall_seconds,
        service=room.service,
        processors=room.processors,
    )
    return terms, ((image_owner, image_manifest), *((owner, manifest) for _, owner, manifest in owned))


def local_platform(
    *,
    nodes: Sequence[LocalNode],
    bases: Sequence[Path],
    simulated: bool = False,
    memory_guard: bool = True,
    any_machine: bool = False,
) -> Platform:
    """Rooms of the parties' own nodes, with software TPMs. bases: folders, or their base.json. any_machine: accept every
    machine that a root of these nodes vouches for.

    simulated: accepted although no hardware's vendor vouches for it. memory_guard: whether it has to be on.
    """
    return contract_model.Platform(
        tee="tpm",
        simulated=simulated,
        memory_guard=memory_guard,
        roots=tuple(dict.fromkeys(node.root for node in nodes)),
        machines=(policy_model.ANY_MACHINE,) if any_machine else tuple(node.machine for node in nodes),
        references=tuple(_reference(path) for path in bases),
    )


def hardware_platforms(
    references: Sequence[Path],
    *,
    machines: Sequence[tuple[str, str]] = (),
    any_machine: bool = False,
) -> tuple[Platform, ...]:
    """A platform for each TEE that the files predict registers of; its roots are the vendor's, as they are pinned.

    references: files as `strongroom measure … --reference` prints them. machines: (TEE, identity) of each that is accepted.
    any_machine: accept every machine that the vendor vouches for.
    """
    known = [tee for tee, pinned in roots.HARDWARE.items() if pinned]
    predicted: dict[str, list[dict[str, str]]] = {}
    for path in references:
        tee, registers = files.parsed(
            path, reference_values.parse_values, max_bytes=reference_values.MAX_BYTES
        )
        predicted.setdefault(tee, []).extend(registers)
        if tee not in known:
            raise Misuse(
                f"--reference {path}: no vendor's root is pinned for {tee}: expected values of {', '.join(known)}",
                hint="a local room (tpm) takes --base and --node in place of --reference",
            )
    if strangers := {tee for tee, _ in machines} - predicted.keys():
        raise Misuse(
            f"--machine: there is no --reference for {min(strangers)[:40]!r}",
            hint="give --reference too, the file that `strongroom measure FOLDER --reference` printed for that platform",
        )
    return tuple(
        contract_model.Platform(
            tee=tee,
            simulated=False,
            memory_guard=False,
            roots=tuple(sorted(roots.HARDWARE[tee])),
            machines=(policy_model.ANY_MACHINE,)
            if any_machine
            else tuple(name for of, name in machines if of == tee),
            references=tuple(registers),
        )
        for tee, registers in predicted.items()
    )


def load_node(path: Path) -> NodeDescription:
    """A node from its description. Raises `Misuse` for the node's folder, `Malformed`."""
    if path.is_dir():
        raise Misuse(
            f"--node {path}: is a folder; a contract takes the node's description",
            code="not-a-file",
            hint=f"`strongroom node show {path} --json >node.json`, and --node node.json",
        )
    return files.parsed(path, _read_node, max_bytes=_MAX_DESCRIPTION)


def _read_node(data: bytes) -> NodeDescription:
    top = fields.Fields(canonical.loads(data, what="node", max_bytes=_MAX_DESCRIPTION), "node")
    return NodeDescription(root=top.digest("root"), machine=top.digest("machine"))


def _reference(path: Path) -> dict[str, str]:
    file = path / "base.json" if path.is_dir() else path
    return files.parsed(file, _read_base, max_bytes=_MAX_DESCRIPTION)


def _read_base(data: bytes) -> dict[str, str]:
    top = fields.Fields(canonical.loads(data, what="base", max_bytes=_MAX_DESCRIPTION), "base")
    inner = top.object("reference")
    return {name: inner.text(name, max_length=400) for name in inner.names()}


def _owned(path: Path, members: Sequence[Member], kind: str) -> tuple[PartyName, Manifest]:
    """(The owner's name, the manifest) of a disk's signed manifest."""
    envelope, manifest = files.parsed(
        path,
        manifest_model.parse_envelope,
        max_bytes=manifest_model.MAX_ENVELOPE,
    )
    if manifest.kind != kind:
        raise Misuse(
            f"{path}: is the manifest of one {manifest.kind}, expected of one {kind}",
            hint="--image takes the program's manifest (`strongroom convert`), --dataset the data's (`strongroom seal`)",
        )
    for member in members:
        if member.party.keyid == manifest.owner:
            if signatures.signed_by(envelope, member.party.signing_key):
                return member.party.name, manifest
            raise Refused(
                f"{path}: not signed by its owner {member.party.name}",
                code="bad-signature",
                hint=f"get the manifest from {member.party.name} again, with the party file that goes with it",
            )
    raise Misuse(
        f"{path}: its owner is not among the parties",
        hint="give the owner's party file with --party ROLE=FILE",
    )


def _refuse_unfit(contract: Contract, manifests: Sequence[tuple[tuple[PartyName, Manifest], ...]]) -> None:
    """Raise `Misuse` where nothing could ever run under a draft. manifests: by room, (owner's name, manifest) of every disk."""
    failed = [sentences.explain(check) for check in fitness.check_fitness(contract) if not check.ok]
    if failed:
        first, *others = failed
        more = "".join(f"; and {other.name}: {other.got}" for other in others)
        raise Misuse(
            f"{first.name}: expected {first.expected}, got {first.got}{more}",
            code="cannot-run",
            hint=first.hint,
        )
    for room, owner, manifest in (
        (room, *disk) for room, disks in zip(contract.rooms, manifests, strict=True) for disk in disks
    ):
        if manifest.cipher != manifest_model.NO_CIPHER and contract.party(owner).broker is None:
            raise Misuse(
                f"{manifest.name}: is encrypted, and the party file of its owner {owner} names no broker to give its key",
                code="cannot-run",
                hint=f"`strongroom broker init … --identity {owner}.identity` completes {owner}.party.json; draft with that file",
            )
        settings, given = manifest.image, room.image.arguments
        if settings is not None and not (
            settings.entrypoint or (settings.command if given is None else given)
        ):
            raise Misuse(
                f"{manifest.name}: the image names no program, and --argument gives none",
                code="cannot-run",
                hint="name the program that the room starts: --argument /PATH/OF/PROGRAM, and --argument WORD for each word after it",
            )
