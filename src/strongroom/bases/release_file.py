"""The signed file of a base: what it will report on each platform, how it was built, and what is in it.

Three statements about the same files, one a line (`appraisal.intoto`), each signed by itself:

  reference values      `appraisal.reference.values`, of every profile that the base was built for
  provenance            SLSA v1 (https://slsa.dev/spec/v1.0/provenance): parameters, every package with its digest, builder
  bill of materials     CycloneDX (`sbom`), of predicate type `BILL`

Made from the folders of built bases: every file's digest is computed anew. No clock and no randomness goes in: signed a
second time by the same key, the file has the same bytes. Its name is the digest of the reference statement, whoever signed it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import strongroom
from strongroom.appraisal import intoto
from strongroom.appraisal.intoto import InTotoStatement, InTotoSubject
from strongroom.appraisal.reference import values as reference
from strongroom.appraisal.reference.values import Reference, ReferenceRelease
from strongroom.bases import document
from strongroom.bases import sbom as bill
from strongroom.crypto import digest
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Misuse, NotFound, Refused
from strongroom.model.identifiers import KeyId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from strongroom.bases.document import Package
    from strongroom.crypto.sign import SigningKey, VerifyingKey

PROVENANCE = "https://slsa.dev/provenance/v1"
BILL = "https://cyclonedx.org/bom"
BUILD_TYPE = "urn:strongroom:base-build:1"
SUFFIX = ".reference.jsonl"
LOCAL_TEE, _CLOUDS = "tpm", "uki"
_TREE = "strongroom-tree-sha256"  # over the paths and contents of a tree, where a package is no one file
_CHUNK = 1 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class BaseFolder:
    """A base's folder as it was found. `local`: the registers of local rooms, where the document has them."""

    profile: str
    debug: bool
    files: tuple[InTotoSubject, ...]
    packages: tuple[Package, ...]
    local: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A file of which every statement was signed by somebody trusted. `keyid` is who signed the reference values."""

    release: ReferenceRelease
    keyid: KeyId
    provenance: dict[str, Any] | None
    bill: dict[str, Any] | None

    @property
    def packages(self) -> list[Any]:
        """What the provenance says went into it."""
        return _at(self.provenance, "buildDefinition", "resolvedDependencies", kind=list) or []

    @property
    def builder(self) -> str:
        """Who the provenance says built it."""
        return _at(self.provenance, "runDetails", "builder", "id", kind=str) or "nobody"


def read(folder: Path) -> BaseFolder:
    """A base's folder. Raises `Refused` when a file is not the one that its document names, `NotFound`, `Malformed`."""
    data = document.read(folder / document.BASE, document.MAX_BYTES)
    base = document.parse(data)
    profile = base.profile.name
    files = []
    for name, (_, stated) in sorted(base.files.items()):
        if _digest(folder / name) != stated:
            raise Refused(
                f"{folder / name}: not the file that {document.BASE} names",
                code="wrong-digest",
                hint="build the base again",
            )
        files.append(InTotoSubject(name=f"{profile}/{name}", digest=stated))
    files.append(InTotoSubject(name=f"{profile}/{document.BASE}", digest=digest.sha256(data)))
    packages = document.read(folder / document.PACKAGES, document.MAX_PACKAGES)
    if digest.sha256(packages) != base.packages:
        raise Refused(
            f"{folder / document.PACKAGES}: not the file that {document.BASE} names",
            code="wrong-digest",
            hint="build the base again",
        )
    return BaseFolder(
        profile=profile,
        debug=base.debug,
        files=tuple(files),
        packages=document.parse_packages(packages),
        local=base.reference,
    )


def release(
    bases: Sequence[BaseFolder],
    values: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    name: str,
    version: int,
    issued: datetime,
    expires: datetime,
) -> ReferenceRelease:
    """The reference values of all platforms. values: by TEE, what `measure --reference` printed.

    Raises `Misuse` for a base without values, values without a base, or a base that has a console.
    """
    if any(base.debug for base in bases):
        raise Misuse(
            "a base with a console is not released",
            code="debug-base",
            hint="build it without --debug-console, and release that one",
        )
    values_left = {key: [dict(row) for row in references] for key, references in values.items()}
    header: dict[str, Any] = {"name": name, "issued": issued, "expires": expires}
    platforms = []

    def add(profile: str, tee: str, references: list[dict[str, str]]) -> None:
        if not references:
            raise Misuse(
                f"{profile}: no reference values",
                code="no-values",
                hint="`strongroom measure FOLDER … --reference` prints them; give them with --values",
            )
        platforms.append(Reference(**header, profile=profile, tee=tee, references=tuple(references), tcb={}))

    for base in bases:
        if base.local:
            add(base.profile, LOCAL_TEE, [base.local])
        elif base.profile != _CLOUDS:
            add(base.profile, base.profile, values_left.pop(base.profile, []))
    # A base for clouds has the registers of whichever TEE the cloud has.
    clouds = any(base.profile == _CLOUDS for base in bases)
    if values_left and not clouds:
        raise Misuse(
            f"--values for {min(values_left)}, and no base for it",
            code="no-base",
            hint=f"name a base that was built --for {min(values_left)}, or leave these values out",
        )
    if clouds and not values_left:
        add(_CLOUDS, "", [])
    for tee, references in sorted(values_left.items()):
        add(f"{_CLOUDS}-{tee}", tee, references)
    subjects = tuple(file for base in bases for file in base.files)
    return ReferenceRelease(**header, version=version, subjects=subjects, platforms=tuple(platforms))


def write(release: ReferenceRelease, bases: Sequence[BaseFolder], *, key: SigningKey, keyid: KeyId) -> bytes:
    """The signed file."""
    about = release.subjects
    statements = (
        release.statement(),
        InTotoStatement(subjects=about, predicate_type=PROVENANCE, predicate=_provenance(bases, keyid)),
        InTotoStatement(subjects=about, predicate_type=BILL, predicate=_bill(release, bases)),
    )
    return b"".join(statement.sign(key, keyid=keyid) + b"\n" for statement in statements)


def file_name(release: ReferenceRelease) -> str:
    """What the file is called: by the digest of its reference statement."""
    return digest.sha256(release.statement().encode()).replace(":", "-") + SUFFIX


def verify(data: bytes, *, trusted: Mapping[KeyId, VerifyingKey], now: datetime) -> Verified:
    """Verify all of a file. trusted: keys by their digests. Raises `Refused`, or `Malformed`.

    Each of its statements has to be signed by one of the trusted keys, and all have to be about the same files.
    """
    release = reference.open_signed(data, trusted=tuple(trusted.values()), now=now)
    statements: dict[str, InTotoStatement] = {}
    keyid = KeyId("")
    for line in intoto.lines(data):
        statement, signer = intoto.open_signed(line, trusted=tuple(trusted.values()))
        if statement.predicate_type in statements:
            raise Malformed(
                f"reference file: two statements of type {statement.predicate_type[:80]}", code="duplicate"
            )
        if statement.subjects != release.subjects:
            raise Refused(
                "reference file: its statements are about different files",
                code="other-subjects",
                hint="it was put together from two releases: get the release's own file again",
            )
        statements[statement.predicate_type] = statement
        if statement.predicate_type == reference.PREDICATE:
            keyid = next(name for name, key in trusted.items() if key == signer)
    if strangers := statements.keys() - {reference.PREDICATE, PROVENANCE, BILL}:
        raise Malformed(f"reference file: a statement of type {min(strangers)[:80]!r}", code="unknown-type")
    return Verified(
        release=release,
        keyid=keyid,
        provenance=statements[PROVENANCE].predicate if PROVENANCE in statements else None,
        bill=statements[BILL].predicate if BILL in statements else None,
    )


def check_files(release: ReferenceRelease, built: BaseFolder) -> None:
    """Raise `Refused` unless every file of a base's folder is one that the release is about."""
    known = set(release.subjects)
    for file in built.files:
        if file not in known:
            raise Refused(
                f"{file.name}: {file.digest} is not among the files of release {release.name}, version {release.version}",
                code="other-file",
                hint="the base is of another release, or was changed: give the reference file of its own release",
            )


def _at(value: Any, *keys: str, kind: type[_T]) -> _T | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, kind) else None


def _provenance(bases: Sequence[BaseFolder], keyid: KeyId) -> dict[str, Any]:
    packages = bill.in_order(package for base in bases for package in base.packages)
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"profiles": [base.profile for base in bases], "debug": False},
            "internalParameters": {},
            "resolvedDependencies": [
                {
                    "name": package.name,
                    "uri": bill.purl(package),
                    "digest": {
                        "sha256" if bill.is_file(package) else _TREE: package.digest.removeprefix("sha256:")
                    },
                }
                for package in packages
            ],
        },
        "runDetails": {
            "builder": {
                "id": f"urn:strongroom:builder:{keyid}",
                "version": {"strongroom": strongroom.__version__},
            },
            "metadata": {},
        },
    }


def _bill(release: ReferenceRelease, bases: Sequence[BaseFolder]) -> dict[str, Any]:
    about = digest.sha256(canonical.dumps([file.digest for file in release.subjects]))
    packages = {package for base in bases for package in base.packages}
    return bill.write(
        packages, name=release.name, version=str(release.version), about=about, moment=release.issued
    )


def _digest(path: Path) -> str:
    state = hashlib.sha256()
    try:
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                state.update(chunk)
    except OSError:
        raise NotFound(
            f"{path}: not there, or not readable",
            code="no-base",
            hint="build a base with `strongroom base build`",
        ) from None
    return "sha256:" + state.hexdigest()
