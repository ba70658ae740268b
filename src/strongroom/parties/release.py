"""What built bases will report, signed by whoever releases them: one file for all who draft contracts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.appraisal import intoto
from strongroom.appraisal.reference import values as reference_values
from strongroom.bases import release_file
from strongroom.errors import of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from strongroom.appraisal.intoto import InTotoStatement
    from strongroom.appraisal.reference.values import ReferenceRelease
    from strongroom.model.identity import Identity


@dataclass(frozen=True, kw_only=True)
class SignedReference:
    """A release, and the file that has it."""

    path: Path
    release: ReferenceRelease


@dataclass(frozen=True, kw_only=True)
class ShownStatement:
    """A statement that nobody has verified. release: what it says, where it is one of reference values."""

    statement: InTotoStatement
    release: ReferenceRelease | None


def sign_reference(
    bases: Sequence[Path],
    *,
    values: Sequence[Path] = (),
    name: str,
    version: int,
    issued: datetime,
    expires: datetime,
    signer: Callable[[], Identity],
    out: Path,
) -> SignedReference:
    """Sign what `bases` (folders, one for each profile) will report; the same arguments give the same bytes.

    values: files of what `measure --reference` printed, for hardware. signer: asked once all else is known to be good. out: a folder, made where
    it is not there; the file in it is named by its digest. Raises `Misuse`, `Refused`, `NotFound`, `Malformed`.
    """
    folders = [release_file.read(base) for base in bases]
    release = release_file.release(
        folders, _by_tee(values), name=name, version=version, issued=issued, expires=expires
    )
    identity = signer()
    data = release_file.write(release, folders, key=identity.signing, keyid=identity.party().keyid)
    out.mkdir(parents=True, exist_ok=True)
    target = out / release_file.file_name(release)
    files.write(target, data, replace=True)
    return SignedReference(path=target, release=release)


def show_reference(file: Path) -> tuple[ShownStatement, ...]:
    """Every statement of a file, in its order, whoever signed them: nothing is verified. Raises `Malformed`."""
    statements = files.parsed(
        file,
        lambda data: [intoto.unverified(line) for line in intoto.lines(data)],
        max_bytes=intoto.MAX_FILE,
    )
    with of_file(file):
        return tuple(
            ShownStatement(
                statement=statement,
                release=reference_values.read(statement)
                if statement.predicate_type == reference_values.PREDICATE
                else None,
            )
            for statement in statements
        )


def _by_tee(paths: Sequence[Path]) -> dict[str, list[dict[str, str]]]:
    by_tee: dict[str, list[dict[str, str]]] = {}
    for path in paths:
        tee, references = files.parsed(
            path, reference_values.parse_values, max_bytes=reference_values.MAX_BYTES
        )
        by_tee.setdefault(tee, []).extend(references)
    return by_tee
