"""`strongroom broker rotate-keys|rotate-root|rotate-identity`: new keys of a broker, of its authority, or of its party."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import passphrase
from strongroom.cli.identity.files import IdentityFile, load

PIN = "STRONGROOM_TOKEN_PIN"
BrokerDir = Annotated[Path, typer.Argument(help="The broker's folder.")]
BrokerFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", help="Read the broker's passphrase from this file descriptor."),
]
IdentityFd = Annotated[
    int | None,
    typer.Option("--identity-passphrase-fd", help="Read the identity's passphrase from this descriptor."),
]


def rotate_keys(
    directory: BrokerDir,
    identity: IdentityFile,
    party: Annotated[
        Path | None, typer.Option(help="Party file to write; by default NAME.party.json beside the identity.")
    ] = None,
    passphrase_fd: BrokerFd = None,
    identity_passphrase_fd: IdentityFd = None,
) -> None:
    """Give the broker a new TLS key, authority and master key; its ledger stays. It must not be serving.

    Contracts name these keys: those from before are released no more; sign their next version.
    """
    from strongroom.parties.papers import party_file
    from strongroom.wiring import owner

    mine = load(identity, identity_passphrase_fd, option="--identity-passphrase-fd")
    target = party or party_file(identity, mine.name)
    rotated = owner.rotate_keys(
        directory,
        identity=mine,
        party_file=target,
        passphrase=lambda: passphrase.read(passphrase_fd, what=f"passphrase of the broker in {directory}"),
    )
    print(f"new keys of the broker: ledger entry {rotated.proof.index}")
    print(f"public part:  {target} (hand this around; contracts carry it)")
    print("contracts from before name the old keys and are released no more: sign their next version")


def rotate_identity(
    directory: BrokerDir,
    rotation: Annotated[Path, typer.Argument(help="The statement that `identity rotate` wrote.")],
    passphrase_fd: BrokerFd = None,
) -> None:
    """Follow the broker's own party to its new keys. It must not be serving; its disks are to be added again."""
    from strongroom.parties.papers import load_rotation
    from strongroom.wiring import broker

    statement = load_rotation(rotation)
    secret = passphrase.read(passphrase_fd, what=f"passphrase of the broker in {directory}")
    rotated = broker.rotate_broker_identity(directory, secret, statement)
    print(f"broker of {rotated.party.name}, {rotated.party.keyid}: ledger entry {rotated.proof.index}")
    print("contracts signed with the old key are released no more")
    print("its disks went with the old key: add each with the manifest that `identity rotate --disk` wrote")


def rotate_root(
    directory: BrokerDir,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Make a next root, which contracts may name from then on.")
    ] = False,
    switch: Annotated[
        bool, typer.Option("--switch", help="Make the next root the current one; takes --identity.")
    ] = False,
    retire: Annotated[bool, typer.Option("--retire", help="Forget the root before the current one.")] = False,
    identity: Annotated[
        Path | None, typer.Option("--identity", "-i", help="The owner's private identity file.")
    ] = None,
    party: Annotated[
        Path | None, typer.Option(help="Party file to write; by default NAME.party.json beside the identity.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="With --prepare: a P-256 key in a token, by its PKCS#11 URI (RFC 7512)."
        ),
    ] = None,
    pin_fd: Annotated[
        int | None, typer.Option("--pin-fd", help="Read the token's PIN from this descriptor.")
    ] = None,
    passphrase_fd: BrokerFd = None,
    identity_passphrase_fd: IdentityFd = None,
) -> None:
    """Change the root of the broker's authority, in three steps; without one, show the roots. It must not be serving.

    Contracts keep the root that they name: prepare, give out the new party file with --switch, and retire the old root
    once the contracts that name it have ended.
    """
    from strongroom.errors import Misuse
    from strongroom.parties.papers import party_file
    from strongroom.wiring import broker, owner, token_key

    if prepare + switch + retire > 1 or (switch and identity is None) or (key is not None and not prepare):
        raise Misuse(
            "rotate-root: expected one of --prepare (alone with --key), --switch with --identity, and --retire",
            hint="prepare first, then switch, and retire once the contracts that name the old root have ended",
        )

    def asked() -> bytes:
        return passphrase.read(passphrase_fd, what=f"passphrase of the broker in {directory}")

    if prepare:
        secret = None
        if key is not None:
            secret = token_key.with_pin(
                key, passphrase.read(pin_fd, what="PIN of the token", variable=PIN, option="--pin-fd")
            )
        broker.prepare_root(directory, asked(), secret=secret)
    elif retire:
        broker.retire_root(directory)
    elif switch and identity is not None:
        mine = load(identity, identity_passphrase_fd, option="--identity-passphrase-fd")
        target = party or party_file(identity, mine.name)
        rotated = owner.switch_root(directory, identity=mine, party_file=target, passphrase=asked)
        print(f"the next root is the current one: ledger entry {rotated.proof.index}")
        print(f"public part:  {target} (hand this around; new contracts carry it)")
    for root in broker.read_settings(directory).roots:
        print(f"{root.state.value:<9} {root.digest}")
