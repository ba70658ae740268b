"""`strongroom convert`: an ordinary container image becomes a sealed disk that a room can run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import interruption, meter, options
from strongroom.cli.identity.files import IdentityFile, PassphraseFd
from strongroom.cli.identity.files import load as load_identity
from strongroom.cli.images import image_source
from strongroom.cli.images.image import SignedBy, SignerIdentity, SignerIssuer, TrustedRoot, demanded
from strongroom.cli.images.registry_options import Registries, taking

if TYPE_CHECKING:
    from strongroom.images.convert import ConvertedImage
    from strongroom.images.summary import Summary


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
    from strongroom.fetch import images as finding
    from strongroom.images import convert as converting
    from strongroom.images import oci
    from strongroom.seal import dataset

    dataset.check_name(name)
    finding.check_digest(digest)
    signers = demanded(image, digest, signed_by, signer_identity, signer_issuer, trusted_root)
    with options.value_of("--platform"):
        wanted = oci.parse_platform(platform)
    converting.check_free(out, name)
    owner = load_identity(identity, passphrase_fd)
    with interruption.orderly():
        converted = finding.convert_image(
            image,
            name=name,
            owner=owner,
            out=out,
            digest=digest,
            platform=wanted,
            config=config,
            from_=from_,
            encrypt=encrypt,
            cache=image_source.cache_folder(),
            reach=registries.access,
            signers=signers,
            on_summary=_silent if as_json else _tell,
            steps=meter.meter,
        )
    if as_json:
        print(json.dumps(_report(converted), indent=1, sort_keys=True))
        return
    _summary(converted)
    if converted.contract_options:
        print(f"contract     strongroom contract new … {_safe(shlex.join(converted.contract_options))}")


def _silent(_summary: Summary) -> None:
    pass


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


def _summary(converted: ConvertedImage) -> None:
    manifest = converted.manifest
    from strongroom.model import manifest as manifest_model

    cipher = "not encrypted" if manifest.cipher == manifest_model.NO_CIPHER else manifest.cipher
    print(f"disk         {converted.disk} ({meter.size(manifest.disk_bytes)}, {cipher})")
    print(f"manifest     {converted.manifest_file} (signed)")
    if converted.key_file is not None:
        print(f"key          {converted.key_file} (for you alone; give it to your broker)")
    print(f"digest       {manifest.digest}")
    print("             a contract names the image by this digest")


def _report(converted: ConvertedImage) -> dict[str, object]:
    summary, settings, manifest = converted.summary, converted.summary.settings, converted.manifest
    return {
        "source": {
            "kind": summary.kind,
            "digest": summary.digest,
            "index": summary.index,
            "names": list(summary.names),
            "layers": summary.layers,
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
        "entries": summary.entries,
        "content_bytes": summary.content_bytes,
        "notes": list(summary.notes),
        "name": manifest.name,
        "digest": manifest.digest,
        "root_hash": manifest.root_hash,
        "disk_bytes": manifest.disk_bytes,
        "cipher": manifest.cipher,
        "disk": str(converted.disk),
        "manifest": str(converted.manifest_file),
        "key": None if converted.key_file is None else str(converted.key_file),
        "contract_options": list(converted.contract_options),
    }


def _safe(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return shown if len(shown) <= 2000 else shown[:1997] + "..."
