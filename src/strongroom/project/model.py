"""What a Compose file says once it is read: services that become rooms, and what they share.

Paths are texts, as the file has them; they begin where the file lies. Nothing here was looked up, fetched or converted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.images.compose.document import ComposeService
    from strongroom.images.preflight.findings import Finding
    from strongroom.model.contracts.certificate_terms import CertificateTerms, Format, Mode, Signal
    from strongroom.model.contracts.contract import Role
    from strongroom.model.contracts.network_terms import Port
    from strongroom.model.contracts.room_terms import Restart
    from strongroom.model.identifiers import RoomName


class Wait(enum.StrEnum):
    """What a service waits for in another before it is started."""

    STARTED = "service_started"  # its program runs
    HEALTHY = "service_healthy"  # and takes connections at its ports
    COMPLETED = "service_completed_successfully"  # its program left with 0


@dataclass(frozen=True, kw_only=True)
class PublishedPort:
    """A port of this machine that leads to a port of the program."""

    address: str
    host_port: int
    number: int


@dataclass(frozen=True, kw_only=True)
class PeerPort:
    """A port of another service that the program reaches. wait: only once that takes connections."""

    service: str
    number: int
    wait: bool


@dataclass(frozen=True, kw_only=True)
class OutsideHost:
    """A host outside that the program reaches. authority: the path of a CA's certificate, or empty."""

    host: str
    port: int
    authority: str


@dataclass(frozen=True, kw_only=True)
class ProjectDelivery:
    """Where a room's certificate goes, as in a contract; uid, gid: None for the image's own."""

    folder: str
    format: Format
    uid: int | None
    gid: int | None
    mode: Mode
    signal: Signal | None
    command: tuple[str, ...] | None
    check: int | None


@dataclass(frozen=True, kw_only=True)
class OutputTerms:
    """What may leave the room. to: names of parties; none: the one owner."""

    path: str
    to: tuple[str, ...]
    max_bytes: int


@dataclass(frozen=True, kw_only=True)
class ProjectParty:
    """One of several parties. file: the path of its party file. seals: name → path of data of its own that it has in the clear."""

    role: Role
    file: str
    seals: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ProjectService:
    """One service: a room of the contract.

    settings: what Compose itself says of image and program. image, manifest_path: paths, or empty. owner: the party whose image it is, or empty. depends_on: by service, what is
    waited for. certificate: without its delivery. wall_seconds: of a job; 0 for a service, which attests again each `renewal_seconds`.
    """

    name: RoomName
    settings: ComposeService
    image: str
    manifest_path: str
    owner: str
    memory_mib: int
    processors: int
    ports: tuple[Port, ...]
    published: tuple[PublishedPort, ...]
    depends_on: dict[str, Wait]
    peers: tuple[PeerPort, ...]
    egress: tuple[OutsideHost, ...]
    restart: Restart
    renewal_seconds: int
    wall_seconds: int
    datasets: tuple[str, ...]
    outputs: tuple[OutputTerms, ...]
    logs: tuple[str, ...]
    certificate: CertificateTerms | None
    delivery: ProjectDelivery | None

    @property
    def is_job(self) -> bool:
        """Whether its program runs to its end, and not until somebody stops it."""
        return self.wall_seconds > 0


@dataclass(frozen=True, kw_only=True)
class Platforms:
    """Where it may run. None: the file does not say."""

    simulated: bool | None
    memory_guard: bool
    any_machine: bool
    bases: tuple[str, ...]
    nodes: tuple[str, ...]
    references: tuple[str, ...]
    machines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Project:
    """A whole file. parties: by name; none: one owner. datasets: name → path.

    services: each after those that it waits for. findings: what the file says beside, in words, with lines.
    runs, threshold: 0 where the file does not say.
    """

    name: str
    contract_name: str
    parties: dict[str, ProjectParty]
    datasets: dict[str, str]
    platforms: Platforms
    runs: int
    days: int
    threshold: int
    receipt_wait: int
    exact_sizes: bool
    exact_exit_status: bool
    services: tuple[ProjectService, ...]
    findings: tuple[Finding, ...]

    def service(self, name: str) -> ProjectService | None:
        """The service of that name."""
        return next((service for service in self.services if service.name == name), None)
