"""`strongroom preflight`: will an image, or a compose file's service, run in a room? Leaves with 3 when it will not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import meter, options
from strongroom.cli.images import image_source
from strongroom.cli.images.registry_options import Registries, taking
from strongroom.cli.printable import printable

if TYPE_CHECKING:
    from strongroom.images.preflight.examine import PreflightReport


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("preflight")(preflight)


@taking
def preflight(
    image: Annotated[
        str,
        typer.Argument(
            help="What `convert` takes: an OCI layout, an archive, a root file system, HOST/NAME@sha256:…, a compose file."
        ),
    ],
    from_: image_source.From = None,
    platform: Annotated[
        list[str],
        typer.Option(
            metavar="local|uki|snp|tdx|nitro",
            help="local, uki, snp, tdx, nitro; may be repeated. All when absent.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    memory_mib: Annotated[int, typer.Option(help="The memory that the contract will give.", min=256)] = 512,
    digest: Annotated[str | None, typer.Option(metavar="sha256:…", help="Which of several images.")] = None,
    architecture: Annotated[
        str, typer.Option(metavar="OS/ARCHITECTURE[/VARIANT]", help="Which of an index's images.")
    ] = "linux/amd64",
    config: Annotated[
        Path | None, typer.Option(help="For a root file system: its OCI image configuration (JSON).")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder with room for the unpacked image (nameless files).")
    ] = None,
    registries: Registries = Registries(),  # noqa: B008 - frozen
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say whether an image would run in a room, what would break, and how to mend it. Nothing of it is run."""
    from strongroom.fetch import images as fetch_images
    from strongroom.images import oci
    from strongroom.images.preflight import examine

    # `--platform` names profiles of the base; an image's own platform is an operating system and an architecture.
    profiles = tuple(dict.fromkeys(platform)) or examine.PLATFORMS
    with options.value_of("--architecture"):
        wanted = oci.parse_platform(architecture)
    report = fetch_images.preflight_image(
        image,
        digest=digest,
        platform=wanted,
        config=config,
        from_=from_,
        cache=image_source.cache_folder(),
        reach=registries.access,
        scratch=scratch,
        rooms=profiles,
        memory_mib=memory_mib,
        steps=meter.meter,
    )
    if as_json:
        print(json.dumps(report.to_json(), indent=1, sort_keys=True))
    else:
        _tell(report)
    report.require()


def _tell(report: PreflightReport) -> None:
    if report.image:
        print(f"image   {report.image}")
    for finding, platforms in report.findings:
        some = "" if platforms == report.platforms else f" ({', '.join(platforms)})"
        line = f" (line {finding.line})" if finding.line else ""
        print(f"{finding.severity.value:7} {finding.check}{some}: {printable(finding.where)}{line}")
        print(f"        {printable(finding.what)}")
        if finding.fix:
            print(f"        fix: {printable(finding.fix)}")
    for platform in report.platforms:
        print(f"{platform:7} {'will run' if report.runs_on(platform) else 'will NOT run'}")
