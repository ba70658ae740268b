"""`strongroom identity new|show|passwd`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import passphrase
from strongroom.cli.identity import rotate
from strongroom.cli.identity.files import NewPassphraseFd, PassphraseFd, load


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Make and show identities.", no_args_is_help=True)
    group.command("new")(new)
    group.command("show")(show)
    group.command("passwd")(passwd)
    group.command("rotate")(rotate.rotate)
    group.command("accept")(rotate.accept)
    app.add_typer(group, name="identity")


def new(
    name: Annotated[str, typer.Argument(help="The party's name: lower-case letters, digits, dashes.")],
    out: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path(),
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make an identity: NAME.identity (keep it) and NAME.party.json (hand it around)."""
    from strongroom.parties import identity as identities

    created = identities.new_identity(
        name, passphrase=lambda: passphrase.read(passphrase_fd, confirm=True), out=out
    )
    print(f"identity of {name}: {created.private_file} (private, under your passphrase)")
    print(f"public part:    {created.party_file} (hand this around)")


def show(
    file: Annotated[Path, typer.Argument(help="An identity file or a party file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the public part as JSON.")] = False,
) -> None:
    """Show the public part of an identity. No passphrase is needed."""
    from strongroom.encoding import fields
    from strongroom.parties import papers

    party, private = papers.load_public_or_party(file)
    if as_json:
        print(party.encode().decode(), end="")
        return
    print(f"name        {party.name}")
    print(f"signing key {fields.format_data(party.signing_key.raw)}, {party.keyid}")
    print(f"recipient   {party.recipient}")
    if private:
        print(
            f"broker      is in the party file alone: strongroom identity show {papers.party_file(file, party.name)}"
        )
        return
    print(f"broker      {party.broker.url if party.broker else 'none'}")
    if party.broker:
        print(f"  TLS key    {party.broker.pin}")
        print(f"  ledger key {fields.format_data(party.broker.ledger_key)}")
        print(f"  authority  {party.broker.authority}")


def passwd(
    file: Annotated[Path, typer.Argument(help="Your identity file.")],
    passphrase_fd: PassphraseFd = None,
    new_passphrase_fd: NewPassphraseFd = None,
) -> None:
    """Change the passphrase of an identity file. Its keys stay the same."""
    from strongroom.parties import identity as identities

    opened = load(file, passphrase_fd)
    secret = passphrase.read(
        new_passphrase_fd, confirm=True, what="the new passphrase", variable=passphrase.NEW
    )
    identities.change_passphrase(file, opened, passphrase=secret)
    print(f"{file}: opens with the new passphrase alone")
    print("copies of the file from before open with the old passphrase: destroy them, or replace the keys")
