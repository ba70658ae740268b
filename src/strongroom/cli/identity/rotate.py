"""`strongroom identity rotate|accept`: new keys of a party, and how others follow."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from strongroom import files
from strongroom.cli import passphrase
from strongroom.cli.identity.files import NewPassphraseFd, PassphraseFd, load
from strongroom.model import identity as identity_model
from strongroom.model import manifest as manifest_model
from strongroom.model import party as party_model
from strongroom.model import rotation as rotation_model
from strongroom.parties.papers import party_file

ROTATION_SUFFIX = ".rotation.json"


def rotate(
    file: Annotated[Path, typer.Argument(help="Your identity file.")],
    out: Annotated[Path, typer.Option(help="Folder for the new files; the old ones stay where they are.")],
    party: Annotated[
        Path | None, typer.Option(help="Your party file, if not NAME.party.json beside the identity.")
    ] = None,
    disk: Annotated[
        list[Path],
        typer.Option(
            help="The manifest of a sealed disk of yours, to be made anew under the new key.",
            metavar="MANIFEST",
        ),
    ] = [],  # noqa: B006 - typer copies it
    passphrase_fd: PassphraseFd = None,
    new_passphrase_fd: NewPassphraseFd = None,
) -> None:
    """Make new keys for a party, and the statement by which the old key vouches for them.

    What was signed or sealed before stays with the old identity: keep it. Disks need no sealing again: --disk writes their manifest
    (and NAME.key.age beside it) anew.
    """
    from strongroom.model.contracts import signing

    old = load(file, passphrase_fd)
    held = files.parsed(
        party or party_file(file, old.name), party_model.parse, max_bytes=party_model.MAX_BYTES
    )
    signing.check_party_file(held, old.party())
    secret = passphrase.read(
        new_passphrase_fd, confirm=True, what="the passphrase of the new identity", variable=passphrase.NEW
    )
    made = identity_model.generate(old.name)
    public = made.party(held.broker)
    statement = rotation_model.make(
        held, public, time=datetime.now(UTC).replace(microsecond=0), keys=(old.signing, made.signing)
    )
    written = [
        (out / f"{old.name}.identity", identity_model.lock(made, secret, random=secrets.token_bytes), True),
        (out / f"{old.name}.party.json", public.encode(), False),
        (out / f"{old.name}{ROTATION_SUFFIX}", statement.encode(), False),
        *(one for manifest in disk for one in _again(manifest, old, made, out)),
    ]
    out.mkdir(parents=True, exist_ok=True)
    done: list[Path] = []
    try:
        for path, data, private in written:
            files.write(path, data, private=private)
            done.append(path)
    except BaseException:
        for path in done:
            path.unlink()
        raise
    print(f"new identity: {written[0][0]} (private), {written[1][0]} (hand this around)")
    print(
        f"statement:    {written[2][0]} (others follow with `identity accept`; your broker with `rotate-identity`)"
    )
    for path, _, _ in written[3:]:
        print(f"              {path}")
    print(f"keep {file}: it alone opens what was sealed to it")
    print("contracts signed with it are released no more once your broker has the new keys: sign new ones")


def _again(
    path: Path, old: identity_model.Identity, new: identity_model.Identity, out: Path
) -> list[tuple[Path, bytes, bool]]:
    """The files of a disk under its owner's new keys: the manifest, and the key's file where there is one beside it."""
    from strongroom.seal import disk, keys

    envelope, manifest = files.parsed(
        path, manifest_model.parse_envelope, max_bytes=2 * manifest_model.MAX_BYTES
    )
    disk.check_owner(envelope, manifest, old.signing.public)
    made = [(out / path.name, disk.owned_by(manifest, new.signing).encode(), False)]
    locked = path.with_name(path.name.removesuffix(disk.MANIFEST_SUFFIX) + disk.KEY_SUFFIX)
    if locked.is_file():
        key = files.parsed(locked, lambda data: keys.unlock(data, old.age), max_bytes=keys.MAX_BYTES)
        made.append((out / locked.name, keys.lock(key, new.age.recipient), True))
    return made


def accept(
    held: Annotated[Path, typer.Argument(help="The party file that you have.")],
    rotation: Annotated[Path, typer.Argument(help="The statement, NAME.rotation.json, that you got.")],
) -> None:
    """Follow a party to its new keys: replace the party file that you have, where its old key vouches for the new one."""
    before = files.parsed(held, party_model.parse, max_bytes=party_model.MAX_BYTES)
    statement = files.parsed(rotation, rotation_model.read, max_bytes=4 * rotation_model.MAX_BYTES)
    after = rotation_model.verify(statement, before)
    files.write(held, after.encode(), replace=True)
    print(
        f"{held}: {after.name} has the signing key {after.keyid} from now on, vouched for by {before.keyid}"
    )
    print(
        "whoever has stolen the old key could have done the same: ask the party itself where that is to be feared"
    )
