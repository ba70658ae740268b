"""`strongroom reference sign|show|verify|publish|pull`: what a base will report on every platform, signed in one file."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.evidence.given import moment
from strongroom.cli.identity.files import IdentityFile, PassphraseFd
from strongroom.cli.identity.files import load as load_identity
from strongroom.cli.images import registry_options
from strongroom.cli.images.registry_options import Credentials, CredentialsFd, PlainHttp, RegistryCa
from strongroom.cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.appraisal.reference.values import ReferenceRelease
    from strongroom.bases.release_file import Verified
    from strongroom.fetch.references import ReferenceReader

Trust = Annotated[
    list[Path] | None,
    typer.Option("--trust", help="A party file whose signature counts. Repeatable: any one of them."),
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Where the newest version seen is remembered. Default: $XDG_STATE_HOME/strongroom/references.",
    ),
]
At = Annotated[
    str | None, typer.Option("--at", metavar="YYYY-MM-DDTHH:MM:SSZ", help="Judge as of this time, not now.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
File = Annotated[Path, typer.Argument(help="A signed file of reference values.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(
        help="Reference values of a base, with provenance and bill of materials, in one signed file.",
        no_args_is_help=True,
    )
    for verb in (sign, show, verify, publish, pull):
        group.command(verb.__name__)(verb)
    app.add_typer(group, name="reference")


def sign(
    identity: IdentityFile,
    base: Annotated[
        list[Path], typer.Option(help="Folder of a built base. Repeatable: one for each profile.")
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the release: lower-case letters, digits, dashes.")
    ],
    version: Annotated[int, typer.Option(help="Its number, higher than every one before.", min=1)],
    values: Annotated[
        list[Path] | None,
        typer.Option(help="What `strongroom measure … --reference` printed, for hardware. Repeatable."),
    ] = None,
    days: Annotated[int, typer.Option(help="How long it counts.", min=1, max=3650)] = 365,
    issued: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-MM-DDTHH:MM:SSZ", help="From when on; default: now. The same gives the same bytes."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the file, which is named by its digest.")] = Path(),
    as_json: AsJson = False,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Sign what a base will report on every platform that it was built for."""
    from strongroom.parties import release

    begins = moment(issued, "--issued")
    signed = release.sign_reference(
        base,
        values=values or (),
        name=name,
        version=version,
        issued=begins,
        expires=begins + timedelta(days=days),
        signer=lambda: load_identity(identity, passphrase_fd),
        out=out,
    )
    profiles = [platform.profile for platform in signed.release.platforms]
    if as_json:
        print(json.dumps({"file": str(signed.path), "platforms": profiles}))
    else:
        print(f"{signed.path}\n  {name}, version {version}: {', '.join(profiles)}")


def show(
    file: File,
    platform: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="local|uki|snp|tdx|nitro",
            help="Print one platform's values, as `contract new --reference` takes them.",
        ),
    ] = None,
    trust: Trust = None,
    state: State = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Show a file. What a contract may take from it (--for) is shown only when somebody trusted signed it."""
    from strongroom.parties import release as releasing

    if platform is not None:
        release = _reader(trust, state, at).load(file).release
        values = release.platform(platform)
        print(json.dumps({"tee": values.tee, "references": list(values.references)}))
        return
    shown = releasing.show_reference(file)
    if as_json:
        print(json.dumps([each.statement.to_json() for each in shown], indent=1, sort_keys=True))
        return
    if trust:
        _tell(_reader(trust, state, at).load(file))
    else:
        print("NOT VERIFIED: whoever made this file wrote what follows (--trust PARTY says whom you trust)")
    for each in shown:
        print(f"{printable(each.statement.predicate_type)}, about {len(each.statement.subjects)} files")
        for line in () if each.release is None else _lines(each.release):
            print(f"  {printable(line)}")


def verify(
    file: File,
    trust: Trust = None,
    base: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a base that has to be the one the file is about. Repeatable."),
    ] = None,
    state: State = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Verify every statement of a file: signer, dates, files, and that no newer version was seen before."""
    from strongroom.fetch import references

    verified = references.verify_reference(file, reader=_reader(trust, state, at), bases=base or ())
    if as_json:
        print(json.dumps(_described(verified)))
    else:
        _tell(verified)


def publish(
    file: File,
    where: Annotated[str, typer.Argument(help="HOST[:PORT]/REPOSITORY[:TAG].")],
    credentials: Credentials = None,
    credentials_fd: CredentialsFd = None,
    registry_ca: RegistryCa = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Put a file into an OCI registry, where it is found by its digest and by that of every file it is about."""
    from strongroom.fetch import references
    from strongroom.fetch.oci import names

    reference = names.parse(where, bare=True)
    access = registry_options.access(
        reference,
        credentials=credentials,
        credentials_fd=credentials_fd,
        ca=registry_ca,
        plain_http=plain_http,
    )
    published = references.publish_reference(file, where=reference, access=access)
    name = published.name
    if as_json:
        document = {"reference": str(name), "digest": name.digest, "subjects": list(published.subjects)}
        print(json.dumps(document))
    else:
        print(f"{name}\n  found also by the digests of {len(published.subjects)} files")


def pull(
    where: Annotated[
        str, typer.Argument(help="HOST[:PORT]/REPOSITORY@sha256:…: its own digest, or with --about a file's.")
    ],
    trust: Trust = None,
    about: Annotated[
        bool, typer.Option("--about", help="The digest is of a base's file: find what is about it.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
    state: State = None,
    at: At = None,
    credentials: Credentials = None,
    credentials_fd: CredentialsFd = None,
    registry_ca: RegistryCa = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Get a file from an OCI registry, and keep it if somebody trusted signed it and nothing newer was seen."""
    from strongroom.fetch import references
    from strongroom.fetch.oci import names

    reference = names.parse(where)
    access = registry_options.access(
        reference,
        credentials=credentials,
        credentials_fd=credentials_fd,
        ca=registry_ca,
        plain_http=plain_http,
    )
    reader = _reader(trust, state, at)
    pulled = references.pull_reference(reference, reader=reader, access=access, out=out, about=about)
    if as_json:
        print(json.dumps({"file": str(pulled.path), **_described(pulled.verified)}))
        return
    print(pulled.path)
    _tell(pulled.verified)


def _reader(trust: list[Path] | None, state: Path | None, at: str | None) -> ReferenceReader:
    from strongroom.fetch import references

    return references.open_reader(trust or (), now=moment(at), state=state)


def _described(verified: Verified) -> dict[str, object]:
    release = verified.release
    return {
        "name": release.name,
        "version": release.version,
        "signer": verified.keyid,
        "platforms": [platform.profile for platform in release.platforms],
        "provenance": verified.provenance is not None,
        "sbom": verified.bill is not None,
        "subjects": {file.name: file.digest for file in release.subjects},
    }


def _tell(verified: Verified) -> None:
    release = verified.release
    print(
        f"{release.name}, version {release.version}: {', '.join(platform.profile for platform in release.platforms)}"
    )
    print(f"  signed by {verified.keyid}")
    print(f"  counts until {release.expires:%Y-%m-%d}, about {len(release.subjects)} files")
    if verified.provenance is not None:
        print(f"  provenance: {len(verified.packages)} packages, by {printable(verified.builder)}")
    if verified.bill is not None:
        print("  bill of materials: CycloneDX")


def _lines(release: ReferenceRelease) -> Iterator[str]:
    yield f"{release.name}, version {release.version}"
    for platform in release.platforms:
        for number, values in enumerate(platform.references, 1):
            for key, value in values.items():
                yield f"{platform.profile} {number}: {key} {value}"
    for subject in release.subjects:
        yield f"{subject.digest}  {subject.name}"
