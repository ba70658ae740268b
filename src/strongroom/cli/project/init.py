"""`strongroom init`: a commented Compose file for an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strongroom.errors import Misuse


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("init")(init)


def init(
    image: Annotated[
        str,
        typer.Argument(
            help="An OCI layout, an OCI or `docker save` archive, or HOST/NAME@sha256:… in a registry."
        ),
    ] = "",
    port: Annotated[
        list[int],
        typer.Option(help="A port on which the program listens; with none it is a job.", min=1, max=65_535),
    ] = [],  # noqa: B006 - typer copies it
    is_open: Annotated[
        bool,
        typer.Option(
            "--open", help="The ports take plain connections, too: for a program that ends TLS by itself."
        ),
    ] = False,
    certificate_name: Annotated[
        list[str], typer.Option(metavar="DNS-NAME", help="DNS name for the room's certificate.")
    ] = [],  # noqa: B006
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The service's name; the image's own by default.")
    ] = "",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("compose.yaml"),
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", help="Print the JSON Schema of x-strongroom, for editors, and write nothing."
        ),
    ] = False,
) -> None:
    """Write a commented Compose file for an image: a service that listens, or a job that runs to its end."""
    if schema:
        from strongroom.project import schema as schemas

        print(json.dumps(schemas.schema(), indent=1))
        return
    if not image:
        raise Misuse("init: no image", hint="name one: `strongroom init nginx.tar --port 443`")
    from strongroom.project import template

    written = template.write_project(
        image, ports=port, is_open=is_open, certificate_names=certificate_name, name=name, out=out
    )
    kind = "a job" if written.is_job else "a service"
    print(f"{written.path}: {kind}, {written.service}; read it, then type `strongroom up`")
