"""`strongroom open`: what is yours, in the clear: your sealed disk, or a result that was sealed to you."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import files, interruption, meter
from strongroom.cli.identity.files import IdentityFile, PassphraseFd, load
from strongroom.cli.inspect import MAX_MANIFEST, manifest_of
from strongroom.crypto import age
from strongroom.errors import Misuse, NotFound, of_file
from strongroom.model import identity as identity_model
from strongroom.model import manifest as manifest_model
from strongroom.model.room import run_files


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("open")(open_file)


def open_file(
    file: Annotated[Path, typer.Argument(help="A sealed disk of yours, or an age file sealed to you.")],
    identity: IdentityFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A new or empty folder for what is inside; by default FILE's name without .tar.age, .age or .disk, here."
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="The disk's manifest; the one beside it by default.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The disk's NAME.key.age; the one beside it by default.")
    ] = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Open a sealed disk or a sealed result into a folder: whole, or not at all."""
    if not file.is_file():
        if file.is_dir():
            raise Misuse(
                f"{file}: is a folder",
                code="not-a-file",
                hint=f"name the file in it, like {file}/out-0.tar.age, or a sealed disk",
            )
        raise NotFound(
            f"{file}: no such file",
            hint="name a sealed disk, NAME.disk, or an age file that is sealed to you",
        )
    with file.open("rb") as source:
        is_age = source.read(40).startswith(age.MAGIC)
    kind = "" if is_age else files.kind(file)
    if kind not in ("", files.DISK):
        raise Misuse(
            f"{file}: is {kind}, and nothing of it is sealed",
            code="not-sealed",
            hint="name a sealed disk, or an age file that is sealed to you",
        )
    out = out or _named_after(file)
    mine = load(identity, passphrase_fd)
    with interruption.orderly():
        if is_age:
            _open_result(file, mine, out)
        else:
            _open_disk(file, mine, out, manifest, key_file)
    print(f"opened  {file} into {out}")


def _named_after(file: Path) -> Path:
    """out-0 for run/out-0.tar.age, flights for flights.disk: here, like what other unpackers make."""
    bare = file.name
    for ending in (".age", ".tar", ".disk"):
        bare = bare.removesuffix(ending)
    return Path(bare if bare not in ("", file.name) else f"{file.name}.opened")


def _open_disk(
    file: Path, mine: identity_model.Identity, out: Path, manifest: Path | None, key_file: Path | None
) -> None:
    from strongroom.seal import disk, keys

    path = manifest_of(file, manifest)
    envelope, wanted = files.parsed(path, manifest_model.parse_envelope, max_bytes=MAX_MANIFEST)
    disk.check_owner(envelope, wanted, mine.signing.public)
    key = None
    if wanted.cipher != "none":
        locked = key_file or disk.beside(file, disk.KEY_SUFFIX)
        if not locked.is_file():
            raise NotFound(f"{locked}: there is no key", hint="name the disk's NAME.key.age with --key-file")
        key = files.parsed(locked, lambda data: keys.unlock(data, mine.age), max_bytes=keys.MAX_BYTES)
    with meter.meter(f"opening {file.name}") as progress:
        disk.open_disk(file, wanted, key, out, progress=progress)


def _open_result(file: Path, mine: identity_model.Identity, out: Path) -> None:
    from strongroom.images import results
    from strongroom.seal import extract

    with of_file(file), extract.staged(out) as stage:
        # The content has no name until it is known to be whole: age tells only at its end.
        with tempfile.TemporaryFile(dir=out.parent) as content, file.open("rb") as source:
            mine.age.open_stream(source, content)
            content.flush()
            size = os.fstat(content.fileno()).st_size
            # A log is whatever the program printed, a tar or half of one included.
            if file.name != run_files.LOG and results.is_tar(content.fileno(), size, name=file.name):
                with meter.meter(f"unpacking {file.name}") as progress:
                    entries = results.tree(content.fileno(), size, what=file.name)
                    extract.write(entries, stage, foreign_links=False, progress=progress)
            else:
                content.seek(0)
                _copy(content.fileno(), stage / (file.name.removesuffix(".age") or "content"))
        stage.chmod(stat.S_IRWXU)


def _copy(source: int, target: Path) -> None:
    with target.open("xb") as sink:
        target.chmod(0o600)
        offset = 0
        while count := os.sendfile(sink.fileno(), source, offset, 1 << 30):
            offset += count
