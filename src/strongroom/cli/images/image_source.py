"""Where the image of `convert` and `preflight` comes from: a path, a name in a registry, or a compose file.

A compose file says which image and how it is run; the image itself lies where --from says, or is fetched by its digest.
What is fetched goes into the cache of layouts, where the next time finds it, unless it is to be encrypted.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import files, meter
from strongroom.errors import Misuse, Refused, of_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.cli.images.registry_options import Registries
    from strongroom.images.cache import Cache
    from strongroom.images.compose.document import ComposeService
    from strongroom.images.oci import ImageConfig, ImagePlatform

From = Annotated[
    Path | None,
    typer.Option("--from", help="For a compose file: where its image lies, instead of its registry."),
]


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """An image that lies at `path` (None: it was only spoken of). `service` where a compose file names it.

    fetched: it came from a registry, and `path` is the cache.
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


def find(
    image: str,
    *,
    from_: Path | None,
    digest: str | None,
    platform: ImagePlatform,
    registries: Registries,
    into: Path,
    strict: bool,
) -> FoundImage:
    """Find the image, fetching it where it is named by a registry. Raises `Misuse`, `Refused`, `Malformed`, `Unavailable`.

    What is fetched goes into the layout `into`. `strict` refuses a compose file that asks for what no room gives.
    """
    service = _compose(image)
    if service is None:
        if from_ is not None:
            raise Misuse(
                f"--from: goes with a compose file, and {image[:200]} is none (.yaml or .yml)",
                hint="name the image itself, without --from",
            )
        if not _is_name(image):
            _refuse_tag(image)
            _refuse_ours(Path(image))
            return FoundImage(path=Path(image), digest=digest)
        pulled, path = _pull(image, platform, registries, into)
        return FoundImage(path=path, digest=digest or pulled, fetched=True)
    if strict:
        _refuse_blocked(service)
    if from_ is not None:
        return FoundImage(path=from_, digest=digest or service.digest or None, service=service)
    if not strict or not _is_name(service.image):
        return FoundImage(path=None, digest=None, service=service)
    pulled, path = _pull(service.image, platform, registries, into)
    return FoundImage(path=path, digest=pulled, service=service, fetched=True)


def settings(config: Path | None) -> bytes | None:
    """The file of --config, which must be an image's configuration."""
    from strongroom.images import oci
    from strongroom.images.limits import LIMITS

    if config is None:
        return None

    def checked(data: bytes) -> bytes:
        oci.parse_settings(data, what="image configuration", limits=LIMITS)
        return data

    return files.parsed(config, checked, max_bytes=LIMITS.document_bytes)


def cache_folder() -> Path:
    """Where fetched images and converted disks are kept."""
    from strongroom.bases import build

    return build.default_cache(dict(os.environ))


@contextlib.contextmanager
def layouts(beside: Path | None = None) -> Iterator[Path]:
    """Where fetched images go: the cache; or a folder in `beside` that is removed in the end, for those that are secret."""
    if beside is None:
        yield cache_folder() / "layouts"
        return
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=beside) as folder:
        yield Path(folder) / "layout"


def converted() -> Cache:
    """What was converted before."""
    from strongroom.images.cache import Cache

    return Cache(folder=cache_folder() / "converted")


def _is_name(text: str) -> bool:
    from strongroom.fetch.oci import names

    return names.is_name(text) and not Path(text).exists()


def _refuse_tag(text: str) -> None:
    """Say of HOST/NAME:TAG what it is, and not that there is no such file."""
    from strongroom.fetch.oci import names

    host, slash, rest = text.partition("/")
    if slash and rest and not Path(text).exists() and names.is_host(host):
        names.parse(text).pinned()


def _refuse_ours(path: Path) -> None:
    """Say of a file that Strongroom wrote what it is, and not that it is a damaged image."""
    kind = files.kind(path)
    if not kind:
        return
    hint = "give the image that it was made from" if kind == files.DISK else "give the image itself"
    raise Misuse(
        f"{path}: is {kind}, and no image",
        code="not-an-image",
        hint=f"{hint}: an OCI layout, an archive, a root file system with --config, or HOST/NAME@sha256:…",
    )


def _pull(name: str, platform: ImagePlatform, registries: Registries, into: Path) -> tuple[str, Path]:
    from strongroom.fetch.oci import names, pull

    with meter.meter("fetching") as progress:
        pulled = pull.pull(
            names.parse(name),
            platform=platform,
            into=into,
            access=registries.access(name),
            progress=progress,
        )
    return pulled.digest, into


def _compose(image: str) -> ComposeService | None:
    path = Path(image)
    if not image.endswith((".yaml", ".yml")) or path.is_dir():
        return None
    from strongroom.images.compose import document, strict_yaml

    return files.parsed(
        path, lambda data: document.parse(data, what=path.name), max_bytes=strict_yaml.MAX_BYTES
    )


def _refuse_blocked(service: ComposeService) -> None:
    bad = [one for one in service.findings if one.severity.value == "blocks"]
    if bad:
        raise Refused(
            f"{bad[0].where}: {bad[0].what}" + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""),
            code="would-not-run",
            hint=f"{bad[0].fix}; `strongroom preflight` lists everything",
        )
