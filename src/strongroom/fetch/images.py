"""Images by whatever name somebody gives: a path, a name in a registry, or a compose file; found, and converted.

A compose file says which image and how it is run; the image itself lies where the caller says, or is fetched by its digest.
What is fetched goes into a layout, where the next time finds it, unless it is to be encrypted.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.encoding import fields
from strongroom.errors import Misuse, Refused
from strongroom.fetch.oci import names, pull, signed_images
from strongroom.fetch.oci.session import Access
from strongroom.images import convert
from strongroom.images import load as images
from strongroom.images.cache import Cache
from strongroom.images.convert import ConvertedImage, LocatedImage
from strongroom.images.preflight import examine
from strongroom.seal import dataset
from strongroom.seal.progress import silently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from strongroom.images.compose.document import ComposeService
    from strongroom.images.oci import ImagePlatform
    from strongroom.images.preflight.examine import PreflightReport
    from strongroom.images.signatures import Trust
    from strongroom.images.summary import Summary
    from strongroom.model.identity import Identity
    from strongroom.seal.progress import Steps

    # The name of an image in a registry → how that registry is reached.
    Reach = Callable[[str], Access]

LAYOUTS, CONVERTED = "layouts", "converted"  # in a cache's folder


def by_default(_name: str) -> Access:
    """Without log-in or mirror, with the system's certificates."""
    return Access()


def check_digest(digest: str | None) -> None:
    """Raise `Misuse` for what names no image for good."""
    if digest is not None and fields.DIGEST.fullmatch(digest) is None:
        raise Misuse(
            f"--digest: expected sha256: and 64 lower-case hexadecimal digits, got {digest[:80]!r}",
            code="bad-digest",
            hint="a tag does not name an image for good; `strongroom convert` without --digest lists the digests",
        )


def convert_image(  # noqa: PLR0913 - by name, and most of them with a default
    image: str,
    *,
    name: str,
    owner: Identity,
    out: Path,
    digest: str | None = None,
    platform: ImagePlatform = images.PLATFORM,
    config: Path | None = None,
    from_: Path | None = None,
    encrypt: bool = False,
    cache: Path | None = None,
    reach: Reach = by_default,
    signers: Trust | None = None,
    on_summary: Callable[[Summary], None] = lambda _summary: None,
    steps: Steps = silently,
) -> ConvertedImage:
    """Convert an unmodified container image into a sealed disk `name` in the folder `out`, signed by `owner`. Nothing of it is run.

    image: an OCI layout, an OCI or `docker save` archive, a root file system (with `config`, its OCI image configuration), HOST/NAME@sha256:…
    in a registry, or a compose file (whose image lies at `from_`, or is fetched). digest, platform: which of several images. encrypt:
    its key goes to NAME.key.age. cache: a folder for what is fetched and converted; None keeps nothing. signers: who has to have signed what is
    named in a registry. Raises `Misuse`, `Malformed`, `Refused`, `NotFound`, `Unavailable`; after any failure no file is there.
    """
    dataset.check_name(name)
    check_digest(digest)
    convert.check_free(out, name)
    with layouts(None if encrypt else cache, beside=out) as into:
        located = find_image(
            image,
            from_=from_,
            digest=digest,
            platform=platform,
            reach=reach,
            signers=signers,
            into=into,
            strict=True,
            steps=steps,
        )
        located.needed()
        return convert.convert(
            located,
            name=name,
            owner=owner,
            out=out,
            platform=platform,
            settings=None if config is None else convert.load_settings(config),
            encrypt=encrypt,
            cache=None if cache is None else converted(cache),
            on_summary=on_summary,
            steps=steps,
        )


def preflight_image(  # noqa: PLR0913 - by name, and most of them with a default
    image: str,
    *,
    digest: str | None = None,
    platform: ImagePlatform = images.PLATFORM,
    config: Path | None = None,
    from_: Path | None = None,
    cache: Path | None = None,
    reach: Reach = by_default,
    scratch: Path | None = None,
    rooms: Sequence[str] = examine.PLATFORMS,
    memory_mib: int = 512,
    steps: Steps = silently,
) -> PreflightReport:
    """Whether an image would run in rooms of each of `rooms` (local, uki, snp, tdx, nitro), and what would break. Nothing of it is run.

    image, digest, platform, config, from_, cache, reach: as `convert_image`. Of a compose file whose image is not at hand the file alone is examined.
    scratch: a folder with room for the unpacked image. memory_mib: what the contract will give. Raises like `convert_image`.
    """
    with layouts(cache) as into:
        located = find_image(
            image,
            from_=from_,
            digest=digest,
            platform=platform,
            reach=reach,
            into=into,
            strict=False,
            steps=steps,
        )
        service = located.service
        if located.path is None:
            return _of_the_file(service, rooms)
        with steps("reading") as progress:
            return examine.examine(
                examine.ImageLocation(
                    path=located.path,
                    digest=located.digest,
                    architecture=platform,
                    config=None if config is None else convert.load_settings(config),
                ),
                scratch=scratch,
                platforms=tuple(rooms),
                memory_mib=memory_mib,
                changes=located.run,
                before=service.findings if service else (),
                progress=progress,
            )


def _of_the_file(service: ComposeService | None, rooms: Sequence[str]) -> PreflightReport:
    """What a compose file says by itself."""
    from strongroom.images.compose import document  # noqa: PLC0415 - pyyaml is an extra

    findings = [] if service is None else [*service.findings, document.unchecked(service)]
    return examine.merge(dict.fromkeys(rooms, findings))


def converted(cache: Path) -> Cache:
    """What was converted before."""
    return Cache(folder=cache / CONVERTED)


@contextlib.contextmanager
def layouts(cache: Path | None, *, beside: Path | None = None) -> Iterator[Path]:
    """Where fetched images go: the cache; or a folder in `beside` that is removed in the end, for those that are secret."""
    if cache is not None:
        yield cache / LAYOUTS
        return
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=beside) as folder:
        yield Path(folder) / "layout"


def find_image(  # noqa: PLR0913 - by name, and most of them with a default
    image: str,
    *,
    from_: Path | None,
    digest: str | None,
    platform: ImagePlatform,
    reach: Reach,
    signers: Trust | None = None,
    into: Path,
    strict: bool,
    steps: Steps = silently,
) -> LocatedImage:
    """Find the image, fetching it where it is named by a registry. Raises `Misuse`, `Refused`, `Malformed`, `Unavailable`.

    What is fetched goes into the layout `into`. `strict` refuses a compose file that asks for what no room gives.
    """
    if signers is not None and digest is not None:
        raise digest_beside_signature()

    def at_hand(path: Path | None, text: str) -> Path | None:
        """`path`, where no signature is demanded: files of one's own have none."""
        if signers is not None:
            raise no_signature_here(text)
        return path

    def fetched(name: str) -> str:
        reference, access = names.parse(name), reach(name)
        if signers is not None:
            signed_images.require(reference, (reference.pinned(),), trust=signers, access=access)
        with steps("fetching") as progress:
            return pull.pull(reference, platform=platform, into=into, access=access, progress=progress).digest

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
            return LocatedImage(path=at_hand(Path(image), image), digest=digest)
        pulled = fetched(image)
        return LocatedImage(path=into, digest=digest or pulled, fetched=True)
    if strict:
        _refuse_blocked(service)
    if from_ is not None:
        return LocatedImage(
            path=at_hand(from_, str(from_)), digest=digest or service.digest or None, service=service
        )
    if not strict or not _is_name(service.image):
        return LocatedImage(path=at_hand(None, service.image or image), digest=None, service=service)
    pulled = fetched(service.image)
    return LocatedImage(path=into, digest=pulled, service=service, fetched=True)


def check_demand(image: str, digest: str | None) -> None:
    """Raise `Misuse` for an image of which a signature cannot be demanded: no registry names it, or `digest` names another beside it."""
    if not _is_name(image):
        raise no_signature_here(image)
    if digest is not None:
        raise digest_beside_signature()


def no_signature_here(text: str) -> Misuse:
    """The refusal of an image that no registry names, where a signature is demanded."""
    return Misuse(
        f"{text[:200]}: a signature is demanded, and only images named in a registry can have one here",
        code="no-signature-here",
        hint="for files: verify first, by `strongroom image verify sha256:… --bundle FILE`, and give that --digest here",
    )


def digest_beside_signature() -> Misuse:
    """The refusal of another digest beside the one that has to be signed."""
    return Misuse(
        "--digest: the image's name has a digest already, and it is the one that has to be signed",
        hint="leave --digest out, and name the very image that is signed",
    )


def _is_name(text: str) -> bool:
    return names.is_name(text) and not Path(text).exists()


def _refuse_tag(text: str) -> None:
    """Say of HOST/NAME:TAG what it is, and not that there is no such file."""
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


def _compose(image: str) -> ComposeService | None:
    path = Path(image)
    if not image.endswith((".yaml", ".yml")) or path.is_dir():
        return None
    from strongroom.images.compose import document, strict_yaml  # noqa: PLC0415 - pyyaml is an extra

    return files.parsed(
        path, lambda data: document.parse(data, what=path.name), max_bytes=strict_yaml.MAX_BYTES
    )


def _refuse_blocked(service: ComposeService) -> None:
    blocking = [finding for finding in service.findings if finding.severity.value == "blocks"]
    if blocking:
        first, *others = blocking
        raise Refused(
            f"{first.where}: {first.what}" + (f" (and {len(others)} more)" if others else ""),
            code="would-not-run",
            hint=f"{first.fix}; `strongroom preflight` lists everything",
        )
