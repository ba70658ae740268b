"""Putting blobs, manifests and artifacts about others into OCI registries (distribution-spec v1.1, "Push").

A blob that is there is not sent again; one that another repository of the registry has is mounted; a small one goes in
one piece, a large one in several, and goes on where it broke off. What is sent is named by its digest, and the
registry's word for it has to be the same. An artifact about a subject is listed by the registry where it knows how to,
else in the index at the fallback tag.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import TYPE_CHECKING

from strongroom.errors import NotFound, Refused, Unavailable
from strongroom.fetch.http import client
from strongroom.fetch.http.streaming import BROKEN
from strongroom.fetch.oci.session import Access, RegistrySession, expect
from strongroom.images import artifact
from strongroom.images.limits import LIMITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.fetch.http.streaming import Reply
    from strongroom.fetch.oci.names import OciReference
    from strongroom.images.artifact import Artifact, ListedArtifact

CHUNK = 8 * 1024 * 1024
MAX_PAGES = 16
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,15})", re.ASCII)
_NEXT = re.compile(r'<([^<>]{1,2048})>;\s*rel="?next"?', re.ASCII)
_OCTETS = {"Content-Type": "application/octet-stream"}


class Pusher:
    """Writes to one repository. `listed`: whether the registry said that it lists the last manifest under its subject."""

    def __init__(self, reference: OciReference, *, access: Access) -> None:
        self._session = RegistrySession(access, reference.place, reference.repository, actions="pull,push")
        self._tries = access.client.tries
        self._sleep = access.client.sleep
        self.listed = False

    def blob(self, data: bytes, *, other: str | None = None) -> str:
        """Put a blob; other: a repository of the same registry that may have it. Returns its digest."""
        digest = artifact.part_of(data, "").digest
        for attempt in range(self._tries):
            if self._has(digest):
                return digest
            try:
                self._upload(data, digest, other)
            except Unavailable:
                if attempt + 1 == self._tries:
                    raise
                self._sleep(client.FIRST_WAIT * 2**attempt)
            else:
                return digest
        raise Unavailable(
            f"blob {digest}: not taken",
            code="registry-answer",
            hint="type the same again: what is there is not sent twice",
        )

    def contents(self, manifest: Artifact, contents: Mapping[str, bytes]) -> None:
        """Put an artifact's files, by digest."""
        self.blob(artifact.EMPTY)
        for part in manifest.parts:
            self.blob(artifact.check(part, contents[part.digest]))

    def artifact(self, manifest: Artifact) -> str:
        """Put an artifact's manifest, whose files are there, and see that it is listed. Returns its digest."""
        data = manifest.encode()
        about = None if manifest.subject is None else manifest.subject.digest
        digest = self.manifest(data, artifact.MANIFEST, subject=about)
        if about is not None and not self.listed:
            descriptor = artifact.part_of(data, artifact.MANIFEST)
            self.list_at_tag(
                about, artifact.ListedArtifact(part=descriptor, artifact_type=manifest.artifact_type)
            )
        return digest

    def manifest(
        self, data: bytes, media_type: str, *, tag: str | None = None, subject: str | None = None
    ) -> str:
        """Put a manifest or an index, under a tag or its digest. Returns its digest."""
        digest = artifact.part_of(data, "").digest
        url = self._session.url(f"/manifests/{tag or digest}")
        with self._session.ask("PUT", url, headers={"Content-Type": media_type}, body=data) as reply:
            expect(reply, 201)
            _check_digest(reply, digest)
            self.listed = subject is not None and reply.header("oci-subject") == subject
        return digest

    def list_at_tag(self, subject: str, listed: ListedArtifact) -> None:
        """Add an artifact to those at the fallback tag of `subject`. Two who do so at once may lose one of both."""
        listed_before = at_tag(self._session, subject)
        others = tuple(known for known in listed_before if known.part.digest != listed.part.digest)
        self.manifest(
            artifact.encode_list((*others, listed)), artifact.INDEX, tag=artifact.fallback_tag(subject)
        )

    def _has(self, digest: str) -> bool:
        with self._session.ask("HEAD", self._session.url(f"/blobs/{digest}"), blob=0) as reply:
            if reply.status == 404:
                return False
            expect(reply, 200)
            return True

    def _upload(self, data: bytes, digest: str, other: str | None) -> None:
        mount = "" if other is None else "?" + urllib.parse.urlencode({"mount": digest, "from": other})
        with self._session.ask("POST", self._session.url(f"/blobs/uploads/{mount}")) as reply:
            if reply.status == 201:
                return  # mounted
            expect(reply, 202)
            place = self._place(reply)
        if len(data) > CHUNK:
            place = self._in_pieces(place, data)
            data = b""
        joint = "&" if urllib.parse.urlsplit(place).query else "?"
        closing = f"{place}{joint}digest={urllib.parse.quote(digest)}"
        with self._session.ask("PUT", closing, headers=_OCTETS, body=data, retry=False) as reply:
            expect(reply, 201)
            _check_digest(reply, digest)

    def _in_pieces(self, place: str, data: bytes) -> str:
        done, idle = 0, 0
        while done < len(data):
            piece = data[done : done + CHUNK]
            headers = {**_OCTETS, "Content-Range": f"{done}-{done + len(piece) - 1}"}
            try:
                with self._session.ask("PATCH", place, headers=headers, body=piece, retry=False) as reply:
                    expect(reply, 202)
                    place = self._place(reply)
                    done += len(piece)
            except Unavailable:
                idle += 1
                if idle == self._tries:
                    raise
                self._sleep(client.FIRST_WAIT * 2**idle)
                try:
                    place, done = self._where(place)
                except NotFound:
                    raise Unavailable(
                        f"{place}: the upload is gone",
                        code="registry-answer",
                        hint="type the same again: the registry forgot what it had of it",
                    ) from None
        return place

    def _where(self, place: str) -> tuple[str, int]:
        """Where an upload that broke off goes on."""
        with self._session.ask("GET", place) as reply:
            expect(reply, 204)
            received = _RANGE.fullmatch(reply.header("range"))
            # A range of no bytes cannot be written: "0-0" stands for it, and is taken for it.
            last = 0 if received is None else int(received[1])
            return self._place(reply), last + 1 if last else 0

    def _place(self, reply: Reply) -> str:
        return self._session.within(reply, reply.header("location"))


def referrers(session: RegistrySession, subject: str) -> tuple[ListedArtifact, ...]:
    """What a registry lists as being about `subject`, by its API or by the fallback tag. To be verified, all of it."""
    listed: list[ListedArtifact] = []
    url = session.url(f"/referrers/{subject}")
    for page in range(MAX_PAGES):
        with session.ask("GET", url) as reply:
            if reply.status != 200 or reply.media_type != artifact.INDEX:
                if page:
                    raise Unavailable(
                        f"{url}: HTTP {reply.status} in a list, expected 200",
                        code="registry-answer",
                        hint=BROKEN,
                    )
                break
            data = reply.whole(max_bytes=LIMITS.document_bytes)
            listed.extend(artifact.parse_list(data, what=f"referrers of {subject}", limits=LIMITS))
            more = _NEXT.search(reply.header("link"))
            if more is None:
                return tuple(listed)
            url = session.within(reply, more[1])
    else:
        raise Refused(
            f"{url}: more than {MAX_PAGES} pages of artifacts about {subject}",
            code="too-many",
            hint="whoever may write there has put too much beside it: name the one that you mean by its own digest",
        )
    return at_tag(session, subject)


def at_tag(session: RegistrySession, subject: str) -> tuple[ListedArtifact, ...]:
    """What is listed in the index at the fallback tag."""
    url = session.url(f"/manifests/{artifact.fallback_tag(subject)}")
    try:
        with session.ask("GET", url, headers={"Accept": artifact.INDEX}) as reply:
            expect(reply, 200)
            data = reply.whole(max_bytes=LIMITS.document_bytes)
    except NotFound:
        return ()
    return artifact.parse_list(data, what=f"referrers of {subject}", limits=LIMITS)


def _check_digest(reply: Reply, digest: str) -> None:
    stated = reply.header("docker-content-digest")
    if stated not in ("", digest):
        raise Refused(
            f"{reply.url}: the registry says that it keeps {stated[:80]}: expected {digest}, which was sent",
            code="wrong-digest",
            hint=BROKEN,
        )
