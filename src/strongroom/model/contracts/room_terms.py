"""One room of a contract: what it runs, on which disks, what leaves it and for whom.

::

    {"name": name,
     "image": {"owner": party, "manifest": digest, "arguments": null | [text], "environment": {name: text}},
     "datasets": [{"name", "owner": party, "manifest": digest}],
     "outputs": [{"path": "/out" | "/out/NAME", "recipients": [party], "max_bytes"}],
     "logs": null | {"recipients": [party], "max_bytes"},
     "ports", "peers", "egress",                               lists; `network_terms` has them
     "certificate": null | `certificate_terms`,
     "memory_mib",
     "processors",                                             absent: one
     "wall_seconds" of a job, or for a service
     "service": {"renewal_seconds", "restart": "never" | "on-failure" | "always"}}

The name is the role in which a room attests: its evidence is bound to it, and a broker gives it the keys of this room's disks alone.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import fields, unexpected
from strongroom.errors import Malformed
from strongroom.model.contracts import certificate_terms, network_terms
from strongroom.model.identifiers import ManifestDigest, PartyName, RoomName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.contracts.network_terms import Egress, Peer, Port

MAX_PARTIES = 32  # each may sign: an envelope holds as many signatures
MAX_DATASETS = 64
MAX_PROCESSORS = 64
DEFAULT_NAME = RoomName("main")
"""What the room is called where a contract has one alone and nobody chose a name."""

OUTPUT_PATH = re.compile(r"/out(?:/[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?)?", re.ASCII)
# The first in words.
OUTPUT_LIKE = "/out, or /out/ and a name of lower-case letters, digits, dots, dashes and underscores"
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


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


class Restart(enum.StrEnum):
    """When the program of a service is started again in its room."""

    NEVER = "never"
    ON_FAILURE = "on-failure"  # unless it left with 0
    ALWAYS = "always"


@dataclass(frozen=True, kw_only=True)
class ServiceTerms:
    """A room that lives until the contract ends, somebody stops it or a party pauses it. It attests again every
    `renewal_seconds` or sooner.
    """

    renewal_seconds: int
    restart: Restart


@dataclass(frozen=True, kw_only=True)
class RoomTerms:
    """What the parties agree on for one room: a job, or where `service` says so a service.

    wall_seconds: the most that a job's program may run; 0 for a service. memory_mib, processors: of its machine. Without
    `ports`, `peers` and `egress` it has no network.
    """

    name: RoomName
    image: Image
    datasets: tuple[Dataset, ...]
    outputs: tuple[Output, ...]
    logs: Logs | None
    certificate: CertificateTerms | None
    memory_mib: int
    ports: tuple[Port, ...] = ()
    peers: tuple[Peer, ...] = ()
    egress: tuple[Egress, ...] = ()
    wall_seconds: int = 0
    service: ServiceTerms | None = None
    processors: int = 1

    def disks(self) -> tuple[tuple[PartyName, ManifestDigest], ...]:
        """(owner, manifest digest) of each disk, the image first."""
        datasets = ((dataset.owner, dataset.manifest_digest) for dataset in self.datasets)
        return ((self.image.owner, self.image.manifest_digest), *datasets)

    def named(self) -> tuple[PartyName, ...]:
        """Every party that it names, as often as it does."""
        names = [owner for owner, _ in self.disks()]
        for output in self.outputs:
            names += output.recipients
        return (*names, *(() if self.logs is None else self.logs.recipients))

    def to_json(self) -> dict[str, object]:
        """The object form."""
        logs, certificate = self.logs, self.certificate
        return {
            "name": self.name,
            "image": {
                "owner": self.image.owner,
                "manifest": self.image.manifest_digest,
                "arguments": None if self.image.arguments is None else list(self.image.arguments),
                "environment": dict(self.image.environment),
            },
            "datasets": [
                {"name": dataset.name, "owner": dataset.owner, "manifest": dataset.manifest_digest}
                for dataset in self.datasets
            ],
            "outputs": [
                {"path": output.path, "recipients": list(output.recipients), "max_bytes": output.max_bytes}
                for output in self.outputs
            ],
            "logs": None
            if logs is None
            else {"recipients": list(logs.recipients), "max_bytes": logs.max_bytes},
            **network_terms.to_json(self.ports, self.peers, self.egress),
            "certificate": None if certificate is None else certificate.to_json(),
            "memory_mib": self.memory_mib,
            **({} if self.processors == 1 else {"processors": self.processors}),
            **self._life(),
        }

    def _life(self) -> dict[str, object]:
        if self.service is None:
            return {"wall_seconds": self.wall_seconds}
        return {
            "service": {
                "renewal_seconds": self.service.renewal_seconds,
                "restart": self.service.restart.value,
            }
        }


def read(source: fields.Fields) -> RoomTerms:
    """Read the object form. Raises `Malformed`."""
    service = _service(source)
    certificate = source.object_or_null("certificate")
    terms = RoomTerms(
        name=RoomName(source.name("name")),
        image=_image(source.object("image")),
        datasets=tuple(_dataset(item) for item in source.objects("datasets", max_items=MAX_DATASETS)),
        outputs=tuple(_output(item) for item in source.objects("outputs", max_items=64)),
        logs=_logs(source.object_or_null("logs")),
        certificate=None if certificate is None else certificate_terms.read(certificate),
        memory_mib=source.integer("memory_mib", low=256, high=1 << 20),
        ports=network_terms.read_ports(source),
        peers=network_terms.read_peers(source),
        egress=network_terms.read_egress(source),
        service=service,
        wall_seconds=0 if service else source.integer("wall_seconds", low=1, high=30 * 86_400),
        processors=source.integer("processors", low=2, high=MAX_PROCESSORS)
        if "processors" in source.names()
        else 1,
    )
    source.done()
    unique([dataset.name for dataset in terms.datasets], f"{source.what}.datasets: name")
    paths = [output.path for output in terms.outputs]
    unique(paths, f"{source.what}.outputs: path")
    if "/out" in paths and len(paths) > 1:
        raise Malformed(f"{source.what}.outputs: /out beside paths below it, which it holds", code="overlap")
    return terms


def unique(values: Sequence[str], what: str) -> None:
    """Raise `Malformed` unless each value stands there once."""
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise Malformed(f"{what} {twice!r} appears twice", code="duplicate")


def party_names(source: fields.Fields, key: str) -> tuple[PartyName, ...]:
    """Read a list of parties' names. Raises `Malformed`."""
    names = source.texts(key, max_items=MAX_PARTIES, max_length=64, pattern=fields.NAME)
    return tuple(PartyName(name) for name in names)


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


def _output(source: fields.Fields) -> Output:
    output = Output(
        path=source.text("path", max_length=80, pattern=OUTPUT_PATH, like=OUTPUT_LIKE),
        recipients=party_names(source, "recipients"),
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
        recipients=party_names(source, "recipients"),
        max_bytes=source.integer("max_bytes", low=1, high=1 << 30),
    )
    source.done()
    if not logs.recipients:
        raise Malformed(f"{source.what}.recipients: logs need at least one recipient")
    return logs


def _service(source: fields.Fields) -> ServiceTerms | None:
    if "service" not in source.names():
        return None
    if "wall_seconds" in source.names():
        raise Malformed(
            f"{source.what}: has wall_seconds and service, expected one of them",
            hint="a job has wall_seconds; a service ends by the contract's not_after, a stop or a pause",
        )
    inner = source.object("service")
    terms = ServiceTerms(
        renewal_seconds=inner.integer("renewal_seconds", low=60, high=86_400),
        restart=Restart(inner.choice("restart", Restart)),
    )
    inner.done()
    return terms
