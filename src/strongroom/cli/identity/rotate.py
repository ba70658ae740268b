"""`strongroom identity rotate|accept`: new keys of a party, and how others follow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import passphrase
from strongroom.cli.identity.files import NewPassphraseFd, PassphraseFd, load


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
    from strongroom.parties import identity as identities
    from strongroom.parties import papers

    old = load(file, passphrase_fd)
    held = papers.load_party(party or papers.party_file(file, old.name))
    rotated = identities.rotate_identity(
        old,
        held=held,
        passphrase=lambda: passphrase.read(
            new_passphrase_fd,
            confirm=True,
            what="the passphrase of the new identity",
            variable=passphrase.NEW,
        ),
        out=out,
        now=datetime.now(UTC),
        manifests=disk,
    )
    print(f"new identity: {rotated.private_file} (private), {rotated.party_file} (hand this around)")
    print(
        f"statement:    {rotated.statement_file} (others follow with `identity accept`; your broker with `rotate-identity`)"
    )
    for path in rotated.disk_files:
        print(f"              {path}")
    print(f"keep {file}: it alone opens what was sealed to it")
    print(
        "contracts signed with it are released no more once your broker has the new keys: sign new contracts"
    )


def accept(
    held: Annotated[Path, typer.Argument(help="The party file that you have.")],
    rotation: Annotated[Path, typer.Argument(help="The statement, NAME.rotation.json, that you got.")],
) -> None:
    """Follow a party to its new keys: replace the party file that you have, where its old key vouches for the new one."""
    from strongroom.parties import identity as identities

    before, after = identities.accept_rotation(held, rotation)
    print(
        f"{held}: {after.name} has the signing key {after.keyid} from now on, vouched for by {before.keyid}"
    )
    print(
        "whoever has stolen the old key could have done the same: ask the party itself where that is to be feared"
    )
