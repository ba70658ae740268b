"""The JSON documents of an image: descriptors, indexes, manifests, configurations.

Specs: OCI image-spec v1.1 (descriptor.md, image-index.md, manifest.md, config.md), and Docker's
"Image Manifest V 2, Schema 2", which says the same in other media types.
Unknown keys are allowed there and are skipped; the keys that are read are read strictly.
A document is what its descriptor says it is: one that calls itself something else, or that could
be read as another kind (CVE-2021-41190: `layers` and `manifests` in one document), is `Malformed`.
Not checked here: digests of blobs (`blobs`), and what the settings mean for a tree (`settings`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from strongroom.images.limits import ImageLimits

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# Docker's schema 1 of before 2017: no configuration, so that nothing fixes the uncompressed bytes.
SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
# What old registries and builders wrote there instead, in manifests of Docker's; Docker takes it for an image's too.
_CONFIGS_OF_OLD = ("application/octet-stream", "application/json", "text/html")
# Layers that belong to the image. What compresses them their bytes say (`blobs`).
LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)
# Layers that may lie elsewhere; where they are in the image, they are layers like others.
FOREIGN_LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
REF_NAME = "org.opencontainers.image.ref.name"
_MEDIA_TYPE = re.compile(r"[!-~]{1,255}", re.ASCII)
_MAX_BLOB = 1 << 40
_PLATFORM = re.compile(r"([a-z0-9_]{1,32})/([a-z0-9_]{1,32})(?:/([a-z0-9_.]{1,32}))?", re.ASCII)
# Other names of an architecture, as containerd knows them, and the variant that no variant means.
_ALSO = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_BASELINE = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_LEVEL = re.compile(r"v?([0-9]{1,2})(?:\.([0-9]{1,2}))?", re.ASCII)
_ENV_NAME_MAX = 256
_WORDS_MAX = 1024


@dataclass(frozen=True, kw_only=True)
class ImagePlatform:
    """What an image runs on, in the words of Go: linux/amd64, linux/arm64/v8."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def suits(self, other: ImagePlatform) -> bool:
        """Whether an image for `other` runs on this platform. A part that `other` leaves empty suits any.

        Without a variant here any variant suits; else the same one, or a lower level of it.
        """
        return self._same_machine(other) and (not self.variant or self.distance(other) >= 0)

    def distance(self, other: ImagePlatform) -> int:
        """How many levels an image for `other` is below this platform; negative when it wants more than this has.

        Without a variant this platform is the lowest level: then the distance counts upwards and is never negative.
        """
        wanted, has = _level(self), _level(other)
        if wanted is None or has is None:
            return 0 if self.variant == other.variant else -1 if self.variant else 1
        return wanted - has if self.variant else abs(has - wanted)

    def agrees(self, other: ImagePlatform) -> bool:
        """Whether both can describe the same image. A part that either leaves empty agrees with anything."""
        variants = _level(self) or self.variant, _level(other) or other.variant
        return self._same_machine(other) and (
            "" in (self.variant, other.variant) or variants[0] == variants[1]
        )

    def _same_machine(self, other: ImagePlatform) -> bool:
        pairs = ((self.os, other.os), (_architecture(self)[0], _architecture(other)[0]))
        return all("" in pair or pair[0] == pair[1] for pair in pairs)


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A reference to a blob. `platform` and `ref_name` only where an index gives them; `foreign` of layers."""

    media_type: str
    digest: str
    size: int
    platform: ImagePlatform | None = None
    ref_name: str = ""
    foreign: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageManifest:
    """Where the configuration and the layers are, lowest layer first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How to run it, as the image says it, not yet looked up in the tree.

    `environment` has each name once (of repeated ones the last counts, as in runc).
    `ignored` names the settings that are there and have no effect in a room; of two of them, `volumes` and
    `ports` (like 80/tcp) are what they say, for people.
    """

    platform: ImagePlatform
    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    working_directory: str
    user: str
    ignored: tuple[str, ...]
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


def parse_platform(text: str) -> ImagePlatform:
    """Read `os/architecture[/variant]`. Raises `Malformed`."""
    match = _PLATFORM.fullmatch(text)
    if match is None:
        raise Malformed(f"platform {text[:60]!r}: expected OS/ARCHITECTURE, like linux/amd64")
    return ImagePlatform(os=match[1], architecture=match[2], variant=match[3] or "")


def printable(text: str) -> str:
    """An image's own words, short and without anything that a terminal would act on."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:257])
    return shown if len(shown) <= 256 else shown[:255] + "…"


def parse_index(data: bytes, media_type: str, *, what: str, limits: ImageLimits) -> tuple[Descriptor, ...]:
    """The descriptors of an index (manifest list). Raises `Malformed`, `Refused`."""
    document = _document(data, media_type, what, limits, foreign=("layers", "config", "fsLayers"))
    return tuple(
        _descriptor(item, f"{what}.manifests[{number}]")
        for number, item in enumerate(_items(document, "manifests", what, limits.manifests))
    )


def parse_manifest(data: bytes, media_type: str, *, what: str, limits: ImageLimits) -> ImageManifest:
    """An image manifest. Raises `Malformed`, `Refused`."""
    document = _document(data, media_type, what, limits, foreign=("manifests", "fsLayers"))
    config = _descriptor(document.get("config"), f"{what}.config")
    old = media_type == MANIFESTS[1] and config.media_type in _CONFIGS_OF_OLD
    if config.media_type not in CONFIGS and not old:
        raise Refused(
            f"{what}: its configuration is {config.media_type!r}, which is not an image's",
            code="not-an-image",
            hint="this is some other artifact in OCI form; give an image that can run",
        )
    layers = []
    for number, item in enumerate(_items(document, "layers", what, limits.layers)):
        layer = _descriptor(item, f"{what}.layers[{number}]")
        kind = layer.media_type
        if kind.endswith("+encrypted"):
            raise Refused(
                f"{what}.layers[{number}]: an encrypted layer",
                code="encrypted-layer",
                hint="decrypt the image first (`skopeo copy --decryption-key …`); `convert --encrypt` seals it for a room",
            )
        if kind not in LAYERS and kind not in FOREIGN_LAYERS:
            raise Refused(
                f"{what}.layers[{number}]: unknown media type {kind!r}",
                code="bad-media-type",
                hint="copy the image into plain OCI form: `skopeo copy --format oci … oci:FOLDER`",
            )
        layers.append(replace(layer, foreign=kind in FOREIGN_LAYERS))
    if not layers:
        raise Malformed(f"{what}: no layers", code="empty")
    return ImageManifest(config=config, layers=tuple(layers))


def refuse_schema_1(what: str) -> Refused:
    """What is to be said of an image in Docker's old form."""
    return Refused(
        f"{what}: Docker's manifest schema 1, of before 2017, which does not fix an image's files",
        code="schema-1",
        hint="pull it with a Docker of its time and push it again, or rebuild it; then name the new digest",
    )


def foreign_layer(what: str) -> Refused:
    """What is to be said of a layer that the image says lies elsewhere, and that is not here."""
    return Refused(
        f"{what}: a foreign layer, which is not part of the image",
        code="foreign-layer",
        hint="rebuild the image with all its layers inside, or copy it with them (`--allow-nondistributable-artifacts`)",
    )


def parse_config(data: bytes, *, what: str, limits: ImageLimits) -> ImageConfig:
    """An image configuration. Raises `Malformed`."""
    document = _object(canonical.loads(data, what=what, max_bytes=limits.document_bytes), what)
    if "layers" in document or "manifests" in document or "schemaVersion" in document:
        raise Malformed(f"{what}: it could be read as a manifest", code="bad-media-type")
    root = _object(document.get("rootfs"), f"{what}.rootfs")
    if root.get("type") != "layers":
        raise Malformed(f"{what}.rootfs.type: expected 'layers'")
    where = f"{what}.rootfs"
    diff_ids = [_digest(item, f"{where}.diff_ids") for item in _items(root, "diff_ids", where, limits.layers)]
    return _settings(document, tuple(diff_ids), what)


def parse_settings(data: bytes, *, what: str, limits: ImageLimits) -> ImageConfig:
    """A configuration without layers, given beside a root file system. Raises `Malformed`."""
    document = _object(canonical.loads(data, what=what, max_bytes=limits.document_bytes), what)
    if "config" not in document:
        raise Malformed(
            f"{what}: key 'config' is missing",
            code="missing-key",
            hint='it is an OCI image configuration, like {"config": {"Entrypoint": ["/bin/program"]}}',
        )
    return _settings(document, (), what)


def _settings(document: dict[str, Any], diff_ids: tuple[str, ...], what: str) -> ImageConfig:
    inner = document.get("config")
    config = {} if inner is None else _object(inner, f"{what}.config")
    ignored = ("Volumes", "ExposedPorts", "StopSignal", "Healthcheck", "OnBuild", "Shell")
    return ImageConfig(
        platform=_platform(document, what),
        diff_ids=diff_ids,
        entrypoint=_words(config, "Entrypoint", what),
        command=_words(config, "Cmd", what),
        environment=_environment(config, what),
        working_directory=_text(config, "WorkingDir", what),
        user=_text(config, "User", what),
        ignored=(*(name for name in ignored if config.get(name)), *_valueless(config, what)),
        volumes=_keys(config, "Volumes"),
        ports=_keys(config, "ExposedPorts"),
    )


def _document(
    data: bytes, media_type: str, what: str, limits: ImageLimits, *, foreign: tuple[str, ...]
) -> dict[str, Any]:
    document = _object(canonical.loads(data, what=what, max_bytes=limits.document_bytes), what)
    if document.get("schemaVersion") == 1 and "fsLayers" in document:
        raise refuse_schema_1(what)
    if document.get("schemaVersion") != 2 or isinstance(document["schemaVersion"], bool):
        raise Malformed(f"{what}.schemaVersion: expected 2", code="bad-value")
    own = document.get("mediaType", media_type)
    if own != media_type:
        raise Malformed(
            f"{what}: its descriptor says {media_type!r}, the document itself {str(own)[:100]!r}",
            code="bad-media-type",
        )
    for key in foreign:
        if key in document:
            raise Malformed(f"{what}: a {media_type.rpartition('.')[0]} with {key!r}", code="bad-media-type")
    return document


def _descriptor(value: object, what: str) -> Descriptor:
    item = _object(value, what)
    kind = item.get("mediaType")
    if not isinstance(kind, str) or _MEDIA_TYPE.fullmatch(kind) is None:
        raise Malformed(f"{what}.mediaType: expected a media type")
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_BLOB:
        raise Malformed(f"{what}.size: expected a size in bytes")
    annotations = item.get("annotations")
    named = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    platform = item.get("platform")
    return Descriptor(
        media_type=kind,
        digest=_digest(item.get("digest"), f"{what}.digest"),
        size=size,
        platform=None if platform is None else _platform(_object(platform, f"{what}.platform"), what),
        ref_name=printable(named) if isinstance(named, str) else "",
    )


def _architecture(platform: ImagePlatform) -> tuple[str, str]:
    """Architecture and variant by their common names."""
    name = platform.architecture.lower()
    name, variant = _ALSO.get(name, (name, ""))
    return name, platform.variant.lower() or variant or _BASELINE.get(name, "")


def _level(platform: ImagePlatform) -> int | None:
    """The variant as a number that grows with what a processor must have; None for one that is no number."""
    match = _LEVEL.fullmatch(_architecture(platform)[1])
    return None if match is None else int(match[1]) * 100 + int(match[2] or 0)


def _platform(item: dict[str, Any], what: str) -> ImagePlatform:
    return ImagePlatform(
        os=printable(_text(item, "os", what)),
        architecture=printable(_text(item, "architecture", what)),
        variant=printable(_text(item, "variant", what)),
    )


def _digest(value: object, what: str) -> str:
    if not isinstance(value, str) or fields.DIGEST.fullmatch(value) is None:
        raise Malformed(f"{what}: expected 'sha256:' and 64 hexadecimal digits", code="bad-digest")
    return value


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what}: expected an object", code="not-object")
    return value


def _items(item: dict[str, Any], key: str, what: str, most: int) -> list[Any]:
    value = item.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise Malformed(f"{what}.{key}: expected a list of at most {most}")
    return value


def _text(item: dict[str, Any], key: str, what: str) -> str:
    value = item.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 4096 or "\x00" in value:
        raise Malformed(f"{what}.{key}: expected text of at most 4096 characters")
    return value


def _words(item: dict[str, Any], key: str, what: str) -> tuple[str, ...]:
    if item.get(key) is None:
        return ()
    words = _items(item, key, what, _WORDS_MAX)
    for word in words:
        if not isinstance(word, str) or len(word) > 65536 or "\x00" in word:
            raise Malformed(f"{what}.{key}: expected texts without NUL")
    return tuple(words)


def _keys(item: dict[str, Any], key: str) -> tuple[str, ...]:
    """The names of a set, which OCI writes as an object of empty objects; whatever else is there says nothing."""
    value = item.get(key)
    return tuple(sorted(value)[:_WORDS_MAX]) if isinstance(value, dict) else ()


def _valueless(item: dict[str, Any], what: str) -> tuple[str, ...]:
    names = (word for word in _words(item, "Env", what) if "=" not in word)
    return tuple(f"Env {printable(name[:_ENV_NAME_MAX])} without a value" for name in dict.fromkeys(names))


def _environment(item: dict[str, Any], what: str) -> dict[str, str]:
    variables = {}
    for word in _words(item, "Env", what):
        name, equals, value = word.partition("=")
        if not equals:
            continue  # Docker takes it for a variable that is not to be set
        if not name or len(name) > _ENV_NAME_MAX:
            raise Malformed(f"{what}.Env: expected NAME=VALUE, got {word[:40]!r}")
        variables[name] = value
    return variables
