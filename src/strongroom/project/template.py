"""A first Compose file for an image, commented: a service where it has ports, else a job."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.encoding import fields
from strongroom.errors import Misuse
from strongroom.fetch.oci import names
from strongroom.images import load, oci
from strongroom.project import extension, file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.images.oci import ImageConfig

LEAST_PUBLISHED = 1024  # ports of this machine below it are root's
_PLAIN = re.compile(r"[^a-z0-9]+")
_ENDINGS = (".tar.gz", ".tar.zst", ".oci.tar", ".tar", ".tgz", ".oci")


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """The file that was written, and what it says. settings: of the image, where it lies here."""

    path: Path
    service: str
    is_job: bool
    settings: ImageConfig | None


def write_project(
    image: str,
    *,
    ports: Sequence[int] = (),
    is_open: bool = False,
    certificate_names: Sequence[str] = (),
    name: str = "",
    out: Path = Path("compose.yaml"),
) -> WrittenFile:
    """Write a Compose file for one image: a path, or HOST/NAME@sha256:…, of which nothing is fetched.

    ports: on which the program listens; none: it is a job. is_open: they take plain connections, too. certificate_names: DNS names. name: of the service; of the image by default. Raises `Misuse`, also where `out` is
    there, `NotFound` for no such path, `Malformed` for what is no image.
    """
    if os.path.lexists(out):
        raise files.taken(out, private=False)
    settings, digest, path = None, "", ""
    if names.is_name(image) and not Path(image).exists():
        reference = names.parse(image)
        digest, written = reference.pinned(), image
        stem = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    else:
        path = image
        chosen = load.identify(Path(image), digest=None, platform=load.PLATFORM)
        stem = Path(image).name or Path(image).resolve().name
        for ending in _ENDINGS:
            stem = stem.removesuffix(ending)
        settings, digest = (None, "") if chosen is None else (chosen.config, chosen.digest)
        written = ""
    service = name or _PLAIN.sub("-", stem.lower()).strip("-")[:40] or "program"
    if fields.NAME.fullmatch(service) is None:
        raise Misuse(
            f"--name: expected {fields.NAMES}, got {service[:80]!r}",
            code="bad-name",
            hint="a plain name, like web",
        )
    if path and not digest:
        raise Misuse(
            f"{image}: is a folder of files, and no image of a registry's form",
            code="not-an-image",
            hint="`strongroom convert FOLDER --config FILE` takes such; a Compose file names an OCI layout, an archive, or HOST/NAME@sha256:…",
        )
    network = _Network(ports=tuple(ports), is_open=is_open, certificate_names=tuple(certificate_names))
    text = _text(service, written or f"{service}@{digest}", path, network, settings)
    file.refuse_blocked(file.parse(text.encode(), what=out.name))
    files.write(out, text.encode())
    return WrittenFile(path=out, service=service, is_job=not ports, settings=settings)


@dataclass(frozen=True, kw_only=True)
class _Network:
    ports: tuple[int, ...]
    is_open: bool
    certificate_names: tuple[str, ...]

    def lines(self) -> list[str]:
        """What stands below x-strongroom of a service."""
        names = ", ".join(map(_quoted, self.certificate_names or ("web.example.org",)))
        return [
            f"      {'' if self.is_open else '# '}open: [{', '.join(map(str, self.ports))}]              # plain connections too, for a program that ends TLS by itself",
            f"      {'' if self.certificate_names else '# '}certificate: {{names: [{names}]}}   # the program finds it in /run/strongroom/tls",
            "      # egress: [{host: api.example.org, port: 443}]   # nothing else outside is reached",
        ]


def _text(service: str, image: str, path: str, network: _Network, settings: ImageConfig | None) -> str:
    ports = network.ports
    lines = [
        "# A Compose file whose services run in rooms, by `up`. What Compose cannot say stands below x-strongroom;",
        "# `strongroom init --schema` prints the schema by which editors complete it.",
        f"name: {_quoted(service)}",
        "",
        f"{extension.EXTENSION}:",
        "  days: 30                     # the contract is valid for so long",
        "  # datasets:                  # data that `up` seals; a service names what of it its program reads at /data/NAME",
        "  #   flights: ./flights",
        "",
        "services:",
        f"  {service}:",
        f"    image: {_quoted(image)}",
    ]
    if settings is not None:
        words = " ".join(oci.printable(word) for word in (*settings.entrypoint, *settings.command))
        lines += [
            f"    # the image runs: {words[:200]}",
            f"    # as user: {oci.printable(settings.user)[:60] or 'root'}",
        ]
    lines += [
        '    # command: ["--option"]     # in place of the image\'s own; the contract has it, for all to sign',
        "    # environment: {NAME: value}  # everybody who signs reads it: no place for passwords",
        "    mem_limit: 512m              # of the room's whole machine",
    ]
    if ports:
        lines += [
            "    restart: on-failure",
            "    ports:                       # this machine's port : the program's",
            *(f'      - "{_published(port)}:{port}"' for port in ports),
        ]
    lines += [f"    {extension.EXTENSION}:"]
    if path:
        lines += [f"      image: {_quoted(path)}"]
    if ports:
        lines += [
            f"      renewal_seconds: {extension.RENEWAL_SECONDS}      # the room proves itself again so often",
            *network.lines(),
        ]
    else:
        lines += [
            f"      wall_seconds: {extension.WALL_SECONDS}          # its program may run so long",
            "      outputs: [{path: /out}]    # what the program writes there leaves the room, sealed for you",
            "      # datasets: [flights]      # read at /data/flights",
        ]
    return "\n".join(lines) + "\n"


def _published(port: int) -> int:
    return port if port >= LEAST_PUBLISHED else 8000 + port


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
