"""What is a party's own, in the clear: a sealed disk of theirs, or a result or log that was sealed to them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.crypto import age
from strongroom.errors import Misuse, NotFound, of_file
from strongroom.images import results
from strongroom.model.room import run_files
from strongroom.seal import dataset, extract
from strongroom.seal.progress import silently

if TYPE_CHECKING:
    from strongroom.model.identity import Identity
    from strongroom.seal.progress import Steps

_SENDFILE = 1 << 30


def check_sealed(file: Path) -> None:
    """Raise `NotFound` or `Misuse` for what cannot be opened, before anybody is asked for a passphrase."""
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
    kind = "" if _is_age(file) else files.kind(file)
    if kind not in ("", files.DISK):
        raise Misuse(
            f"{file}: is {kind}, and nothing of it is sealed",
            code="not-sealed",
            hint="name a sealed disk, or an age file that is sealed to you",
        )


def open_sealed(
    file: Path,
    *,
    identity: Identity,
    out: Path | None = None,
    manifest: Path | None = None,
    key_file: Path | None = None,
    steps: Steps = silently,
) -> Path:
    """Open a sealed disk or an age file into a new or empty folder, whole or not at all; returns the folder.

    out: by default `file`'s name without .tar.age, .age or .disk, in the working directory. manifest, key_file: a disk's, where they
    are not beside it. Raises `NotFound`, `Misuse`, `Malformed`, and `Refused` for what is not sealed to `identity` or is damaged.
    """
    check_sealed(file)
    out = out or _named_after(file)
    if _is_age(file):
        _open_result(file, identity, out, steps)
    else:
        dataset.open_disk(file, owner=identity, out=out, manifest=manifest, key_file=key_file, steps=steps)
    return out


def _is_age(file: Path) -> bool:
    with file.open("rb") as source:
        return source.read(40).startswith(age.MAGIC)


def _named_after(file: Path) -> Path:
    """out-0 for run/out-0.tar.age, flights for flights.disk: here, like what other unpackers make."""
    bare = file.name
    for ending in (".age", ".tar", ".disk"):
        bare = bare.removesuffix(ending)
    return Path(bare if bare not in ("", file.name) else f"{file.name}.opened")


def _open_result(file: Path, identity: Identity, out: Path, steps: Steps) -> None:
    with of_file(file), extract.staged(out) as stage:
        # The content has no name until it is known to be whole: age tells only at its end.
        with tempfile.TemporaryFile(dir=out.parent) as content, file.open("rb") as source:
            identity.age.open_stream(source, content)
            content.flush()
            size = os.fstat(content.fileno()).st_size
            # A log is whatever the program printed, a tar or half of one included.
            if file.name != run_files.LOG and results.is_tar(content.fileno(), size, name=file.name):
                with steps(f"unpacking {file.name}") as progress:
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
        while count := os.sendfile(sink.fileno(), source, offset, _SENDFILE):
            offset += count
