"""Reads a Compose file whole: every service a room, `x-strongroom` beside and in them, and all that is wrong at once.

Read as strictly as one service is (`images.compose`): anchors, merge keys, duplicates and words that readers of YAML take
differently block, since what several parties sign must not be two things. Which services become what:
  1 what states `ports`, `expose`, `restart` (but "no") or `renewal_seconds` is a service: it runs until somebody stops it
  2 every other is a job: its program runs to its end, `wall_seconds` long at most; what states that is a job in any case
  3 `depends_on` means both order and reach: the program finds each port of the other at the other's name; `peers` is reach alone
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from strongroom import files
from strongroom.encoding import fields
from strongroom.errors import Malformed, Refused
from strongroom.images.compose import document, keys, strict_yaml
from strongroom.images.compose.place import ComposePlace
from strongroom.images.preflight.findings import Severity
from strongroom.model.contracts import certificate_terms
from strongroom.model.contracts.certificate_terms import (
    CertificateTerms,
    Format,
    Interface,
    KeyKind,
    Mode,
    Signal,
    Usage,
)
from strongroom.model.contracts.contract import Role
from strongroom.model.contracts.network_terms import Port
from strongroom.model.contracts.room_terms import Restart
from strongroom.model.identifiers import RoomName
from strongroom.parties.draft import CERTIFICATE_SECONDS
from strongroom.project import extension
from strongroom.project.compose_keys import ServiceKeys
from strongroom.project.model import (
    OutputTerms,
    OutsideHost,
    PeerPort,
    Platforms,
    Project,
    ProjectDelivery,
    ProjectParty,
    ProjectService,
    Wait,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from strongroom.images.compose.strict_yaml import Value
    from strongroom.images.preflight.findings import Finding
    from strongroom.project.shapes import KeyedObject

MAX_SERVICES = 16  # rooms of one contract
MEMORY_MIB = 512
DAYS = 30
MANIFEST = ".manifest.json"
_OWN_NAMES = re.compile(r"[^a-z0-9._-]+")
_KEY = extension.EXTENSION


def parse(data: bytes, *, what: str, folder: str = "") -> Project:
    """Read a Compose file. folder: the name of the folder that it lies in, which names a project that has no `name`.

    Raises `Malformed` for what is no Compose file at all; all else that is wrong is in `findings`, each with its line.
    """
    read = strict_yaml.read(data, what=what)
    root = ComposePlace(document=read, path=())
    top = read.value
    services = top.get("services") if isinstance(top, dict) else None
    if not isinstance(top, dict) or (not read.flaws and (not isinstance(services, dict) or not services)):
        raise Malformed(
            f"{what}: expected a mapping with `services`",
            code="not-compose",
            hint="write the services below a key `services:`, each with its name",
        )
    findings = [document.flawed(flaw) for flaw in read.flaws]
    findings += keys.top(top, root)
    terms = _terms(top.get(_KEY), extension.PROJECT, root.key(_KEY), findings)
    name = top.get("name")
    project = (
        name
        if isinstance(name, str) and name
        else _OWN_NAMES.sub("-", folder.lower()).strip("-._") or "project"
    )
    if fields.NAME.fullmatch(project) is None:
        findings.append(
            root.key("name").blocks("name", f"{project[:60]!r} names no contract", f"expected {fields.NAMES}")
        )
    where = root.key("services")
    bodies = services if isinstance(services, dict) else {}
    rooms = [
        _service(known, body, where.key(known), findings)
        for known, body in bodies.items()
        if known != strict_yaml.MERGE and body is not strict_yaml.UNCLEAR
    ]
    if len(rooms) > MAX_SERVICES:
        findings.append(
            where.blocks("services", f"{len(rooms)} services", f"at most {MAX_SERVICES} in one contract")
        )
    findings += _shared(terms, rooms, where)
    findings += _sealed(terms.get("parties", {}), terms.get("datasets", {}), root)
    return Project(
        name=project,
        contract_name=terms.get("contract", project),
        parties={
            party: ProjectParty(
                role=Role(entry.get("role", Role.AUDITOR)),
                file=entry.get("file", ""),
                seals=entry.get("seals", {}),
            )
            for party, entry in terms.get("parties", {}).items()
        },
        datasets=terms.get("datasets", {}),
        platforms=_platforms(terms.get("platforms", {})),
        runs=terms.get("runs", 0),
        days=terms.get("days", DAYS),
        threshold=terms.get("threshold", 0),
        receipt_wait=terms.get("receipt_wait_seconds", 600),
        exact_sizes=terms.get("exact_sizes", False),
        exact_exit_status=terms.get("exact_exit_status", False),
        services=tuple(_ordered(_reaching(rooms, where, findings), where, findings)),
        findings=tuple(findings),
    )


def load(path: Path) -> Project:
    """Read the Compose file at `path`. Raises like `parse`, and `OSError`."""
    folder = path.resolve().parent.name
    return files.parsed(
        path, lambda data: parse(data, what=path.name, folder=folder), max_bytes=strict_yaml.MAX_BYTES
    )


def refuse_blocked(project: Project) -> None:
    """Raise `Refused` where anything in the file blocks. Whoever shows the findings shows them before."""
    blocking = [finding for finding in project.findings if finding.severity is Severity.BLOCKS]
    if blocking:
        first, *others = blocking
        raise Refused(
            f"line {first.line}: {first.where}: {first.what}"
            + (f" (and {len(others)} more)" if others else ""),
            code="would-not-run",
            hint=first.fix,
        )


def _terms(value: Value, shape: KeyedObject, place: ComposePlace, findings: list[Finding]) -> dict[str, Any]:
    """What stands below `x-strongroom`; nothing where there is none."""
    if value is None:
        return {}
    return shape.read(value, place, findings) or {}


def _service(name: str, body: Value, place: ComposePlace, findings: list[Finding]) -> ProjectService:
    stated = body.get(_KEY) if isinstance(body, dict) else None
    terms = _terms(stated, extension.SERVICE, place.key(_KEY), findings)
    own = ServiceKeys()
    elsewhere = bool(terms.get("image") or terms.get("manifest"))
    settings = document.ServiceReader(name, body, place, rule=own.rule, elsewhere=elsewhere).service()
    findings += settings.findings
    if fields.NAME.fullmatch(name) is None:
        findings.append(place.blocks("name", f"{name[:60]!r} names no room", f"expected {fields.NAMES}"))
    if terms.get("image") and settings.image and not settings.digest:
        findings.append(
            place.key("image").fine("image", f"is a name alone: what lies at {terms['image'][:80]} is run")
        )
    opened = terms.get("open", ())
    at = place.key(_KEY)
    for number in opened:
        if number not in own.numbers:
            findings.append(
                at.key("open").blocks(
                    "ports", f"{number} is no port of this service", "name it in ports or expose, too"
                )
            )
    for number in own.numbers:
        if number not in opened and any(published.number == number for published in own.published):
            findings.append(
                place.key("ports").warns(
                    "ports",
                    f"{number}: reached through tunnels that prove the room, and not as it is (curl, a browser)",
                    f"`strongroom connect {name}:{number}` opens one; or {_KEY}: {{open: [{number}]}}, for a program that ends TLS by itself",
                )
            )
    wall_seconds, renewal = _life(own, terms, at, findings)
    delivery = terms.get("certificate", {}).get("delivery", {})
    if "signal" in delivery and "command" in delivery:
        findings.append(
            at.key("certificate")
            .key("delivery")
            .blocks("x-strongroom", "a signal and a command", "keep one of the two")
        )
    return ProjectService(
        name=RoomName(name),
        settings=settings,
        image=terms.get("image", ""),
        manifest_path=terms.get("manifest", ""),
        owner=terms.get("owner", ""),
        memory_mib=own.memory_mib or MEMORY_MIB,
        processors=own.processors or 1,
        ports=tuple(
            Port(name=own.names.get(number, str(number)), number=number, open=number in opened)
            for number in own.numbers
        ),
        published=tuple(own.published),
        depends_on=own.depends_on,
        peers=tuple(_peers(terms)),
        egress=tuple(
            OutsideHost(
                host=host.get("host", ""), port=host.get("port", 0), authority=host.get("authority", "")
            )
            for host in terms.get("egress", ())
        ),
        restart=own.restart or Restart.NEVER,
        renewal_seconds=renewal,
        wall_seconds=wall_seconds,
        datasets=tuple(terms.get("datasets", ())),
        outputs=tuple(
            OutputTerms(
                path=output.get("path", ""),
                to=tuple(output.get("to", ())),
                max_bytes=output.get("max_bytes", extension.OUTPUT_BYTES),
            )
            for output in terms.get("outputs", ())
        ),
        logs=tuple(terms.get("logs", ())),
        certificate=_certificate(terms.get("certificate")),
        delivery=_delivery(terms.get("certificate", {}).get("delivery")),
    )


def _life(
    own: ServiceKeys, terms: dict[str, Any], at: ComposePlace, findings: list[Finding]
) -> tuple[int, int]:
    """(wall seconds, renewal seconds): one of them is 0."""
    wall, renewal = terms.get("wall_seconds"), terms.get("renewal_seconds")
    restarts = own.restart not in (None, Restart.NEVER)
    if wall is not None and renewal is not None:
        findings.append(
            at.blocks("life", "wall_seconds is of a job, renewal_seconds of a service", "keep one of the two")
        )
    if wall is not None:
        if own.restart is Restart.ALWAYS:
            findings.append(
                at.key("wall_seconds").blocks(
                    "life",
                    "of a job, which runs to its end; `restart` would start it for ever",
                    "leave one of the two out",
                )
            )
        return wall, 0
    if own.numbers or restarts or renewal is not None:
        return 0, renewal or extension.RENEWAL_SECONDS
    return extension.WALL_SECONDS, 0


def _certificate(terms: dict[str, Any] | None) -> CertificateTerms | None:
    if terms is None:
        return None
    return CertificateTerms(
        names=tuple(terms.get("names", ())),
        lifetime_seconds=terms.get("lifetime_seconds", CERTIFICATE_SECONDS),
        key=KeyKind(terms.get("key", KeyKind.ECDSA_P256)),
        usages=(Usage(terms["usage"]),) if "usage" in terms else certificate_terms.BOTH,
        trust_domain=terms.get("trust_domain"),
        interfaces=tuple(interface for interface in Interface if interface in terms.get("interfaces", ())),
    )


def _delivery(terms: dict[str, Any] | None) -> ProjectDelivery | None:
    if terms is None:
        return None
    return ProjectDelivery(
        folder=terms.get("folder", certificate_terms.FOLDER),
        format=Format(terms.get("format", Format.PEM)),
        uid=terms.get("uid"),
        gid=terms.get("gid"),
        mode=Mode(terms.get("mode", Mode.OWNER_READS)),
        signal=Signal(terms["signal"]) if "signal" in terms else None,
        command=tuple(terms["command"]) if "command" in terms else None,
        check=terms.get("check"),
    )


def _peers(terms: dict[str, Any]) -> Iterator[PeerPort]:
    for text in terms.get("peers", ()):
        service, _, number = text.rpartition(":")
        yield PeerPort(service=service, number=int(number), wait=False)


def _platforms(terms: dict[str, Any]) -> Platforms:
    machines = [text.partition("=") for text in terms.get("machines", ())]
    return Platforms(
        simulated=terms.get("simulated"),
        memory_guard=terms.get("memory_guard", True),
        any_machine=terms.get("any_machine", False),
        bases=tuple(terms.get("bases", ())),
        nodes=tuple(terms.get("nodes", ())),
        references=tuple(terms.get("references", ())),
        machines=tuple((tee, machine) for tee, _, machine in machines),
    )


def _sealed(parties: dict[str, Any], datasets: dict[str, str], root: ComposePlace) -> Iterator[Finding]:
    """Data that a party seals, and that nobody would find."""
    for party, entry in parties.items():
        seals_at = root.key(_KEY).key("parties").key(party).key("seals")
        for name in entry.get("seals", {}):
            if not datasets.get(name, "").endswith(MANIFEST):
                yield seals_at.blocks(
                    "datasets",
                    f"{name} is sealed into a manifest that the file does not name",
                    f"write {_KEY}: datasets: {name}: {name}{MANIFEST}",
                )


def _shared(terms: dict[str, Any], rooms: Sequence[ProjectService], where: ComposePlace) -> Iterator[Finding]:
    """What services name and the file has not, or has twice."""
    datasets, parties = terms.get("datasets", {}), terms.get("parties", {})
    ways: dict[tuple[str, int], str] = {}
    for room in rooms:
        at = where.key(room.name).key(_KEY)
        data_at, outputs_at = at.key("datasets"), at.key("outputs")
        for name in room.datasets:
            if name not in datasets:
                yield data_at.blocks(
                    "datasets", f"no dataset {name}", f"name it under {_KEY}: datasets, with its path"
                )
        named = [*room.logs, *(name for output in room.outputs for name in output.to)]
        named += [room.owner] if room.owner else []
        for name in named:
            if name not in parties:
                yield at.blocks(
                    "parties",
                    f"no party {name}",
                    f"name it under {_KEY}: parties; a single owner needs none named",
                )
        for output in room.outputs:
            if parties and not output.to:
                yield outputs_at.blocks("outputs", f"{output.path}: for whom?", "write to: [PARTY]")
        if parties and not room.manifest_path:
            yield at.key("manifest").blocks(
                "image",
                "several parties sign for the image that its owner converted",
                f"write {_KEY}: {{manifest: NAME.manifest.json}}, which `strongroom convert` made",
            )
        if not parties and room.manifest_path:
            yield at.key("manifest").blocks(
                "image",
                "is of an image that somebody converted for several parties",
                "leave it out, or name the parties",
            )
        for published in room.published:
            way = (published.address, published.host_port)
            if ways.setdefault(way, room.name) != room.name:
                yield (
                    where.key(room.name)
                    .key("ports")
                    .blocks("ports", f"{way[0]}:{way[1]} is of {ways[way]} already", "publish it elsewhere")
                )


def _reaching(
    rooms: Sequence[ProjectService], where: ComposePlace, findings: list[Finding]
) -> list[ProjectService]:
    """The services with the ports of those that they depend on among their peers."""
    by_name = {room.name: room for room in rooms}
    out = []
    for room in rooms:
        place = where.key(room.name)
        peers = {(peer.service, peer.number): peer for peer in room.peers}
        peers_at = place.key(_KEY).key("peers")
        for peer in room.peers:
            known = by_name.get(RoomName(peer.service))
            if known is None or peer.number not in [port.number for port in known.ports]:
                findings.append(
                    peers_at.blocks(
                        "peers",
                        f"no service {peer.service} with a port {peer.number}",
                        f"write expose: [{peer.number}] in {peer.service}",
                    )
                )
        for name, wait in room.depends_on.items():
            known = by_name.get(RoomName(name))
            if known is None or name == room.name:
                findings.append(
                    place.key("depends_on").blocks(
                        "depends-on", f"{name[:60]!r} is no other service of this file", "name one that is"
                    )
                )
                continue
            if wait is Wait.COMPLETED:
                if not known.is_job:
                    findings.append(
                        place.key("depends_on").blocks(
                            "depends-on",
                            f"waits for the end of {name}, a service, which has none",
                            "wait for its start",
                        )
                    )
                continue
            for port in known.ports:
                peers[name, port.number] = PeerPort(service=name, number=port.number, wait=True)
        out.append(replace(room, peers=tuple(peers.values())))
    return out


def _ordered(
    rooms: Sequence[ProjectService], where: ComposePlace, findings: list[Finding]
) -> Iterator[ProjectService]:
    """Each after those that it depends on; in the file's order otherwise."""
    left, done = list(rooms), set[str]()
    names = {room.name for room in rooms}
    while left:
        ready = [room for room in left if not (set(room.depends_on) & names) - done - {room.name}]
        if not ready:
            circle = ", ".join(room.name for room in left)
            findings.append(
                where.blocks(
                    "depends-on",
                    f"each waits for another of these: {circle[:200]}",
                    "let one of them start first",
                )
            )
            yield from left
            return
        yield ready[0]
        done.add(ready[0].name)
        left.remove(ready[0])
