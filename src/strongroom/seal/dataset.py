"""An owner's files become a sealed disk: NAME.disk, NAME.manifest.json and NAME.key.age in one folder. And the way back."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.encoding import canonical, fields
from strongroom.errors import Misuse, NotFound
from strongroom.model import manifest as manifest_model
from strongroom.seal import disk, folder, keys
from strongroom.seal.progress import silently
from strongroom.seal.tree import EntryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from strongroom.model.identity import Identity
    from strongroom.model.manifest import Manifest
    from strongroom.model.party import Party
    from strongroom.seal.progress import Steps

NO_OPTION = "put it beside the disk, or name the manifest itself in place of the disk"


@dataclass(frozen=True, kw_only=True)
class SealedFiles:
    """The three files of a sealed dataset, and what its manifest says. empty: no file is in it."""

    disk: Path
    manifest_file: Path
    key_file: Path
    manifest: Manifest
    empty: bool


def check_name(name: str) -> None:
    """Raise `Misuse` unless a disk can have this name."""
    if fields.NAME.fullmatch(name) is None:
        raise Misuse(
            f"--name: expected {fields.NAMES}, got {name[:80]!r}",
            code="bad-name",
            hint="a plain name, like flights or query-2",
        )


def check_place(paths: Sequence[Path], *, out: Path) -> None:
    """Raise `Misuse` for an `out` in what is sealed: a disk inside the folder that it seals would hold itself the next time.

    Raises `OSError` for a path that is not there.
    """
    try:
        target = out.resolve()
    except RuntimeError:  # Python before 3.13 says so where it should say OSError
        raise Misuse(
            f"--out {out}: a link that leads to itself",
            code="bad-path",
            hint="name a folder with --out, or remove the link",
        ) from None
    for path in paths:
        path.lstat()
        if path.is_dir() and target.is_relative_to(path.resolve()):
            raise Misuse(
                f"--out {out} lies in {path}, which is being sealed",
                code="out-inside",
                hint="name an output folder elsewhere",
            )


def seal_files(
    paths: Sequence[Path],
    *,
    name: str,
    owner: Identity,
    out: Path,
    key_file: Path | None = None,
    random: Callable[[int], bytes] = secrets.token_bytes,
    steps: Steps = silently,
) -> SealedFiles:
    """Seal `paths` (one folder: its contents) into an encrypted disk in the folder `out`, signed by `owner`, its key for them alone.

    key_file: a NAME.key.age of the owner's whose key is used instead of a new one: same input, same disk. Raises `Misuse` where one of the
    files exists, and like `folder.from_paths` and `disk.seal`. After any failure none of the files is there.
    """
    check_name(name)
    check_place(paths, out=out)
    target = out / f"{name}{disk.SUFFIX}"
    key_target = disk.beside(target, disk.KEY_SUFFIX)
    key = keys.new(random) if key_file is None else keys.read(key_file, owner.age)
    entries = folder.from_paths(paths)
    out.mkdir(parents=True, exist_ok=True)
    same_file = key_file is not None and key_target.exists() and key_file.samefile(key_target)
    if not same_file:
        files.write(key_target, keys.lock(key, owner.age.recipient), private=True)
    try:
        with steps(f"sealing {name}") as progress:
            manifest = disk.seal(
                entries,
                kind="dataset",
                name=name,
                owner_key=owner.signing,
                key=key,
                image=None,
                target=target,
                progress=progress,
            )
    except BaseException:
        if not same_file:
            key_target.unlink(missing_ok=True)
        raise
    return SealedFiles(
        disk=target,
        manifest_file=disk.beside(target, disk.MANIFEST_SUFFIX),
        key_file=key_target,
        manifest=manifest,
        empty=not any(entry.kind is EntryKind.FILE for entry in entries),
    )


@dataclass(frozen=True, kw_only=True)
class InspectedDisk:
    """What a manifest says, and key ids of those who it says signed it. Nothing is verified."""

    manifest: Manifest
    signers: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The manifest's own payload, and its digest."""
        payload = canonical.loads(self.manifest.raw, what="manifest", max_bytes=manifest_model.MAX_BYTES)
        return {**payload, "digest": self.manifest.digest}


def inspect_disk(file: Path) -> InspectedDisk:
    """What a sealed disk claims to be: of its manifest, or of NAME.disk with the manifest beside it. Raises `NotFound`, `Malformed`."""
    if not file.exists():
        raise NotFound(
            f"{file}: no such file", hint="name a sealed disk, NAME.disk, or its NAME.manifest.json"
        )
    path = manifest_of(file, None, hint=NO_OPTION) if file.suffix == disk.SUFFIX else file
    envelope, manifest = files.parsed(
        path, manifest_model.parse_envelope, max_bytes=manifest_model.MAX_ENVELOPE
    )
    return InspectedDisk(
        manifest=manifest, signers=tuple(signature.keyid for signature in envelope.signatures)
    )


def manifest_of(
    sealed: Path, given: Path | None, *, hint: str = "put it beside the disk, or name it with --manifest"
) -> Path:
    """The manifest that was given, or the one beside the disk. Raises `NotFound`."""
    path = given or disk.beside(sealed, disk.MANIFEST_SUFFIX)
    if not path.is_file():
        raise NotFound(f"{path}: there is no manifest", hint=hint)
    return path


def open_disk(
    sealed: Path,
    *,
    owner: Identity,
    out: Path,
    manifest: Path | None = None,
    key_file: Path | None = None,
    steps: Steps = silently,
) -> None:
    """Write what is in a disk of the owner's into the new or empty folder `out`: whole, or not at all.

    manifest, key_file: where they are not beside the disk. Raises `NotFound`, `Malformed`, `Refused` for a disk of somebody else
    or one that is not what its manifest says, `Misuse` for an `out` that holds something.
    """
    path = manifest_of(sealed, manifest)
    envelope, wanted = files.parsed(
        path, manifest_model.parse_envelope, max_bytes=manifest_model.MAX_ENVELOPE
    )
    disk.check_owner(envelope, wanted, owner.signing.public)
    key = None
    if wanted.cipher != manifest_model.NO_CIPHER:
        locked = key_file or disk.beside(sealed, disk.KEY_SUFFIX)
        if not locked.is_file():
            raise NotFound(f"{locked}: there is no key", hint="name the disk's NAME.key.age with --key-file")
        key = keys.read(locked, owner.age)
    with steps(f"opening {sealed.name}") as progress:
        disk.open_disk(sealed, wanted, key, out, progress=progress)


def verify_disk(
    sealed: Path, *, manifest: Path | None = None, owner: Party | None = None, steps: Steps = silently
) -> Manifest:
    """Read every byte of a disk against its manifest, without any key; returns what the manifest says.

    owner: whose signature the manifest has to bear; none is checked otherwise. Raises `NotFound`, `Malformed`, and `Refused` that names
    the first block which is another.
    """
    if not sealed.exists():
        raise NotFound(
            f"{sealed}: no such file", hint="name a sealed disk, NAME.disk, as `seal` and `convert` write it"
        )
    path = manifest_of(sealed, manifest)
    envelope, wanted = files.parsed(
        path, manifest_model.parse_envelope, max_bytes=manifest_model.MAX_ENVELOPE
    )
    if owner is not None:
        disk.check_owner(envelope, wanted, owner.signing_key)
    with steps(f"verifying {sealed.name}") as progress:
        disk.verify(sealed, wanted, progress=progress)
    return wanted
