"""Where an image lies, recognised by content, and which image of several is meant.

An OCI layout (OCI image-spec v1.1, image-layout.md) as a folder or as a tar of it, or a tar of
`docker save`. An image is meant by digest alone: a name (tag) in the layout is shown beside the
digest that it stands for today, and never kept. Where a digest names an index (manifest list), the
platform chooses in it, and both digests are kept apart: what counts is the manifest's.
`docker save` writes no manifest; such an image is known by its configuration's digest (the image id).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from strongroom.encoding import canonical
from strongroom.errors import Malformed, NotFound, Refused
from strongroom.images import blobs, oci
from strongroom.images import files as image_files
from strongroom.images.limits import SMALLER, Documents
from strongroom.images.summary import ImageOrigin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from strongroom.images.blobs import Blob
    from strongroom.images.files import ImageFiles
    from strongroom.images.limits import ImageLimits
    from strongroom.images.oci import Descriptor, ImageConfig, ImagePlatform

_MAX_NESTING = 3
_MAX_NAME = 512
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the chosen image. `digest` and `size` are None where nothing says them."""

    name: str
    what: str
    diff_id: str
    digest: str | None
    size: int | None


@dataclass(frozen=True, kw_only=True)
class Chosen(ImageOrigin):
    """The image that is meant. `platform` is what it is for, as the index says, or else its configuration."""

    platform: ImagePlatform
    config: ImageConfig
    layers: tuple[Layer, ...]


class OpenedImage:
    """An image file or folder, open. Use it as a context manager.

    `scratch` is where an archive is unpacked that is compressed as a whole.
    """

    def __init__(self, path: Path, limits: ImageLimits, *, scratch: Path | None = None) -> None:
        self._limits = limits
        self._scratch = scratch
        self._documents = Documents(limits)
        self._folder = path.is_dir()
        self._files = self._recognise(path)
        self._layout = self._files.has("oci-layout")

    def _recognise(self, path: Path) -> ImageFiles:
        hint = "make one with `skopeo copy … oci:FOLDER` or `docker save`"
        files: ImageFiles
        if self._folder:
            files = image_files.FolderFiles(path)
        else:
            try:
                files = image_files.ArchiveFiles(path, self._limits, self._scratch)
            except Malformed as cause:
                raise Malformed(
                    f"{path.name}: not an image archive: {cause.message.removeprefix(path.name).removeprefix(':').strip()}",
                    code="not-an-image",
                    hint=hint,
                ) from None
        if not files.has("oci-layout") and (self._folder or not files.has("manifest.json")):
            old = not self._folder and files.has("repositories")
            files.close()
            if old:
                raise Malformed(
                    f"{path.name}: saved by a Docker of before 1.10, which wrote no manifest.json",
                    code="not-an-image",
                    hint="`docker load` it and `docker save` it again with a Docker of today",
                )
            raise Malformed(
                f"{path.name}: neither an OCI layout nor a `docker save` archive",
                code="not-an-image",
                hint=hint,
            )
        return files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, cause: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def choose(self, *, digest: str | None, platform: ImagePlatform) -> Chosen:
        """The one image that is meant.

        Raises `NotFound` when there is none, `Refused` when there are several or it is for another platform,
        `Malformed` when a document does not parse.
        """
        chosen = self._choose_oci(digest, platform) if self._layout else self._choose_docker(digest, platform)
        if not platform.suits(chosen.platform):
            raise Refused(
                f"image {chosen.digest}: it is for {chosen.platform}, wanted is {platform}",
                code="wrong-platform",
                hint="choose another digest, or give --platform",
            )
        return chosen

    def bytes_of(self, chosen: Chosen) -> int:
        """All layers as they lie here, compressed or not."""
        total = 0
        for layer in chosen.layers:
            with self.open(layer) as blob:
                total += blob.size
        return total

    def open(self, layer: Layer) -> Blob:
        """A layer's bytes, unchecked; the caller closes it."""
        blob = self._files.open(layer.name)
        blob.what = layer.what
        return blob

    def _document(self, name: str, what: str, digest: str | None = None, size: int | None = None) -> bytes:
        with self._files.open(name) as blob:
            blob.what = what
            self._documents.count(blob.size, what=what)
            return blobs.document(blob, digest=digest, size=size, max_bytes=self._limits.document_bytes)

    def _blob(self, descriptor: Descriptor, what: str) -> bytes:
        return self._document(_place(descriptor.digest), what, descriptor.digest, descriptor.size)

    def _choose_oci(self, digest: str | None, platform: ImagePlatform) -> Chosen:
        version = canonical.loads(
            self._document("oci-layout", "oci-layout"), what="oci-layout", max_bytes=4096
        )
        if not isinstance(version, dict) or version.get("imageLayoutVersion") != "1.0.0":
            raise Malformed("oci-layout: expected imageLayoutVersion 1.0.0", code="not-an-image")
        index = oci.parse_index(
            self._document("index.json", "index.json"), oci.INDEXES[0], what="index.json", limits=self._limits
        )
        leaves = list(itertools.islice(self._leaves(index, ()), self._limits.manifests + 1))
        if len(leaves) > self._limits.manifests:
            raise Refused(
                f"index.json: more than {self._limits.manifests} images", code="too-large", hint=SMALLER
            )
        for old in index:
            if old.media_type in oci.SCHEMA_1 and (not leaves or old.digest == digest):
                raise oci.refuse_schema_1(f"manifest {old.digest}")
        leaf = _only_leaf(leaves, digest, platform, self._is_image)
        what = f"manifest {leaf.descriptor.digest}"
        manifest = oci.parse_manifest(
            self._blob(leaf.descriptor, what), leaf.descriptor.media_type, what=what, limits=self._limits
        )
        what = f"config {manifest.config.digest}"
        config = oci.parse_config(self._blob(manifest.config, what), what=what, limits=self._limits)
        stated = leaf.descriptor.platform
        if stated is not None and not stated.agrees(config.platform):
            raise Refused(
                f"{what}: it is for {config.platform}, the index says {stated}",
                code="wrong-platform",
                hint="the index is wrong: build the image again, or name the image's own digest",
            )
        _same_count(len(manifest.layers), config, what)
        for layer in manifest.layers:
            if layer.foreign and not self._files.has(_place(layer.digest)):
                raise oci.foreign_layer(f"layer {layer.digest}")
        layers = tuple(
            Layer(
                name=_place(layer.digest),
                what=f"layer {layer.digest}",
                diff_id=diff_id,
                digest=layer.digest,
                size=layer.size,
            )
            for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
        )
        return Chosen(
            kind="OCI layout" if self._folder else "OCI archive",
            digest=leaf.descriptor.digest,
            index=leaf.indexes[-1] if leaf.indexes else None,
            names=leaf.names,
            platform=config.platform if stated is None else stated,
            config=config,
            layers=layers,
        )

    def _is_image(self, leaf: _Leaf) -> bool:
        """Whether a manifest is an image's, and not a signature or a bill of materials in the form of one."""
        descriptor = leaf.descriptor
        what = f"manifest {descriptor.digest}"
        try:
            oci.parse_manifest(
                self._blob(descriptor, what), descriptor.media_type, what=what, limits=self._limits
            )
        except (Malformed, NotFound, Refused):
            return False
        return True

    def _leaves(self, index: Sequence[Descriptor], above: tuple[str, ...], name: str = "") -> Iterator[_Leaf]:
        for descriptor in index:
            names = descriptor.ref_name or name
            if descriptor.media_type in oci.MANIFESTS:
                yield _Leaf(descriptor=descriptor, indexes=above, names=(names,) if names else ())
            elif descriptor.media_type in oci.INDEXES:
                if len(above) >= _MAX_NESTING or descriptor.digest in above:
                    raise Malformed("index.json: indexes nested too deeply", code="too-deep")
                what = f"index {descriptor.digest}"
                inner = oci.parse_index(
                    self._blob(descriptor, what), descriptor.media_type, what=what, limits=self._limits
                )
                yield from self._leaves(inner, (*above, descriptor.digest), names)
            # Anything else is some other artifact that lies beside the images.

    def _choose_docker(self, digest: str | None, platform: ImagePlatform) -> Chosen:
        rows = canonical.loads(
            self._document("manifest.json", "manifest.json"),
            what="manifest.json",
            max_bytes=self._limits.document_bytes,
        )
        if not isinstance(rows, list) or not 0 < len(rows) <= self._limits.manifests:
            raise Malformed("manifest.json: expected a list of images", code="not-an-image")
        leaves, layers_of = [], {}
        for number, row in enumerate(rows):
            leaf, layers = self._docker_row(row, f"manifest.json[{number}]")
            leaves.append(leaf)
            layers_of[leaf.descriptor.digest] = layers
        leaf = _only_leaf(leaves, digest, platform, lambda _: True)
        what = f"config {leaf.descriptor.digest}"
        assert leaf.config is not None  # noqa: S101 - set by _docker_row
        paths = layers_of[leaf.descriptor.digest]
        _same_count(len(paths), leaf.config, what)
        return Chosen(
            kind="docker archive",
            digest=leaf.descriptor.digest,
            index=None,
            names=leaf.names,
            platform=leaf.config.platform,
            config=leaf.config,
            layers=tuple(
                Layer(
                    name=path,
                    what=f"layer {diff_id}",
                    diff_id=diff_id,
                    digest=None,
                    size=None,
                )
                for path, diff_id in zip(paths, leaf.config.diff_ids, strict=True)
            ),
        )

    def _docker_row(self, row: Any, what: str) -> tuple[_Leaf, list[str]]:
        if not isinstance(row, dict):
            raise Malformed(f"{what}: expected an object", code="not-object")
        tags = row.get("RepoTags") or []
        layers = row.get("Layers")
        names = [row.get("Config"), *(layers if isinstance(layers, list) else [None])]
        for name in names:
            if not isinstance(name, str) or not name or len(name) > _MAX_NAME or "\x00" in name:
                raise Malformed(f"{what}: expected Config and Layers as names in the archive")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise Malformed(f"{what}.RepoTags: expected texts")
        if len(names) - 1 > self._limits.layers:
            raise Refused(f"{what}: more than {self._limits.layers} layers", code="too-large", hint=SMALLER)
        stated = names[0].rpartition("/")[2].removesuffix(".json")
        digest = "sha256:" + stated if _HEX.fullmatch(stated) else None
        data = self._document(names[0], f"{what}.Config", digest)
        config = oci.parse_config(data, what=f"{what}.Config", limits=self._limits)
        descriptor = oci.Descriptor(
            media_type=oci.CONFIGS[1],
            digest=blobs.digest_of(iter([data])),
            size=len(data),
            platform=config.platform,
        )
        tags = tuple(oci.printable(tag) for tag in tags[:64])
        return _Leaf(descriptor=descriptor, indexes=(), names=tags, config=config), names[1:]


@dataclass(frozen=True, kw_only=True)
class _Leaf:
    """An image that could be meant. `indexes`: digests of the indexes that lead to it, outermost first."""

    descriptor: Descriptor
    indexes: tuple[str, ...]
    names: tuple[str, ...]
    config: ImageConfig | None = field(default=None, repr=False)


def _only_leaf(
    leaves: list[_Leaf], digest: str | None, platform: ImagePlatform, is_image: Callable[[_Leaf], bool]
) -> _Leaf:
    named = [leaf for leaf in leaves if digest in (None, leaf.descriptor.digest, *leaf.indexes)]
    if not named:
        raise NotFound(
            f"no image {digest or ''} here".replace("  ", " "),
            code="no-image",
            hint=_listing(leaves) if leaves else "the layout is empty",
        )
    suited = [
        leaf
        for leaf in named
        if leaf.descriptor.digest == digest
        or leaf.descriptor.platform is None
        or platform.suits(leaf.descriptor.platform)
    ]
    if not suited:
        raise NotFound(f"no image for {platform} here", code="no-image", hint=_listing(named))
    suited = closest(suited, platform, lambda leaf: leaf.descriptor.platform)
    if len({leaf.descriptor.digest for leaf in suited}) > 1:
        suited = [leaf for leaf in suited if is_image(leaf)] or suited
    if len({leaf.descriptor.digest for leaf in suited}) > 1:
        raise Refused(
            "several images here; a name does not choose one, as it may mean another tomorrow",
            code="choose-digest",
            hint="give --digest: " + _listing(suited),
        )
    first = suited[0]
    names = tuple(dict.fromkeys(name for leaf in suited for name in leaf.names))
    return _Leaf(descriptor=first.descriptor, indexes=first.indexes, names=names, config=first.config)


def closest(
    candidates: Sequence[_T], wanted: ImagePlatform, platform_of: Callable[[_T], ImagePlatform | None]
) -> list[_T]:
    """Of candidates that all suit `wanted`, those that are nearest to it: no other is made for a higher level of it."""
    far = []
    for candidate in candidates:
        stated = platform_of(candidate)
        far.append(0 if stated is None else abs(wanted.distance(stated)))
    return [candidate for candidate, steps in zip(candidates, far, strict=True) if steps == min(far)]


def _listing(leaves: list[_Leaf]) -> str:
    rows = []
    for leaf in leaves[:8]:
        about = [*leaf.names, str(leaf.descriptor.platform or "")]
        rows.append(f"{leaf.descriptor.digest} ({', '.join(word for word in about if word)})")
    return "; ".join(rows) + (" …" if len(leaves) > 8 else "")


def _place(digest: str) -> str:
    return image_files.BLOBS + digest.removeprefix("sha256:")


def _same_count(layers: int, config: ImageConfig, what: str) -> None:
    if layers != len(config.diff_ids):
        raise Malformed(f"{what}: {len(config.diff_ids)} diff_ids for {layers} layers", code="mismatch")
