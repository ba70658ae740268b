"""`strongroom convert`: an ordinary container image becomes a sealed disk that a room can run."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import files, interruption, meter
from strongroom.cli.identity import IdentityFile, PassphraseFd
from strongroom.cli.identity import load as load_identity

if TYPE_CHECKING:
    from strongroom.convert.image import Loaded
    from strongroom.model.manifest import Manifest


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("convert")(convert)


def convert(
    image: Annotated[
        Path, typer.Argument(help="An OCI layout, an OCI or `docker save` archive, or a root file system.")
    ],
    identity: IdentityFile,
    name: Annotated[str, typer.Option(help="The disk's name: lower-case letters, digits, dashes.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.disk and NAME.manifest.json.")] = Path(),
    digest: Annotated[
        str | None, typer.Option(help="Which of several images: sha256:… of a manifest or an index.")
    ] = None,
    platform: Annotated[str, typer.Option(help="Which of an index's images.")] = "linux/amd64",
    config: Annotated[
        Path | None, typer.Option(help="For a root file system: its OCI image configuration (JSON).")
    ] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt the disk; its key goes to NAME.key.age.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Convert an unmodified container image into a sealed disk. Nothing of it is run, or written out as files."""
    import secrets

    from strongroom.convert import image as images
    from strongroom.convert import oci
    from strongroom.convert.limits import LIMITS
    from strongroom.encoding import fields
    from strongroom.errors import Misuse
    from strongroom.seal import disk, keys, newfile

    if fields.NAME.fullmatch(name) is None:
        raise Misuse(f"name {name[:40]!r}: use lower-case letters, digits, dots, dashes", code="bad-name")
    if digest is not None and fields.DIGEST.fullmatch(digest) is None:
        raise Misuse(
            f"digest {digest[:80]!r}: expected sha256: and 64 hexadecimal digits",
            code="bad-digest",
            hint="a tag does not name an image for good; `strongroom convert` without --digest lists the digests",
        )
    wanted = oci.parse_platform(platform)
    settings = None if config is None else files.read(config, max_bytes=LIMITS.document_bytes)
    owner = load_identity(identity, passphrase_fd)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}{disk.SUFFIX}"
    key_file = disk.beside(target, disk.KEY_SUFFIX)
    for file in (target, disk.beside(target, disk.MANIFEST_SUFFIX), key_file):
        if file.exists():
            raise Misuse(f"{file}: exists already", code="exists", hint="remove it, or choose another --name")
    with contextlib.ExitStack() as opened:
        opened.enter_context(interruption.orderly())
        with meter.meter("unpacking") as progress:
            loaded = opened.enter_context(
                images.load(
                    image, scratch=out, digest=digest, platform=wanted, config=settings, progress=progress
                )
            )
        if not as_json:
            _tell(loaded)
        key = keys.new(secrets.token_bytes) if encrypt else None
        if key is not None:
            # First the key: a disk that nobody can open is never left behind.
            newfile.write(key_file, keys.lock(key, owner.age.recipient), mode=0o600)
        try:
            with meter.meter(f"sealing {name}") as progress:
                manifest = disk.seal(
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
        made = {"disk": target, "manifest": disk.beside(target, disk.MANIFEST_SUFFIX)}
        if key is not None:
            made["key"] = key_file
        if as_json:
            print(json.dumps(_report(loaded, manifest, made), indent=1, sort_keys=True))
        else:
            _summary(manifest, made)


def _tell(loaded: Loaded) -> None:
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
        f"holds        {len(loaded.entries)} entries, {meter.size(loaded.content_bytes)}, layers: {loaded.layers}"
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


def _report(loaded: Loaded, manifest: Manifest, made: dict[str, Path]) -> dict[str, object]:
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
        "entries": len(loaded.entries),
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
