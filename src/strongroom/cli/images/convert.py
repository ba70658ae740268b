"""`strongroom convert`: an ordinary container image becomes a sealed disk that a room can run."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import interruption, meter, options
from strongroom.cli.identity.files import IdentityFile, PassphraseFd
from strongroom.cli.identity.files import load as load_identity
from strongroom.cli.images import image_source
from strongroom.cli.images.image import SignedBy, SignerIdentity, SignerIssuer, TrustedRoot, demanded
from strongroom.cli.images.registry_options import Registries, taking
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.cli.images.image_source import FoundImage
    from strongroom.images.cache import Cache
    from strongroom.images.load import Loaded
    from strongroom.images.oci import ImagePlatform
    from strongroom.images.summary import Summary
    from strongroom.model.identity import Identity
    from strongroom.model.manifest import Manifest


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("convert")(convert)


@taking
def convert(
    image: Annotated[
        str,
        typer.Argument(
            help="An OCI layout, an OCI or `docker save` archive, a root file system, HOST/NAME@sha256:… in a registry, "
            "or a compose file."
        ),
    ],
    identity: IdentityFile,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The disk's name: lower-case letters, digits, dashes.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for NAME.disk and NAME.manifest.json.")] = Path(),
    digest: Annotated[
        str | None,
        typer.Option(metavar="sha256:…", help="Which of several images: sha256:… of a manifest or an index."),
    ] = None,
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCHITECTURE[/VARIANT]", help="Which of an index's images.")
    ] = "linux/amd64",
    config: Annotated[
        Path | None, typer.Option(help="For a root file system: its OCI image configuration (JSON).")
    ] = None,
    from_: image_source.From = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt the disk; its key goes to NAME.key.age.")
    ] = False,
    registries: Registries = Registries(),  # noqa: B008 - frozen
    signed_by: SignedBy = None,
    signer_identity: SignerIdentity = None,
    signer_issuer: SignerIssuer = None,
    trusted_root: TrustedRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Convert an unmodified container image into a sealed disk. Nothing of it is run, or written out as files."""
    from strongroom.images import oci

    _check_names(name, digest)
    signers = demanded(image, digest, signed_by, signer_identity, signer_issuer, trusted_root)
    with options.value_of("--platform"):
        wanted = oci.parse_platform(platform)
    target = _free_target(out, name)
    owner = load_identity(identity, passphrase_fd)
    registries = replace(registries, signers=signers)
    with interruption.orderly(), image_source.layouts(out if encrypt else None) as into:
        found = image_source.find(
            image, from_=from_, digest=digest, platform=wanted, registries=registries, into=into, strict=True
        )
        _make(found, wanted, config, target, owner, encrypt=encrypt, as_json=as_json)


def _check_names(name: str, digest: str | None) -> None:
    from strongroom.encoding import fields

    if fields.NAME.fullmatch(name) is None:
        raise Misuse(
            f"--name: expected {options.NAMES}, got {name[:80]!r}",
            code="bad-name",
            hint="a plain name, like flights or query-2",
        )
    if digest is not None and fields.DIGEST.fullmatch(digest) is None:
        raise Misuse(
            f"--digest: expected sha256: and 64 lower-case hexadecimal digits, got {digest[:80]!r}",
            code="bad-digest",
            hint="a tag does not name an image for good; `strongroom convert` without --digest lists the digests",
        )


def _free_target(out: Path, name: str) -> Path:
    from strongroom.seal import disk

    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}{disk.SUFFIX}"
    for suffix in (disk.SUFFIX, disk.MANIFEST_SUFFIX, disk.KEY_SUFFIX):
        file = disk.beside(target, suffix)
        if file.exists():
            raise Misuse(f"{file}: exists already", code="exists", hint="remove it, or choose another --name")
    return target


def _make(
    found: FoundImage,
    platform: ImagePlatform,
    config: Path | None,
    target: Path,
    owner: Identity,
    *,
    encrypt: bool,
    as_json: bool,
) -> None:
    from strongroom.seal import disk

    found.needed()
    settings = image_source.settings(config)
    # A folder's content is known only once it is read; an image that is to be encrypted stays out of caches.
    cache = None if encrypt or settings is not None else image_source.converted()
    tell = _silent if as_json else _tell
    done = None if cache is None else _taken(found, platform, target, owner, cache, tell)
    told, manifest = done or _sealed(
        found, platform, settings, target, owner, cache=cache, encrypt=encrypt, tell=tell
    )
    made = {"disk": target, "manifest": disk.beside(target, disk.MANIFEST_SUFFIX)}
    if encrypt:
        made["key"] = disk.beside(target, disk.KEY_SUFFIX)
    options = () if found.service is None else found.service.contract_options()
    if as_json:
        report = {**_report(told, manifest, made), "contract_options": list(options)}
        print(json.dumps(report, indent=1, sort_keys=True))
        return
    _summary(manifest, made)
    if options:
        print(f"contract     strongroom contract new … {_safe(shlex.join(options))}")


def _taken(
    found: FoundImage,
    platform: ImagePlatform,
    target: Path,
    owner: Identity,
    cache: Cache,
    tell: Callable[[Summary], None],
) -> tuple[Summary, Manifest] | None:
    """The disk from the cache, if the same image was converted the same way before."""
    from strongroom.errors import Refused
    from strongroom.images import cache as caches
    from strongroom.images import load as images
    from strongroom.seal import disk

    if found.path is None or not found.path.exists():
        return None
    chosen = images.identify(found.path.resolve(), digest=found.digest, platform=platform)
    if chosen is None:
        return None
    key = cache.key(chosen.digest, found.sealed(chosen.config))
    kept = cache.find(key)
    if kept is None or kept.manifest.image is None:
        return None
    from strongroom.images import summary

    told = summary.Summary(
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
        with meter.meter("taking it from the cache") as progress:
            made = disk.again(
                kept.manifest,
                name=target.name.removesuffix(disk.SUFFIX),
                owner_key=owner.signing,
                target=target,
                write=lambda fd: caches.copy(kept.disk, fd),
                progress=progress,
            )
    except (Refused, OSError):
        cache.drop(key)  # damaged: the long way is always open
        return None
    tell(told)
    return told, made


def _sealed(
    found: FoundImage,
    platform: ImagePlatform,
    config: bytes | None,
    target: Path,
    owner: Identity,
    *,
    cache: Cache | None,
    encrypt: bool,
    tell: Callable[[Summary], None],
) -> tuple[Summary, Manifest]:
    from strongroom.images import load as images

    with contextlib.ExitStack() as opened:
        with found.named(), meter.meter("unpacking") as progress:
            loaded = opened.enter_context(
                images.load(
                    found.needed(),
                    scratch=target.parent,
                    digest=found.digest,
                    platform=platform,
                    config=config,
                    changes=found.sealed,
                    cache=cache,
                    progress=progress,
                )
            )
        told = loaded.summary
        tell(told)
        manifest = _seal(loaded, target, owner, encrypt=encrypt)
    if cache is not None:
        cache.keep(cache.key(told.digest, loaded.config), target, manifest, told)
    return told, manifest


def _silent(_told: Summary) -> None:
    pass


def _seal(loaded: Loaded, target: Path, owner: Identity, *, encrypt: bool) -> Manifest:
    import secrets

    from strongroom.seal import disk, keys, newfile

    key = keys.new(secrets.token_bytes) if encrypt else None
    key_file = disk.beside(target, disk.KEY_SUFFIX)
    name = target.name.removesuffix(disk.SUFFIX)
    if key is not None:
        # First the key: a disk that nobody can open is never left behind.
        newfile.write(key_file, keys.lock(key, owner.age.recipient), mode=0o600)
    try:
        with meter.meter(f"sealing {name}") as progress:
            return disk.seal(
                loaded.entries,
                kind="image",
                name=name,
                owner_key=owner.signing,
                key=key,
                image=loaded.settings,
                target=target,
                progress=progress,
            )
    except BaseException:
        if key is not None:
            key_file.unlink(missing_ok=True)
        raise


def _tell(loaded: Summary) -> None:
    """What will run: the image's own words, made safe for a terminal."""
    settings = loaded.settings
    program = [*settings.entrypoint, *settings.command]
    print(f"image        {loaded.digest} ({loaded.kind})")
    for known in loaded.names:
        print(f"             {known} → this digest; the name is not kept")
    if loaded.index is not None:
        print(f"chosen from  {loaded.index} (an index; the contract will name the image)")
    print(f"runs         {_safe(shlex.join(program))}")
    groups = f", groups {', '.join(map(str, settings.groups))}" if settings.groups else ""
    print(f"as           user {settings.uid}, group {settings.gid}{groups}")
    print(f"in           {_safe(settings.working_directory)}")
    print(f"environment  {_safe(', '.join(sorted(settings.environment)))}")
    print(
        f"holds        {loaded.entries} entries, {meter.size(loaded.content_bytes)}, layers: {loaded.layers}"
    )
    for note in loaded.notes:
        print(f"note         {_safe(note)}")


def _summary(manifest: Manifest, made: dict[str, Path]) -> None:
    cipher = "not encrypted" if manifest.cipher == "none" else manifest.cipher
    print(f"disk         {made['disk']} ({meter.size(manifest.disk_bytes)}, {cipher})")
    print(f"manifest     {made['manifest']} (signed)")
    if "key" in made:
        print(f"key          {made['key']} (for you alone; give it to your broker)")
    print(f"digest       {manifest.digest}")
    print("             a contract names the image by this digest")


def _report(loaded: Summary, manifest: Manifest, made: dict[str, Path]) -> dict[str, object]:
    settings = loaded.settings
    return {
        "source": {
            "kind": loaded.kind,
            "digest": loaded.digest,
            "index": loaded.index,
            "names": list(loaded.names),
            "layers": loaded.layers,
        },
        "runs": {
            "entrypoint": list(settings.entrypoint),
            "command": list(settings.command),
            "working_directory": settings.working_directory,
            "uid": settings.uid,
            "gid": settings.gid,
            "groups": list(settings.groups),
            "environment": sorted(settings.environment),
        },
        "entries": loaded.entries,
        "content_bytes": loaded.content_bytes,
        "notes": list(loaded.notes),
        "name": manifest.name,
        "digest": manifest.digest,
        "root_hash": manifest.root_hash,
        "disk_bytes": manifest.disk_bytes,
        "cipher": manifest.cipher,
        "disk": str(made["disk"]),
        "manifest": str(made["manifest"]),
        "key": str(made["key"]) if "key" in made else None,
    }


def _safe(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return shown if len(shown) <= 2000 else shown[:1997] + "..."
