"""The disks of a dry run: the bytes that `convert` and `seal` would make, in the clear, with no name left when the program runs.

An image comes from, and goes to, the cache of converted disks, so that the second run of one image finds it there; as for
`convert`, nothing of that cache is believed before it was checked.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import sign
from strongroom.errors import Refused
from strongroom.images import load as images
from strongroom.seal import disk, folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from strongroom.images.cache import Cache
    from strongroom.images.load import Changes, Progress
    from strongroom.images.oci import ImageConfig, ImagePlatform
    from strongroom.model.manifest import ImageSettings, Manifest
    from strongroom.seal.tree import Entry

    # The name of a step → the function that its progress is reported to.
    Steps = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True, kw_only=True)
class ImageDisk:
    """An image's disk as an open file, and how it is run. `digest` names the image."""

    fd: int
    digest: str
    settings: ImageSettings
    config: ImageConfig


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which image: as `images.load` takes it. sealed: the settings that become part of the disk."""

    path: Path
    digest: str | None
    platform: ImagePlatform
    config: bytes | None
    sealed: Changes


def image(wanted: Wanted, *, cache: Cache | None, scratch: Path, steps: Steps) -> ImageDisk:
    """The image's disk, from the cache where it is there. Raises like `images.load`."""
    if wanted.config is not None:
        cache = None  # a folder's content is known only once it is read
    known = None if cache is None else _kept(wanted, cache, steps)
    return known or _converted(wanted, cache, scratch, steps)


def dataset(paths: Sequence[Path], *, scratch: Path, progress: Progress) -> int:
    """A dataset's disk as an open file. Raises like `folder.from_paths`."""
    with _place(scratch) as place:
        target = place / f"data{disk.SUFFIX}"
        _written(folder.from_paths(paths), target, "dataset", None, progress)
        return os.open(target, os.O_RDONLY | os.O_CLOEXEC)


def _kept(wanted: Wanted, cache: Cache, steps: Steps) -> ImageDisk | None:
    if not wanted.path.exists():
        return None
    chosen = images.identify(wanted.path.resolve(), digest=wanted.digest, platform=wanted.platform)
    if chosen is None:
        return None
    config = wanted.sealed(chosen.config)
    key = cache.key(chosen.digest, config)
    kept_disk = cache.find(key)
    if kept_disk is None or kept_disk.manifest.image is None:
        return None
    fd = os.open(kept_disk.disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with steps("checking what is kept") as progress:
            disk.verify(Path(f"/proc/self/fd/{fd}"), kept_disk.manifest, progress=progress)
    except Refused:
        os.close(fd)
        cache.drop(key)
        return None
    except BaseException:
        os.close(fd)
        raise
    return ImageDisk(fd=fd, digest=chosen.digest, settings=kept_disk.manifest.image, config=config)


def _converted(wanted: Wanted, cache: Cache | None, scratch: Path, steps: Steps) -> ImageDisk:
    with contextlib.ExitStack() as opened:
        place = opened.enter_context(_place(scratch))
        with steps("unpacking") as progress:
            loaded = opened.enter_context(
                images.load(
                    wanted.path,
                    scratch=place,
                    digest=wanted.digest,
                    platform=wanted.platform,
                    config=wanted.config,
                    changes=wanted.sealed,
                    cache=cache,
                    progress=progress,
                )
            )
        target = place / f"image{disk.SUFFIX}"
        with steps("writing the image") as progress:
            manifest = _written(loaded.entries, target, "image", loaded.settings, progress)
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        if cache is not None:
            cache.keep(cache.key(loaded.digest, loaded.config), target, manifest, loaded.summary)
        return ImageDisk(fd=fd, digest=loaded.digest, settings=loaded.settings, config=loaded.config)


@contextlib.contextmanager
def _place(scratch: Path) -> Iterator[Path]:
    """A folder that goes with the block."""
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="strongroom-try-", dir=scratch) as place:
        yield Path(place)


def _written(
    entries: Iterable[Entry], target: Path, kind: str, settings: ImageSettings | None, progress: Progress
) -> Manifest:
    """A disk of nobody's: its owner is a key that is gone at once."""
    return disk.seal(
        entries,
        kind=kind,
        name=kind,
        owner_key=sign.generate(),
        key=None,
        image=settings,
        target=target,
        progress=progress,
    )
