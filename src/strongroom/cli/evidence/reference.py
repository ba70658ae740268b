"""`strongroom reference sign|show|verify|publish|pull`: what a base will report on every platform, signed in one file."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom import files
from strongroom.cli.evidence.given import moment
from strongroom.cli.identity.files import IdentityFile, PassphraseFd
from strongroom.cli.identity.files import load as load_identity
from strongroom.cli.images import registry_options
from strongroom.cli.images.registry_options import Credentials, CredentialsFd, PlainHttp, RegistryCa
from strongroom.cli.printable import printable
from strongroom.errors import Misuse, Refused, StrongroomError, of_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.appraisal.reference.values import ReferenceRelease
    from strongroom.bases.release_file import Verified
    from strongroom.crypto.sign import VerifyingKey
    from strongroom.model.identifiers import KeyId

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
    from strongroom.bases import release_file

    bases = [release_file.read(folder) for folder in base]
    begins = moment(issued, "--issued")
    made = release_file.release(
        bases,
        _values(values or []),
        name=name,
        version=version,
        issued=begins,
        expires=begins + timedelta(days=days),
    )
    owner = load_identity(identity, passphrase_fd)
    data = release_file.write(made, bases, key=owner.signing, keyid=owner.party().keyid)
    out.mkdir(parents=True, exist_ok=True)
    target = out / release_file.file_name(made)
    files.write(target, data, replace=True)
    if as_json:
        print(json.dumps({"file": str(target), "platforms": [one.profile for one in made.platforms]}))
    else:
        print(f"{target}\n  {name}, version {version}: {', '.join(one.profile for one in made.platforms)}")


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
    from strongroom.appraisal import intoto
    from strongroom.appraisal.reference import values as reference

    if platform is not None:
        verified = _verified_file(file, trust, state, at)
        one = verified.release.platform(platform)
        print(json.dumps({"tee": one.tee, "references": list(one.references)}))
        return
    told = files.parsed(
        file,
        lambda data: [intoto.unverified(line) for line in intoto.lines(data)],
        max_bytes=intoto.MAX_FILE,
    )
    if as_json:
        print(json.dumps([json.loads(one.encode()) for one in told], indent=1))
        return
    if trust:
        _tell(_verified_file(file, trust, state, at))
    else:
        print("NOT VERIFIED: whoever made this file wrote what follows (--trust PARTY says whom you trust)")
    for each in told:
        print(f"{printable(each.predicate_type)}, about {len(each.subjects)} files")
        if each.predicate_type == reference.PREDICATE:
            for line in _lines(reference.read(each)):
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
    from strongroom.bases import release_file

    verified = _verified_file(file, trust, state, at)
    for folder in base or ():
        release_file.check_files(verified.release, release_file.read(folder))
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
    from strongroom.appraisal import intoto
    from strongroom.fetch.oci import names, reference_files

    reference = names.parse(where, bare=True)
    if reference.digest is not None:
        raise Misuse(
            f"{where}: a digest is no place to publish to: what is put there has its own",
            hint="leave out @sha256:…",
        )
    access = registry_options.access(
        reference,
        credentials=credentials,
        credentials_fd=credentials_fd,
        ca=registry_ca,
        plain_http=plain_http,
    )
    data = files.parsed(file, reference_files.checked, max_bytes=intoto.MAX_FILE)
    done = reference_files.publish(data, reference, access=access)
    name = str(reference.by(done.digest))
    if as_json:
        print(json.dumps({"reference": name, "digest": done.digest, "subjects": list(done.subjects)}))
    else:
        print(f"{name}\n  found also by the digests of {len(done.subjects)} files")


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
    from strongroom.bases import release_file
    from strongroom.fetch.oci import names, reference_files

    reference = names.parse(where)
    access = registry_options.access(
        reference,
        credentials=credentials,
        credentials_fd=credentials_fd,
        ca=registry_ca,
        plain_http=plain_http,
    )
    _keys(trust)  # complain before asking anybody
    if about:
        found = reference_files.about(reference, access=access)
        data, verified = _newest(found, trust, state, at, reference.pinned())
    else:
        data = reference_files.pull(reference, access=access)
        verified = _verified(data, trust, state, at)
    out.mkdir(parents=True, exist_ok=True)
    target = out / release_file.file_name(verified.release)
    files.write(target, data, replace=True)
    if as_json:
        print(json.dumps({"file": str(target), **_described(verified)}))
        return
    print(target)
    _tell(verified)


def _newest(
    found: tuple[bytes, ...], trust: list[Path] | None, state: Path | None, at: str | None, subject: str
) -> tuple[bytes, Verified]:
    """Of what is about a file, the highest version that somebody trusted signed. Others' files do not hide it."""
    from strongroom.bases import release_file

    good, failures = [], []
    for data in found:
        try:
            verified = release_file.verify(data, trusted=_keys(trust), now=moment(at))
        except StrongroomError as failure:
            failures.append(failure)
            continue
        if any(one.digest == subject for one in verified.release.subjects):
            good.append((verified.release.version, data))
    if not good:
        raise (
            failures[0]
            if failures
            else Refused(
                f"of {len(found)} files that the registry has for {subject}, none is about it",
                code="other-file",
                hint="ask whoever publishes the base for its file's own digest, and pull by that without --about",
            )
        )
    _, data = max(good)
    return data, _verified(data, trust, state, at)


def _verified_file(file: Path, trust: list[Path] | None, state: Path | None, at: str | None) -> Verified:
    from strongroom.appraisal import intoto

    with of_file(file):
        return _verified(files.read(file, max_bytes=intoto.MAX_FILE), trust, state, at)


def _verified(data: bytes, trust: list[Path] | None, state: Path | None, at: str | None) -> Verified:
    from strongroom.bases import release_file
    from strongroom.fetch.endorsements.rollback import Marks
    from strongroom.fetch.endorsements.statement import Mark

    made = release_file.verify(data, trusted=_keys(trust), now=moment(at))
    mark = Mark(name=f"reference/{made.keyid}/{made.release.name}", number=made.release.version)
    Marks(folder=state or files.state_folder("references")).raise_to((mark,))
    return made


def _keys(trust: list[Path] | None) -> dict[KeyId, VerifyingKey]:
    from strongroom.model import party

    if not trust:
        raise Misuse(
            "no --trust says whose signature counts",
            code="nobody-trusted",
            hint="name the signer's party file: --trust NAME.party.json",
        )
    parties = [files.parsed(one, party.parse, max_bytes=party.MAX_BYTES) for one in trust]
    return {one.keyid: one.signing_key for one in parties}


def _values(paths: list[Path]) -> dict[str, list[dict[str, str]]]:
    from strongroom.appraisal.reference import values as reference

    found: dict[str, list[dict[str, str]]] = {}
    for path in paths:
        tee, references = files.parsed(path, reference.parse_values, max_bytes=reference.MAX_BYTES)
        found.setdefault(tee, []).extend(references)
    return found


def _described(verified: Verified) -> dict[str, object]:
    made = verified.release
    return {
        "name": made.name,
        "version": made.version,
        "signer": verified.keyid,
        "platforms": [one.profile for one in made.platforms],
        "provenance": verified.provenance is not None,
        "sbom": verified.bill is not None,
        "subjects": {one.name: one.digest for one in made.subjects},
    }


def _tell(verified: Verified) -> None:
    made = verified.release
    print(f"{made.name}, version {made.version}: {', '.join(one.profile for one in made.platforms)}")
    print(f"  signed by {verified.keyid}")
    print(f"  counts until {made.expires:%Y-%m-%d}, about {len(made.subjects)} files")
    if verified.provenance is not None:
        print(f"  provenance: {len(verified.packages)} packages, by {printable(verified.builder)}")
    if verified.bill is not None:
        print("  bill of materials: CycloneDX")


def _lines(made: ReferenceRelease) -> Iterator[str]:
    yield f"{made.name}, version {made.version}"
    for one in made.platforms:
        for number, values in enumerate(one.references, 1):
            for key, value in values.items():
                yield f"{one.profile} {number}: {key} {value}"
    for subject in made.subjects:
        yield f"{subject.digest}  {subject.name}"
