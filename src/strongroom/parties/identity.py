"""A party's identity in its files: NAME.identity (private, under a passphrase) and NAME.party.json (handed around); and its new keys."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.model import identity as identity_model
from strongroom.model import manifest as manifest_model
from strongroom.model import rotation as rotation_model
from strongroom.model.contracts import signing
from strongroom.parties import papers
from strongroom.seal import disk, keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from strongroom.model.identity import Identity
    from strongroom.model.party import Party

ROTATION_SUFFIX = ".rotation.json"


@dataclass(frozen=True, kw_only=True)
class NewIdentity:
    """An identity with its two files."""

    identity: Identity
    private_file: Path
    party_file: Path


@dataclass(frozen=True, kw_only=True)
class RotatedIdentity:
    """A party's new identity, the statement by which the old key vouches for it, and the files of its disks under the new key."""

    private_file: Path
    party_file: Path
    statement_file: Path
    disk_files: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    data: bytes
    private: bool = False


def new_identity(
    name: str,
    *,
    passphrase: bytes | Callable[[], bytes],
    out: Path,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> NewIdentity:
    """Make an identity `name` in the folder `out`. Raises `Malformed` for a bad name, `Misuse` where one of its files exists.

    passphrase: what its file is locked with; a function is asked once the name is known to be one.
    """
    identity = identity_model.generate(name)
    secret = passphrase if isinstance(passphrase, bytes) else passphrase()
    private = out / f"{name}.identity"
    public = papers.party_file(private, name)
    locked = identity_model.lock(identity, secret, random=random)
    _write_all(
        out,
        (
            _File(path=private, data=locked, private=True),
            _File(path=public, data=identity.party().encode()),
        ),
    )
    return NewIdentity(identity=identity, private_file=private, party_file=public)


def change_passphrase(
    file: Path,
    identity: Identity,
    *,
    passphrase: bytes,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """Lock the file of an opened identity under another passphrase. Its keys stay the same."""
    files.write(file, identity_model.lock(identity, passphrase, random=random), private=True, replace=True)


def rotate_identity(
    old: Identity,
    *,
    held: Party,
    passphrase: bytes | Callable[[], bytes],
    out: Path,
    now: datetime,
    manifests: Sequence[Path] = (),
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> RotatedIdentity:
    """Make new keys for a party in the folder `out`, and the statement by which the old key vouches for them.

    held: its party file. manifests: of sealed disks of theirs, written anew, each with the key's file where one lies beside it; the disks stay as they
    are. now: UTC. After any failure none of the files is there. Raises `Misuse` for the party file of somebody else, `Refused` for a disk of somebody else.
    """
    signing.check_party_file(held, old.party())
    secret = passphrase if isinstance(passphrase, bytes) else passphrase()
    new = identity_model.generate(old.name)
    public = new.party(held.broker)
    statement = rotation_model.make(
        held, public, time=now.replace(microsecond=0), keys=(old.signing, new.signing)
    )
    private = _File(
        path=out / f"{old.name}.identity",
        data=identity_model.lock(new, secret, random=random),
        private=True,
    )
    party = _File(path=papers.party_file(private.path, old.name), data=public.encode())
    stated = _File(path=out / f"{old.name}{ROTATION_SUFFIX}", data=statement.encode())
    disks = tuple(file for manifest in manifests for file in _disk_files(manifest, old, new, out))
    _write_all(out, (private, party, stated, *disks))
    return RotatedIdentity(
        private_file=private.path,
        party_file=party.path,
        statement_file=stated.path,
        disk_files=tuple(file.path for file in disks),
    )


def accept_rotation(held: Path, statement: Path) -> tuple[Party, Party]:
    """Replace the party file `held` where its old key vouches for the new one. Returns the party before and after. Raises `Refused`."""
    before = papers.load_party(held)
    after = rotation_model.verify(papers.load_rotation(statement), before)
    files.write(held, after.encode(), replace=True)
    return before, after


def _disk_files(path: Path, old: Identity, new: Identity, out: Path) -> list[_File]:
    """The files of a disk under its owner's new keys: the manifest, and the key's file where there is one beside it."""
    envelope, manifest = files.parsed(
        path, manifest_model.parse_envelope, max_bytes=2 * manifest_model.MAX_BYTES
    )
    disk.check_owner(envelope, manifest, old.signing.public)
    written = [_File(path=out / path.name, data=disk.owned_by(manifest, new.signing).encode())]
    locked = path.with_name(path.name.removesuffix(disk.MANIFEST_SUFFIX) + disk.KEY_SUFFIX)
    if locked.is_file():
        key = keys.read(locked, old.age)
        written.append(_File(path=out / locked.name, data=keys.lock(key, new.age.recipient), private=True))
    return written


def _write_all(out: Path, wanted: Sequence[_File]) -> None:
    """Write all of the files, or none."""
    out.mkdir(parents=True, exist_ok=True)
    done: list[Path] = []
    try:
        for file in wanted:
            files.write(file.path, file.data, private=file.private)
            done.append(file.path)
    except BaseException:
        for path in done:
            path.unlink()
        raise
