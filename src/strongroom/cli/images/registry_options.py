"""The options of every verb that speaks with OCI registries, in one wording."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.fetch.oci.names import OciReference
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


# What `taking` gives a verb: each option's name and default.
_TAKEN = {
    "mirror": (Mirrors, None),
    "credentials": (Credentials, None),
    "credentials_fd": (CredentialsFd, None),
    "registry_ca": (RegistryCa, None),
    "plain_http": (PlainHttp, False),
}


@dataclass(frozen=True, kw_only=True)
class Registries:
    """The options about registries, as they were given."""

    mirrors: list[str] | None = None
    credentials: Path | None = None
    credentials_fd: int | None = None
    ca: Path | None = None
    plain_http: bool = False

    def access(self, name: str) -> Access:
        """How to speak with the registry of `name`. Raises `Misuse` or `Malformed`."""
        from strongroom.fetch.oci import names

        return access(
            names.parse(name),
            mirrors=self.mirrors,
            credentials=self.credentials,
            credentials_fd=self.credentials_fd,
            ca=self.ca,
            plain_http=self.plain_http,
        )


def taking(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with these options where its parameter `registries` stands, which gets what was given for them."""
    own = inspect.signature(verb, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        if parameter.name == "registries":
            parameters += [
                inspect.Parameter(name, parameter.kind, default=default, annotation=kind)
                for name, (kind, default) in _TAKEN.items()
            ]
        else:
            parameters.append(parameter)

    @functools.wraps(verb)
    def taken(**values: Any) -> None:
        given = {name: values.pop(name) for name in _TAKEN}
        verb(
            **values,
            registries=Registries(
                mirrors=given["mirror"],
                credentials=given["credentials"],
                credentials_fd=given["credentials_fd"],
                ca=given["registry_ca"],
                plain_http=given["plain_http"],
            ),
        )

    # Typer reads both: the order from the signature, the types from the annotations.
    taken.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    taken.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return taken


def access(
    reference: OciReference,
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
        raise Misuse(
            "--credentials and --credentials-fd: expected one of them, got both", hint="leave one out"
        )
    if credentials is not None:
        keyring = login.load(credentials, host=reference.place)
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
            f"--credentials-fd: file descriptor {fd} is not open",
            hint="open it for the command, as in `--credentials-fd 3 3<FILE`",
        ) from None
