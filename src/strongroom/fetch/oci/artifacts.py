"""Getting artifacts from OCI registries: by their digest, or from the list of those about a digest. Checked like images.

No mirror is asked for such a list. Nothing in it is believed, but what it leaves out would be missed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, NotFound, Refused
from strongroom.fetch.http.streaming import BROKEN
from strongroom.fetch.oci import push
from strongroom.fetch.oci.session import Access, RegistrySession, expect
from strongroom.images import artifact
from strongroom.images.limits import LIMITS

if TYPE_CHECKING:
    from strongroom.fetch.oci.names import OciReference
    from strongroom.images.artifact import Artifact, Part

MAX_LISTED = 32
MAX_FILES = 4  # times the bytes of one file: of an artifact's files together
_MANY = "whoever may write there has put too much beside it: name the one that you mean by its own digest"
MAX_HELD = 128 << 20  # bytes, of all artifacts about one thing together


@dataclass(frozen=True, kw_only=True)
class FetchedArtifact:
    """An artifact as it was fetched; `contents` are its files in the manifest's order, each of its digest."""

    digest: str
    artifact: Artifact
    contents: tuple[bytes, ...]


def pull(reference: OciReference, *, access: Access, max_bytes: int) -> FetchedArtifact:
    """The artifact of that digest. Raises `Refused` for a tag, and as `pull.pull`. max_bytes: of each file."""
    session = RegistrySession(access, reference.place, reference.repository)
    return fetch(session, reference.pinned(), max_bytes=max_bytes)


def about(
    reference: OciReference, *, kinds: tuple[str, ...], access: Access, max_bytes: int
) -> tuple[FetchedArtifact, ...]:
    """All artifacts of `kinds` that say they are about the digest of `reference`. Raises as `pull`."""
    session = RegistrySession(access, reference.place, reference.repository)
    subject = reference.pinned()
    listed = [
        listed_artifact
        for listed_artifact in push.referrers(session, subject)
        if listed_artifact.artifact_type in kinds
    ]
    if len(listed) > MAX_LISTED:
        raise Refused(f"{reference}: more than {MAX_LISTED} artifacts about it", code="too-many", hint=_MANY)
    artifacts_held, size = [], 0
    for listed_artifact in listed:
        # Whoever may write there may list rubbish, which is no reason to miss what is good.
        with contextlib.suppress(Malformed, NotFound):
            digest, manifest = _manifest(session, listed_artifact.part.digest)
            if (
                manifest.artifact_type not in kinds
                or manifest.subject is None
                or manifest.subject.digest != subject
            ):
                continue
            size += sum(part.size for part in manifest.parts)
            if size > MAX_HELD:
                raise Refused(
                    f"{reference}: more than {MAX_HELD} bytes of artifacts about it",
                    code="too-many",
                    hint=_MANY,
                )
            artifacts_held.append(_held(session, digest, manifest, max_bytes))
    return tuple(artifacts_held)


def tagged(reference: OciReference, tag: str, *, access: Access, max_bytes: int) -> FetchedArtifact | None:
    """The artifact at a tag that a convention names after a digest; None where there is none."""
    session = RegistrySession(access, reference.place, reference.repository)
    try:
        return fetch(session, tag, max_bytes=max_bytes)
    except NotFound:
        return None


def fetch(session: RegistrySession, name: str, *, max_bytes: int) -> FetchedArtifact:
    """An artifact and its files."""
    return _held(session, *_manifest(session, name), max_bytes)


def _manifest(session: RegistrySession, name: str) -> tuple[str, Artifact]:
    url = session.url(f"/manifests/{name}")
    with session.ask("GET", url, headers={"Accept": artifact.MANIFEST}) as reply:
        expect(reply, 200)
        if reply.media_type != artifact.MANIFEST:
            raise Malformed(
                f"{url}: of type {reply.media_type[:80]!r}, expected {artifact.MANIFEST}",
                code="bad-media-type",
                hint="give the digest of what `strongroom reference publish` or `cosign` put there, not of an image",
            )
        data = reply.whole(max_bytes=LIMITS.document_bytes)
    digest = artifact.part_of(data, "").digest
    if name.startswith("sha256:") and digest != name:
        raise Refused(f"{url}: expected {name}, got {digest}", code="wrong-digest", hint=BROKEN)
    return digest, artifact.parse(data, what=f"artifact {digest}", limits=LIMITS)


def _held(session: RegistrySession, digest: str, manifest: Artifact, max_bytes: int) -> FetchedArtifact:
    size = sum(part.size for part in manifest.parts)
    if size > MAX_FILES * max_bytes:
        raise Malformed(
            f"artifact {digest}: {size} bytes, expected at most {MAX_FILES * max_bytes}",
            code="too-large",
            hint="so large a file is none of those that are looked for: is it the right digest?",
        )
    return FetchedArtifact(
        digest=digest,
        artifact=manifest,
        contents=tuple(_blob(session, part, max_bytes) for part in manifest.parts),
    )


def _blob(session: RegistrySession, part: Part, max_bytes: int) -> bytes:
    if part.size > max_bytes:
        raise Malformed(
            f"blob {part.digest}: {part.size} bytes, expected at most {max_bytes}",
            code="too-large",
            hint="so large a file is none of those that are looked for: is it the right digest?",
        )
    with session.ask("GET", session.url(f"/blobs/{part.digest}"), blob=part.size) as reply:
        expect(reply, 200)
        return artifact.check(part, reply.whole(max_bytes=max(part.size, 1)))
