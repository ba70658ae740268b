"""The options of every verb that speaks with OCI registries, in one wording."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import files
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.fetch.oci.names import Reference
    from strongroom.fetch.oci.session import Access

Mirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        metavar="HOST[:PORT]",
        help="Asked before the registry, in this order; never believed. Repeatable.",
    ),
]
Credentials = Annotated[
    Path | None,
    typer.Option("--credentials", help="A Docker config.json with log-ins. None is looked for otherwise."),
]
CredentialsFd = Annotated[
    int | None,
    typer.Option(
        "--credentials-fd", help="Read such a file, or one line NAME:SECRET, from this file descriptor."
    ),
]
RegistryCa = Annotated[
    Path | None,
    typer.Option("--registry-ca", help="The only CAs (PEM) trusted for registries, instead of the system's."),
]
PlainHttp = Annotated[
    bool,
    typer.Option(
        "--insecure-plain-http-to-loopback", help="No TLS with registries at 127.0.0.1 or ::1. For tests."
    ),
]


def access(
    reference: Reference,
    *,
    mirrors: list[str] | None = None,
    credentials: Path | None = None,
    credentials_fd: int | None = None,
    ca: Path | None = None,
    plain_http: bool = False,
) -> Access:
    """How to speak with the registry of `reference`. Raises `Misuse` or `Malformed`."""
    from strongroom.fetch.oci import login
    from strongroom.fetch.oci.session import Access

    keyring = login.Keyring()
    if credentials is not None and credentials_fd is not None:
        raise Misuse("--credentials and --credentials-fd: one of both")
    if credentials is not None:
        keyring = files.parsed(
            credentials,
            lambda data: login.parse(data, host=reference.place),
            max_bytes=login.MAX_FILE,
        )
    elif credentials_fd is not None:
        keyring = login.parse(_from(credentials_fd), host=reference.place)
    return Access(keyring=keyring, mirrors=tuple(mirrors or ()), ca=ca, plain_http_to_loopback=plain_http)


def _from(fd: int) -> bytes:
    from strongroom.fetch.oci import login

    try:
        with os.fdopen(os.dup(fd), "rb") as source:
            return source.read(login.MAX_FILE)
    except (OSError, OverflowError):
        raise Misuse(
            f"credentials: file descriptor {fd} is not open",
            hint="open it for the command, as in `--credentials-fd 3 3<FILE`",
        ) from None
