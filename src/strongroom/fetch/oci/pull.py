"""Pulling images from OCI registries, by digest (distribution-spec v1.1).

`pull` fills an OCI layout folder that `convert` reads like any other. Whom it asks is `session`'s to know:
mirrors in order, then the registry. None of them is believed:

  1 a digest names it   a tag is refused, with the digest that it stands for today (rule 29)
  2 documents           of a manifest's media type, of the digest asked for, and what their descriptor said they are
  3 the platform        chosen in an index by what the index says; exactly one image may suit
  4 blobs               their size and digest, each before it gets its name; nothing that the image does not name
  5 sizes               of documents and of all layers together, before anything is fetched

Who sends what is not asked for is left for the next; a blob that broke off goes on from there (Range).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from strongroom.errors import Malformed, NotFound, Refused, StrongroomError, Unavailable
from strongroom.fetch.http import client
from strongroom.fetch.http.streaming import BROKEN
from strongroom.fetch.oci.layout import Arriving, OciLayout
from strongroom.fetch.oci.session import Access, RegistrySession, expect
from strongroom.images import oci, sources
from strongroom.images.limits import LIMITS, Documents, ImageLimits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from strongroom.fetch.http.streaming import Reply
    from strongroom.fetch.oci.names import OciReference
    from strongroom.images.oci import Descriptor, ImagePlatform

_ACCEPT = (*oci.MANIFESTS, *oci.INDEXES)
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)", re.ASCII)
_MAX_NESTING = 3
_MAX_PIECES = 1000
_IDLE = 2
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What lies in `layout` now. digest: of the image's manifest; index: of the index it was chosen from.

    fetched: bytes that came over the network for it; notes: which mirrors did badly, and how. Give `digest` to
    `convert`: it is what counts.
    """

    reference: OciReference
    digest: str
    index: str | None
    layout: Path
    fetched: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OciDocument:
    """A manifest or an index, whole and of its digest."""

    descriptor: Descriptor
    data: bytes


def pull(
    reference: OciReference,
    *,
    platform: ImagePlatform,
    into: Path,
    access: Access,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    limits: ImageLimits = LIMITS,
) -> Pulled:
    """Bring the image into the layout folder `into`; what is there already is not fetched again.

    progress: called with bytes done and bytes in all. Raises `Refused`, `NotFound`, `Unavailable` or `Malformed`.
    """
    if reference.digest is None:
        _refuse_tag(reference, access, limits)
    puller = Puller(reference, into=into, access=access, limits=limits)
    top = puller.document(reference.pinned())
    image, index = puller.choose(top, platform)
    what = f"manifest {image.descriptor.digest}"
    try:
        manifest = oci.parse_manifest(image.data, image.descriptor.media_type, what=what, limits=limits)
    except Malformed as failure:
        failure.hint = failure.hint or "the image itself is not as OCI has it: have it built and pushed again"
        raise
    puller.blobs((manifest.config, *manifest.layers), progress)
    puller.layout.name(top.descriptor)
    return Pulled(
        reference=reference,
        digest=image.descriptor.digest,
        index=index,
        layout=into,
        fetched=puller.fetched,
        notes=tuple(puller.notes),
    )


def resolve(reference: OciReference, *, access: Access, limits: ImageLimits = LIMITS) -> OciDocument:
    """What a tag stands for at its registry just now: to be shown to people, never kept. No mirror is asked."""
    session = RegistrySession(access, reference.place, reference.repository)
    name = reference.digest or reference.tag or ""
    return fetch_document(session, name, limits=limits)


def fetch_document(
    session: RegistrySession, name: str, *, limits: ImageLimits, descriptor: Descriptor | None = None
) -> OciDocument:
    """A manifest or index by digest or tag, checked against `name` where that is a digest, and its descriptor."""
    url = session.url(f"/manifests/{name}")
    with session.ask("GET", url, headers={"Accept": ", ".join(_ACCEPT)}) as reply:
        expect(reply, 200)
        kind = reply.media_type
        if kind in oci.SCHEMA_1:
            raise oci.refuse_schema_1(reply.url)
        if kind not in _ACCEPT:
            raise Malformed(
                f"{reply.url}: of type {kind[:80]!r}, which is no image's",
                code="bad-media-type",
                hint="give the digest of an image or of an index of images",
            )
        data = reply.whole(max_bytes=limits.document_bytes)
    got = "sha256:" + hashlib.sha256(data).hexdigest()
    if name.startswith("sha256:") and got != name:
        raise Refused(f"{url}: expected {name}, got {got}", code="wrong-digest", hint=BROKEN)
    if descriptor is not None and (kind, len(data)) != (descriptor.media_type, descriptor.size):
        raise Malformed(
            f"{url}: {len(data)} bytes of type {kind}, its index says {descriptor.size} of {descriptor.media_type}",
            code="bad-media-type",
            hint="the image's index is wrong: build and push it again",
        )
    described = oci.Descriptor(media_type=kind, digest=got, size=len(data))
    return OciDocument(descriptor=described, data=data)


class Puller:
    """Fetches parts of one repository into a layout, from whoever has them."""

    def __init__(self, reference: OciReference, *, into: Path, access: Access, limits: ImageLimits) -> None:
        self.layout = OciLayout(folder=into)
        self.fetched = 0
        self.notes: list[str] = []
        self._limits = limits
        self._documents = Documents(limits)
        self._sleep = access.client.sleep
        self._sessions = [
            RegistrySession(access, place, reference.repository) for place in access.places(reference)
        ]

    def document(self, digest: str, descriptor: Descriptor | None = None) -> OciDocument:
        """A manifest or index. One that is in the layout serves, where its descriptor says what it is."""
        self._documents.count(0 if descriptor is None else descriptor.size, what=f"image {digest}")
        if descriptor is not None:
            kept = self.layout.read(digest, max_bytes=self._limits.document_bytes)
            if kept is not None and len(kept) == descriptor.size:
                return OciDocument(descriptor=descriptor, data=kept)

        def fetch(session: RegistrySession) -> OciDocument:
            return fetch_document(session, digest, limits=self._limits, descriptor=descriptor)

        document = self._from_any(fetch)
        self.layout.put(document.data)
        self.fetched += len(document.data)
        return document

    def choose(self, top: OciDocument, platform: ImagePlatform) -> tuple[OciDocument, str | None]:
        """The image for `platform`, and the digest of the index it is from. Raises `NotFound` or `Refused`."""
        if top.descriptor.media_type in oci.MANIFESTS:
            return top, None
        images = self._images(top, depth=1)
        fitting = [row for row in images if row[0].platform is None or platform.suits(row[0].platform)]
        suited = {
            image.digest: (image, index)
            for image, index in sources.closest(fitting, platform, lambda row: row[0].platform)
        }
        if len(suited) != 1:
            shown = "; ".join(f"{image.digest} ({image.platform or 'any'})" for image, _ in images[:8])
            kind = NotFound if not suited else Refused
            raise kind(
                f"index {top.descriptor.digest}: {len(suited) or 'no'} images for {platform}",
                code="choose-digest" if suited else "no-image",
                hint=f"name one by its digest: {shown}",
            )
        ((chosen, index),) = suited.values()
        return self.document(chosen.digest, chosen), index

    def _images(self, index: OciDocument, *, depth: int) -> list[tuple[Descriptor, str]]:
        digest = index.descriptor.digest
        if depth > _MAX_NESTING:
            raise Malformed(
                f"index {digest}: nested too deeply: expected at most {_MAX_NESTING} indexes within another",
                code="too-deep",
                hint="name the image itself, by its own digest",
            )
        listed = oci.parse_index(
            index.data, index.descriptor.media_type, what=f"index {digest}", limits=self._limits
        )
        images = [(descriptor, digest) for descriptor in listed if descriptor.media_type in oci.MANIFESTS]
        for descriptor in listed:
            if descriptor.media_type in oci.INDEXES:
                images += self._images(self.document(descriptor.digest, descriptor), depth=depth + 1)
            if len(images) > self._limits.manifests:
                raise Refused(
                    f"index {digest}: more than {self._limits.manifests} images",
                    code="too-large",
                    hint="name the image itself, by its own digest",
                )
        return images

    def blobs(self, wanted: tuple[Descriptor, ...], progress: Callable[[int, int], None]) -> None:
        """Bring blobs, each checked. Raises `Refused` when they are too large together."""
        by_digest = {descriptor.digest: descriptor for descriptor in wanted}
        total = sum(descriptor.size for descriptor in by_digest.values())
        if total > self._limits.total_bytes or any(
            descriptor.size > self._limits.layer_bytes for descriptor in wanted
        ):
            raise Refused(
                f"the image: {total} bytes, expected at most {self._limits.total_bytes}, and {self._limits.layer_bytes} of one layer",
                code="too-large",
                hint="leave out of the image what the program does not need",
            )
        done = 0
        for descriptor in by_digest.values():
            before = done
            try:
                self.blob(descriptor, lambda came, before=before: progress(before + came, total))  # type: ignore[misc]
            except NotFound:
                if descriptor.foreign:
                    raise oci.foreign_layer(f"layer {descriptor.digest}") from None
                raise
            done += descriptor.size
            progress(done, total)

    def blob(self, wanted: Descriptor, progress: Callable[[int], None]) -> None:
        """Bring one blob, unless it is there."""
        if self.layout.has(wanted.digest, wanted.size):
            return
        with self.layout.arriving(wanted.digest, wanted.size) as arriving:
            if not self.layout.has(
                wanted.digest, wanted.size
            ):  # another process may have brought it meanwhile
                self._from_any(lambda session: self._bring(session, arriving, progress))

    def _bring(self, session: RegistrySession, arriving: Arriving, progress: Callable[[int], None]) -> None:
        """All of a blob from one place, in as many pieces as it takes, as long as there is progress."""
        resumed, idle = arriving.done > 0, 0
        for _ in range(_MAX_PIECES):
            before = arriving.done
            try:
                if arriving.done < arriving.size:
                    self._piece(session, arriving, progress)
                arriving.finish()
                return
            except Refused as failure:
                if failure.code not in ("wrong-digest", "wrong-size") or not resumed:
                    raise
                resumed = False  # the beginning may have come from somebody who lied
            except Unavailable as failure:
                idle = 0 if arriving.done > before else idle + 1
                if idle == _IDLE or failure.code == "registry-busy":
                    raise
                self._sleep(client.FIRST_WAIT)
        raise Unavailable(
            f"blob {arriving.digest}: comes in too many pieces",
            code="registry-unreachable",
            hint="what has come is kept: type the same again to go on",
        )

    def _piece(self, session: RegistrySession, arriving: Arriving, progress: Callable[[int], None]) -> None:
        begin = arriving.done
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        url = session.url(f"/blobs/{arriving.digest}")
        with session.ask("GET", url, headers=headers, blob=arriving.size) as reply:
            if begin and (reply.status != 206 or not _continues(reply, begin, arriving.size)):
                arriving.restart()
                if reply.status != 200:
                    raise Unavailable(
                        f"{reply.url}: HTTP {reply.status} to a range, expected 200 or 206",
                        code="registry-answer",
                        hint="type the same again: it starts from the beginning",
                    )
            elif not begin:
                expect(reply, 200)
            for chunk in reply.chunks():
                arriving.append(chunk)
                self.fetched += len(chunk)
                progress(arriving.done)
        if arriving.done < arriving.size:
            raise Unavailable(
                f"{url}: broke off at byte {arriving.done} of {arriving.size}",
                code="registry-unreachable",
                hint="what has come is kept: type the same again to go on",
            )

    def _from_any(self, ask: Callable[[RegistrySession], _T]) -> _T:
        """What the first place that does well answers. A mirror that did badly is not asked again in this pull."""
        *mirrors, registry = self._sessions
        for mirror in mirrors:
            try:
                return ask(mirror)
            except (Malformed, NotFound, Refused, Unavailable) as failure:
                if not isinstance(failure, NotFound):
                    self._sessions.remove(mirror)
                    self.notes.append(f"mirror {mirror.base} left out: {failure.message}")
        return ask(registry)


def _continues(reply: Reply, begin: int, size: int) -> bool:
    """Whether a 206 holds the rest, and nothing else."""
    match = _RANGE.fullmatch(reply.header("content-range"))
    return (
        match is not None
        and int(match[1]) == begin
        and int(match[2]) == size - 1
        and match[3] in ("*", str(size))
    )


def _refuse_tag(reference: OciReference, access: Access, limits: ImageLimits) -> None:
    """Say what the tag stands for, and refuse it."""
    today = ""
    try:
        today = resolve(reference, access=access, limits=limits).descriptor.digest
    except StrongroomError:
        reference.pinned()
    raise Refused(
        f"{reference}: a tag does not name an image for good; today it stands for {today}",
        code="tag-refused",
        hint=f"name it by digest: {reference.by(today)}",
    )
