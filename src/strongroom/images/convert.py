"""An image that lies somewhere becomes a sealed disk: NAME.disk and NAME.manifest.json, and NAME.key.age where it is encrypted.

The same image, converted the same way before, is taken from the cache; an image that is to be encrypted neither comes from there nor goes
there. Nothing of an image is run, or written out as files.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.errors import Misuse, Refused, of_file
from strongroom.images import cache as caches
from strongroom.images import load as images
from strongroom.images import oci
from strongroom.images.limits import LIMITS
from strongroom.images.summary import Summary
from strongroom.seal import disk, keys, newfile
from strongroom.seal.progress import silently

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from strongroom.images.cache import Cache
    from strongroom.images.compose.document import ComposeService
    from strongroom.images.load import Loaded
    from strongroom.images.oci import ImageConfig, ImagePlatform
    from strongroom.model.identity import Identity
    from strongroom.model.manifest import Manifest
    from strongroom.seal.progress import Steps


@dataclass(frozen=True, kw_only=True)
class LocatedImage:
    """An image that lies at `path` (None: it was only spoken of). `service` where a compose file names it.

    digest: which of several images is meant. fetched: it came from a registry, and `path` is the cache.
    """

    path: Path | None
    digest: str | None
    service: ComposeService | None = None
    fetched: bool = False

    def named(self) -> contextlib.AbstractContextManager[None]:
        """Within, what does not parse or is refused is this image, by the name that was typed; not by that of our cache."""
        if self.path is None or self.fetched:
            return contextlib.nullcontext()
        return of_file(self.path)

    def needed(self) -> Path:
        """Where the image lies. Raises `Misuse` where it was only spoken of."""
        if self.path is None:
            raise Misuse(
                "the compose file's image lies in no registry that it names",
                hint="write image: HOST/NAME@sha256:… there, or say where the image lies: --from FOLDER",
            )
        return self.path

    def sealed(self, config: ImageConfig) -> ImageConfig:
        """The image's settings with those that become part of the sealed image."""
        return config if self.service is None else self.service.sealed(config)

    def run(self, config: ImageConfig) -> ImageConfig:
        """The settings that the program meets."""
        return config if self.service is None else self.service.run(config)


@dataclass(frozen=True, kw_only=True)
class ConvertedImage:
    """A sealed image: its files, what its manifest says, and what there is to tell of the image.

    contract_options: what a compose file says that belongs into the contract, as options of `contract new`.
    """

    disk: Path
    manifest_file: Path
    key_file: Path | None
    manifest: Manifest
    summary: Summary
    contract_options: tuple[str, ...]


def check_free(out: Path, name: str) -> None:
    """Make the folder `out`. Raise `Misuse` where it holds a file that the disk `name` would have."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}{disk.SUFFIX}"
    for suffix in (disk.SUFFIX, disk.MANIFEST_SUFFIX, disk.KEY_SUFFIX):
        file = disk.beside(target, suffix)
        if file.exists():
            raise Misuse(f"{file}: exists already", code="exists", hint="remove it, or choose another --name")


def load_settings(config: Path) -> bytes:
    """The file of an image's configuration, for a root file system, which brings none. Raises `Malformed`."""

    def checked(data: bytes) -> bytes:
        oci.parse_settings(data, what="image configuration", limits=LIMITS)
        return data

    return files.parsed(config, checked, max_bytes=LIMITS.document_bytes)


def convert(  # noqa: PLR0913 - by name, and most of them with a default
    image: LocatedImage,
    *,
    name: str,
    owner: Identity,
    out: Path,
    platform: ImagePlatform = images.PLATFORM,
    settings: bytes | None = None,
    encrypt: bool = False,
    cache: Cache | None = None,
    random: Callable[[int], bytes] = secrets.token_bytes,
    on_summary: Callable[[Summary], None] = lambda _summary: None,
    steps: Steps = silently,
) -> ConvertedImage:
    """Seal `image` into the disk `name` in the folder `out`, signed by `owner`.

    settings: a root file system's configuration. cache: disks and layers from before; used where the image is public and names
    its content. on_summary: called with what will run, before it is sealed. Raises like `images.load` and `disk.seal`, and `Misuse` where a file is there already.
    """
    check_free(out, name)
    image.needed()
    target = out / f"{name}{disk.SUFFIX}"
    # A folder's content is known only once it is read; an image that is to be encrypted stays out of caches.
    used = None if encrypt or settings is not None else cache
    job = _Job(image=image, platform=platform, target=target, owner=owner, on_summary=on_summary, steps=steps)
    before = None if used is None else _taken(job, used)
    summary, manifest = before or _sealed(job, settings, used, random if encrypt else None)
    return ConvertedImage(
        disk=target,
        manifest_file=disk.beside(target, disk.MANIFEST_SUFFIX),
        key_file=disk.beside(target, disk.KEY_SUFFIX) if encrypt else None,
        manifest=manifest,
        summary=summary,
        contract_options=() if image.service is None else image.service.contract_options(),
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    image: LocatedImage
    platform: ImagePlatform
    target: Path
    owner: Identity
    on_summary: Callable[[Summary], None]
    steps: Steps

    @property
    def name(self) -> str:
        return self.target.name.removesuffix(disk.SUFFIX)


def _taken(job: _Job, cache: Cache) -> tuple[Summary, Manifest] | None:
    """The disk from the cache, if the same image was converted the same way before."""
    image = job.image
    if image.path is None or not image.path.exists():
        return None
    chosen = images.identify(image.path.resolve(), digest=image.digest, platform=job.platform)
    if chosen is None:
        return None
    key = cache.key(chosen.digest, image.sealed(chosen.config))
    kept = cache.find(key)
    if kept is None or kept.manifest.image is None:
        return None
    summary = Summary(
        kind=chosen.kind,
        digest=chosen.digest,
        index=chosen.index,
        names=chosen.names,
        layers=len(chosen.layers),
        entries=kept.entries,
        content_bytes=kept.content_bytes,
        settings=kept.manifest.image,
        notes=kept.notes,
    )
    try:
        with job.steps("taking it from the cache") as progress:
            manifest = disk.reseal(
                kept.manifest,
                name=job.name,
                owner_key=job.owner.signing,
                target=job.target,
                write=lambda fd: caches.copy(kept.disk, fd),
                progress=progress,
            )
    except (Refused, OSError):
        cache.drop(key)  # damaged: the long way is always open
        return None
    job.on_summary(summary)
    return summary, manifest


def _sealed(
    job: _Job, settings: bytes | None, cache: Cache | None, random: Callable[[int], bytes] | None
) -> tuple[Summary, Manifest]:
    with contextlib.ExitStack() as opened:
        with job.image.named(), job.steps("unpacking") as progress:
            loaded = opened.enter_context(
                images.load(
                    job.image.needed(),
                    scratch=job.target.parent,
                    digest=job.image.digest,
                    platform=job.platform,
                    config=settings,
                    changes=job.image.sealed,
                    cache=cache,
                    progress=progress,
                )
            )
        summary = loaded.summary
        job.on_summary(summary)
        manifest = _seal(job, loaded, random)
    if cache is not None:
        cache.keep(cache.key(summary.digest, loaded.config), job.target, manifest, summary)
    return summary, manifest


def _seal(job: _Job, loaded: Loaded, random: Callable[[int], bytes] | None) -> Manifest:
    """random: of the disk's key; None for a disk that is not encrypted."""
    key = None if random is None else keys.new(random)
    key_file = disk.beside(job.target, disk.KEY_SUFFIX)
    if key is not None:
        # First the key: a disk that nobody can open is never left behind.
        newfile.write(key_file, keys.lock(key, job.owner.age.recipient), mode=0o600)
    try:
        with job.steps(f"sealing {job.name}") as progress:
            return disk.seal(
                loaded.entries,
                kind="image",
                name=job.name,
                owner_key=job.owner.signing,
                key=key,
                image=loaded.settings,
                target=job.target,
                progress=progress,
            )
    except BaseException:
        if key is not None:
            key_file.unlink(missing_ok=True)
        raise
