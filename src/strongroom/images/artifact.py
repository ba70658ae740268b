"""OCI artifacts: what a registry holds beside images (image-spec v1.1, manifest.md, "Guidelines for Artifact Usage").

One manifest whose `artifactType` says what it is, whose layers are files with a title, and whose `subject` may name
the manifest that it is about. As `oras` and `cosign` write them. Not checked here: digests of blobs, and what is in them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Refused
from strongroom.images import oci

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.images.limits import ImageLimits

MANIFEST, INDEX = oci.MANIFESTS[0], oci.INDEXES[0]
EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
TITLE = "org.opencontainers.image.title"
MAX_ANNOTATIONS = 64
MAX_ANNOTATION = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file. title: its name, to be shown."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name that it is given."""
        return oci.printable(self.annotations.get(TITLE, ""))


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A manifest. subject: the digest that it is about, its size and its media type."""

    artifact_type: str
    parts: tuple[Part, ...]
    subject: Part | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The manifest, with the empty configuration."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": self.artifact_type,
            "config": _object(part_of(EMPTY, EMPTY_TYPE)),
            "layers": [_object(part) for part in self.parts],
        }
        if self.subject is not None:
            document["subject"] = _object(self.subject)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return canonical.dumps(document)


@dataclass(frozen=True, kw_only=True)
class ListedArtifact:
    """One artifact in a list of those that are about a subject."""

    part: Part
    artifact_type: str


def part_of(data: bytes, media_type: str, *, title: str = "") -> Part:
    """What a manifest says of a file."""
    return Part(
        media_type=media_type,
        digest="sha256:" + hashlib.sha256(data).hexdigest(),
        size=len(data),
        annotations={TITLE: title} if title else {},
    )


def parse(data: bytes, *, what: str, limits: ImageLimits) -> Artifact:
    """A manifest of an artifact. Raises `Malformed`.

    Its kind is `artifactType`, or where that is missing its configuration's media type, as the specification says.
    """
    top = _document(data, MANIFEST, what, limits, foreign=("manifests", "fsLayers", "blobs"))
    config = _part(top.get("config"), f"{what}.config")
    layers = top.get("layers")
    if not isinstance(layers, list) or len(layers) > limits.layers:
        raise Malformed(f"{what}.layers: expected a list of at most {limits.layers}")
    kind = top.get("artifactType", config.media_type)
    if not isinstance(kind, str) or not 0 < len(kind) <= 255:
        raise Malformed(f"{what}.artifactType: expected a media type")
    subject = top.get("subject")
    return Artifact(
        artifact_type=kind,
        parts=tuple(_part(layer, f"{what}.layers[{number}]") for number, layer in enumerate(layers)),
        subject=None if subject is None else _part(subject, f"{what}.subject"),
        annotations=_annotations(top, what),
    )


def parse_list(data: bytes, *, what: str, limits: ImageLimits) -> tuple[ListedArtifact, ...]:
    """The artifacts about a subject: the referrers API's answer, or the index at the fallback tag. Raises `Malformed`."""
    top = _document(data, INDEX, what, limits, foreign=("layers", "config", "fsLayers"))
    items = top.get("manifests")
    if not isinstance(items, list) or len(items) > limits.manifests:
        raise Malformed(f"{what}.manifests: expected a list of at most {limits.manifests}")
    listed = []
    for number, item in enumerate(items):
        part = _part(item, f"{what}.manifests[{number}]")
        kind = item.get("artifactType", "")
        if part.media_type == MANIFEST and isinstance(kind, str):
            listed.append(ListedArtifact(part=part, artifact_type=oci.printable(kind)))
    return tuple(listed)


def encode_list(listed: tuple[ListedArtifact, ...]) -> bytes:
    """The index for a fallback tag."""
    rows = [{**_object(entry.part), "artifactType": entry.artifact_type} for entry in listed]
    return canonical.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows})


def fallback_tag(digest: str) -> str:
    """The tag of what is about a digest where a registry knows no referrers (distribution-spec v1.1)."""
    return digest.replace(":", "-")


def check(part: Part, data: bytes) -> bytes:
    """The same bytes. Raises `Refused` unless they are what the manifest names."""
    got = part_of(data, part.media_type)
    if (got.digest, got.size) != (part.digest, part.size):
        raise Refused(
            f"blob: expected {part.digest}, got {got.digest}",
            code="wrong-digest",
            hint="it was changed on its way, or the registry lies: fetch it again, or from elsewhere",
        )
    return data


def _document(
    data: bytes, media_type: str, what: str, limits: ImageLimits, *, foreign: tuple[str, ...]
) -> dict[str, Any]:
    document = canonical.loads(data, what=what, max_bytes=limits.document_bytes)
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise Malformed(f"{what}: expected schemaVersion 2", code="bad-value")
    if document.get("mediaType", media_type) != media_type or any(key in document for key in foreign):
        raise Malformed(f"{what}: expected a document of type {media_type}", code="bad-media-type")
    return document


def _part(value: object, what: str) -> Part:
    if not isinstance(value, dict):
        raise Malformed(f"{what}: expected an object", code="not-object")
    kind, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(kind, str) or not kind.isascii() or not 0 < len(kind) <= 255:
        raise Malformed(f"{what}.mediaType: expected a media type")
    if not isinstance(digest, str) or fields.DIGEST.fullmatch(digest) is None:
        raise Malformed(f"{what}.digest: expected 'sha256:' and 64 hexadecimal digits", code="bad-digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= 1 << 40:
        raise Malformed(f"{what}.size: expected a size in bytes")
    return Part(media_type=kind, digest=digest, size=size, annotations=_annotations(value, what))


def _annotations(item: dict[str, Any], what: str) -> dict[str, str]:
    value = item.get("annotations", {})
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_ANNOTATIONS:
        raise Malformed(f"{what}.annotations: expected an object of at most {MAX_ANNOTATIONS} texts")
    for text in value.values():
        if not isinstance(text, str) or len(text) > MAX_ANNOTATION:
            raise Malformed(f"{what}.annotations: expected texts of at most {MAX_ANNOTATION} characters")
    return dict(value)


def _object(part: Part) -> dict[str, object]:
    descriptor: dict[str, object] = {"mediaType": part.media_type, "digest": part.digest, "size": part.size}
    if part.annotations:
        descriptor["annotations"] = dict(part.annotations)
    return descriptor
