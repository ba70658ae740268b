"""A Compose file becomes the draft of a contract, with every service a room of it. Nobody has signed it yet.

Where one owner has all, `upkeep` gives the disks that it made; among several parties the file names signed manifests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.encoding import pem
from strongroom.errors import Misuse, NotFound, of_file
from strongroom.model import manifest as manifest_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts.certificate_terms import Delivery
from strongroom.model.contracts.network_terms import MAX_AUTHORITY, Egress, Peer
from strongroom.model.contracts.room_terms import Output, ServiceTerms
from strongroom.model.identifiers import PartyName, RoomName
from strongroom.parties import draft as drafts
from strongroom.parties import papers
from strongroom.project import file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.contracts.contract import Member, Platform
    from strongroom.model.party import Party
    from strongroom.parties.draft import Draft, RoomDraft
    from strongroom.project.model import Project, ProjectService


@dataclass(frozen=True, kw_only=True)
class ProjectDisks:
    """Signed manifests: images by service, datasets by name."""

    images: Mapping[str, Path]
    datasets: Mapping[str, Path]


def draft_file(
    path: Path,
    *,
    now: datetime,
    replaces: Path | None = None,
    on_read: Callable[[Project], None] = lambda _project: None,
) -> Agreement:
    """The contract that a Compose file of several parties means, which nobody has signed yet. on_read: called before anything is refused.

    Raises like `draft_for_parties` and `drafts.draft_contract`; what is raised of the file names it. `NotFound` for what a party has not handed around.
    """
    project = file.load(path)
    on_read(project)
    with of_file(path):
        try:
            draft = draft_for_parties(project, folder=path.parent, replaces=replaces)
            return drafts.draft_contract(draft, now=now)
        except FileNotFoundError as cause:
            raise NotFound(
                f"{path} needs {cause.filename}, which is not there",
                code="no-such-file",
                hint="its party makes it (`strongroom join --as NAME`; bases and nodes with --operate) and hands it around",
            ) from None


def draft_for_parties(project: Project, *, folder: Path, replaces: Path | None = None) -> Draft:
    """What several parties are to sign. folder: where the file lies, and its paths begin.

    Raises `Misuse` for a file of one owner, or one that names data that nobody has sealed, `Refused` for one that cannot become rooms, `Malformed`.
    """
    file.refuse_blocked(project)
    if not project.parties:
        raise Misuse(
            "the Compose file names no parties",
            code="no-parties",
            hint="write x-strongroom: {parties: {NAME: {role: …, file: NAME.party.json}}}; for one owner `up` does all",
        )
    members = tuple(
        contract_model.Member(party=_party(folder / party.file, name), role=party.role)
        for name, party in project.parties.items()
    )
    for name, path in project.datasets.items():
        if not path.endswith(file.MANIFEST):
            raise Misuse(
                f"dataset {name}: {path} is no signed manifest",
                code="not-sealed",
                hint=f"its owner seals it (`strongroom seal {path}`) and hands NAME{file.MANIFEST} around",
            )
    platforms = project.platforms
    local = bool(platforms.bases or platforms.nodes)
    return draft(
        project,
        folder=folder,
        members=members,
        disks=ProjectDisks(
            images={service.name: folder / service.manifest_path for service in project.services},
            datasets={name: folder / path for name, path in project.datasets.items()},
        ),
        platforms=(
            *(
                [
                    drafts.local_platform(
                        nodes=[drafts.load_node(folder / path) for path in platforms.nodes],
                        bases=[folder / path for path in platforms.bases],
                        simulated=platforms.simulated is True,
                        memory_guard=platforms.memory_guard,
                        any_machine=platforms.any_machine,
                    )
                ]
                if local
                else []
            ),
            *drafts.hardware_platforms(
                [folder / path for path in platforms.references],
                machines=platforms.machines,
                any_machine=platforms.any_machine,
            ),
        ),
        runs=project.runs or 1,
        replaces=replaces,
    )


def draft(
    project: Project,
    *,
    folder: Path,
    members: Sequence[Member],
    disks: ProjectDisks,
    platforms: Sequence[Platform],
    runs: int,
    replaces: Path | None = None,
) -> Draft:
    """The draft of a file whose disks lie somewhere. Who may open what a file leaves open is its only party. Raises like `drafts.load_node`."""
    return drafts.Draft(
        id=project.contract_name,
        members=tuple(members),
        rooms=tuple(
            _room(service, project, folder=folder, disks=disks, owner=members[0].party.name)
            for service in project.services
        ),
        platforms=tuple(platforms),
        disclosure=contract_model.Disclosure(
            output_sizes=contract_model.OutputSizes.EXACT
            if project.exact_sizes
            else contract_model.OutputSizes.POWER_OF_TWO,
            exit_status=contract_model.ExitStatus.EXACT
            if project.exact_exit_status
            else contract_model.ExitStatus.ZERO_OR_ONE,
        ),
        receipt_wait=project.receipt_wait,
        runs=runs,
        days=project.days,
        threshold=project.threshold,
        replaces=replaces,
    )


def _room(
    service: ProjectService, project: Project, *, folder: Path, disks: ProjectDisks, owner: PartyName
) -> RoomDraft:
    settings = service.settings
    numbers = {(other.name, port.number): port.name for other in project.services for port in other.ports}
    room = drafts.RoomDraft(
        image=disks.images[service.name],
        name=service.name,
        datasets=tuple((name, disks.datasets[name]) for name in service.datasets),
        arguments=settings.command,
        environment=settings.environment,
        outputs=tuple(
            Output(
                path=output.path,
                recipients=tuple(PartyName(name) for name in output.to) or (owner,),
                max_bytes=output.max_bytes,
            )
            for output in service.outputs
        ),
        logs=service.logs or (() if project.parties else (owner,)),
        certificate=_terms(service, disks.images[service.name]),
        memory_mib=service.memory_mib,
        processors=service.processors,
        ports=service.ports,
        peers=tuple(
            Peer(
                room=RoomName(peer.service),
                port=numbers[RoomName(peer.service), peer.number],
                wait=peer.wait,
            )
            for peer in service.peers
        ),
        egress=tuple(
            Egress(
                host=host.host,
                port=host.port,
                authority=_authority(folder / host.authority) if host.authority else b"",
            )
            for host in service.egress
        ),
    )
    if service.is_job:
        return replace(room, wall_seconds=service.wall_seconds)
    return replace(
        room,
        service=ServiceTerms(renewal_seconds=service.renewal_seconds, restart=service.restart),
    )


def _terms(service: ProjectService, image: Path) -> CertificateTerms | None:
    """The certificate of a room, delivered to the image's own user where the file names no other."""
    certificate, delivery = service.certificate, service.delivery
    if certificate is None or delivery is None:
        return certificate
    _, manifest = files.parsed(image, manifest_model.parse_envelope, max_bytes=manifest_model.MAX_ENVELOPE)
    settings = manifest.image
    return replace(
        certificate,
        delivery=Delivery(
            folder=delivery.folder,
            format=delivery.format,
            uid=_first(delivery.uid, 0 if settings is None else settings.uid),
            gid=_first(delivery.gid, 0 if settings is None else settings.gid),
            mode=delivery.mode,
            signal=delivery.signal,
            command=delivery.command,
            check=delivery.check,
        ),
    )


def _first(stated: int | None, own: int) -> int:
    return own if stated is None else stated


def _party(path: Path, name: str) -> Party:
    party = papers.load_party(path)
    if party.name != name:
        raise Misuse(
            f"{path}: is of {party.name}, and the file calls that party {name}",
            code="other-party",
            hint="a party's name in the file is the one in its party file",
        )
    return party


def _authority(path: Path) -> bytes:
    """DER of the one certificate in the file, which has it in PEM or DER."""
    return files.parsed(path, _certificate, max_bytes=4 * MAX_AUTHORITY)


def _certificate(data: bytes) -> bytes:
    if not data.startswith(b"-----"):
        return data
    return pem.decode(data, b"CERTIFICATE", what="authority", max_blocks=1, max_bytes=MAX_AUTHORITY)[0]
