"""Signed files of reference values in OCI registries, as artifacts: found by their digest, or by any file they are about.

One manifest by itself, and one for each subject of the file, all with the same blobs: an envelope each. Whoever has one
file of a base asks for what is about its digest. What comes back is believed for its signatures alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.appraisal import intoto
from strongroom.appraisal.reference import values
from strongroom.errors import Malformed, NotFound
from strongroom.fetch.oci import artifacts, push
from strongroom.images import artifact

if TYPE_CHECKING:
    from strongroom.fetch.oci.names import OciReference
    from strongroom.fetch.oci.session import Access

KIND = "application/vnd.strongroom.reference.v2"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
PREDICATE = "in-toto.io/predicate-type"
_OCTETS = "application/octet-stream"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where a reference file is in a registry: the digest of its own manifest, and the digests of the files from which it is found."""

    digest: str
    subjects: tuple[str, ...]


def checked(data: bytes) -> bytes:
    """The same bytes, where they are such a file. Raises `Malformed`."""
    statements = [intoto.unverified(line) for line in intoto.lines(data)]
    if [statement.predicate_type for statement in statements].count(values.PREDICATE) != 1:
        raise Malformed(
            "reference file: expected one statement of reference values",
            hint="give a file that `strongroom reference sign` wrote",
        )
    return data


def publish(data: bytes, where: OciReference, *, access: Access) -> Published:
    """Put a file into a repository. Raises `Malformed` for what is no such file, and as `push`."""
    lines = intoto.lines(checked(data))
    statements = [intoto.unverified(line) for line in lines]
    parts, contents = [], {}
    for number, (line, statement) in enumerate(zip(lines, statements, strict=True)):
        part = artifact.Part(
            media_type=ENVELOPE,
            digest=artifact.part_of(line, ENVELOPE).digest,
            size=len(line),
            annotations={artifact.TITLE: f"{number}.dsse.json", PREDICATE: statement.predicate_type},
        )
        parts.append(part)
        contents[part.digest] = line
    manifest = artifact.Artifact(artifact_type=KIND, parts=tuple(parts))
    pusher = push.Pusher(where, access=access)
    pusher.contents(manifest, contents)
    digest = pusher.artifact(manifest)
    if where.tag is not None:
        pusher.manifest(manifest.encode(), artifact.MANIFEST, tag=where.tag)
    about = {file.digest for file in statements[0].subjects}
    for subject in sorted(about):
        # The subject's size is not known here; registries do not look at what a subject is.
        named = artifact.Part(media_type=_OCTETS, digest=subject, size=0)
        pusher.artifact(artifact.Artifact(artifact_type=KIND, parts=tuple(parts), subject=named))
    return Published(digest=digest, subjects=tuple(sorted(about)))


def pull(where: OciReference, *, access: Access) -> bytes:
    """The file of that manifest digest. Raises as `artifacts.pull`."""
    held = artifacts.pull(where, access=access, max_bytes=intoto.MAX_BYTES * 2)
    return _joined(held)


def about(where: OciReference, *, access: Access) -> tuple[bytes, ...]:
    """The files about a subject's digest, as the registry lists them. Raises `NotFound` when there is none."""
    artifacts_held = artifacts.about(where, kinds=(KIND,), access=access, max_bytes=intoto.MAX_BYTES * 2)
    if not artifacts_held:
        raise NotFound(
            f"{where}: no reference values about it",
            code="not-in-registry",
            hint="whoever made the base puts them there: `strongroom reference publish`; is it the digest of a base's file?",
        )
    files = []
    for artifact_about in artifacts_held:
        # Whoever may write there may put rubbish beside what is good.
        with contextlib.suppress(Malformed):
            files.append(_joined(artifact_about))
    return tuple(files)


def _joined(held: artifacts.FetchedArtifact) -> bytes:
    if held.artifact.artifact_type != KIND or any(
        part.media_type != ENVELOPE for part in held.artifact.parts
    ):
        raise Malformed(
            f"{held.digest}: no file of reference values",
            code="wrong-type",
            hint="give the digest that `strongroom reference publish` printed, or --about with that of a base's file",
        )
    data = b"".join(line + b"\n" for line in held.contents)
    intoto.lines(data)
    return data
