"""`strongroom broker init|add-key|remove-key|admit|withdraw|pause|resume|serve|status|passwd` (rotations: `rotate`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import passphrase
from strongroom.cli.broker import rotate
from strongroom.cli.identity.files import IdentityFile, NewPassphraseFd
from strongroom.cli.printable import say

if TYPE_CHECKING:
    from strongroom.wiring.serving import ServingBroker

BrokerDir = Annotated[Path, typer.Argument(help="The broker's folder.")]
BrokerFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", help="Read the broker's passphrase from this file descriptor."),
]
IdentityFd = Annotated[
    int | None,
    typer.Option("--identity-passphrase-fd", help="Read the identity's passphrase from this descriptor."),
]
ContractArgument = Annotated[
    str, typer.Argument(help="The contract's file, or the digest of a version that `status` shows.")
]
OneRoom = Annotated[
    str | None, typer.Option("--room", metavar="NAME", help="That room of the contract alone.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(
        help="Keep keys, and release them to rooms that prove themselves.", no_args_is_help=True
    )
    group.command("init")(init)
    group.command("add-key")(add_key)
    group.command("remove-key")(remove_key)
    group.command("admit")(admit)
    group.command("withdraw")(withdraw)
    group.command("pause")(pause)
    group.command("resume")(resume)
    group.command("serve")(serve)
    group.command("status")(status)
    group.command("party")(party)
    group.command("passwd")(passwd)
    group.command("rotate-keys")(rotate.rotate_keys)
    group.command("rotate-root")(rotate.rotate_root)
    group.command("rotate-identity")(rotate.rotate_identity)
    app.add_typer(group, name="broker")


def init(
    directory: BrokerDir,
    identity: IdentityFile,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="HOST:PORT to listen on; port 0 chooses a free one, and keeps it."
        ),
    ] = "127.0.0.1:8443",
    url: Annotated[
        str | None,
        typer.Option(
            metavar="https://HOST:PORT",
            help="How rooms reach it, if not by the listening address: https://HOST:PORT",
        ),
    ] = None,
    party: Annotated[
        Path | None, typer.Option(help="Party file to write; by default NAME.party.json beside the identity.")
    ] = None,
    passphrase_fd: BrokerFd = None,
) -> None:
    """Make a broker: its keys, its authority, its ledger; and write its address into the party file."""
    from strongroom.parties import papers
    from strongroom.wiring import broker

    owner = papers.load_public(identity)
    new_broker = broker.set_up_broker(
        directory,
        owner,
        listen=listen,
        url=url,
        party_file=party or papers.party_file(identity, owner.name),
        passphrase=lambda: passphrase.read(passphrase_fd, confirm=True, what="passphrase of the broker"),
    )
    print(f"broker of {owner.name}: {directory} (keys under the broker's passphrase)")
    print(f"address:      {new_broker.url}")
    if new_broker.of_this_machine:
        print("              rooms on this machine alone reach it there; --url names another way")
    print(f"public part:  {new_broker.party_file} (hand this around; contracts carry it)")
    if new_broker.earlier_url:
        print(
            f"note: {new_broker.party_file} named the broker at {new_broker.earlier_url} until now; contracts that carry that one still need it up, "
            "and `strongroom broker party` writes its party file again",
            file=sys.stderr,
        )


def add_key(
    directory: BrokerDir,
    manifest: Annotated[Path, typer.Argument(help="The disk's signed manifest.")],
    identity: IdentityFile,
    key: Annotated[Path | None, typer.Argument(help="Its .key.age file; none for a public disk.")] = None,
    disk: Annotated[
        Path | None,
        typer.Option(
            help="The disk, to try the key on where the manifest has no check value of it; the one beside it by default."
        ),
    ] = None,
    passphrase_fd: BrokerFd = None,
    identity_passphrase_fd: IdentityFd = None,
) -> None:
    """Give the broker a disk of yours, with the key that rooms will need. A key that is not that disk's is refused."""
    from strongroom.cli.identity.files import load
    from strongroom.wiring import owner

    parsed = owner.add_disk(
        directory,
        manifest=manifest,
        key=key,
        disk=disk,
        identity=lambda: load(identity, identity_passphrase_fd, option="--identity-passphrase-fd"),
        passphrase=lambda: _passphrase(directory, passphrase_fd),
    )
    print(f"disk {parsed.name}: {parsed.digest} {'with its key' if key else 'public, without a key'}")


def admit(
    directory: BrokerDir,
    contract: Annotated[Path, typer.Argument(help="The signed contract.")],
    earlier: Annotated[
        list[Path],
        typer.Option(help="The signed file of an earlier version that this broker does not know yet."),
    ] = [],  # noqa: B006 - typer copies it
    passphrase_fd: BrokerFd = None,
) -> None:
    """Admit a contract version, the next after the one that is known: every lower version is refused from now on."""
    from strongroom.wiring import owner

    admitted = owner.admit_contract(
        directory, contract, earlier=earlier, passphrase=lambda: _passphrase(directory, passphrase_fd)
    )
    parsed = admitted.contract
    print(f"contract {parsed.id} version {parsed.version}: admitted, ledger entry {admitted.proof.index}")


def withdraw(
    directory: BrokerDir,
    contract: ContractArgument,
    passphrase_fd: BrokerFd = None,
) -> None:
    """Withdraw a contract, every version of it: nothing is released under it any more. It cannot be undone."""
    from strongroom.ledger.describe import describe_entry
    from strongroom.wiring import owner

    proof = owner.withdraw_contract(
        directory, contract, passphrase=lambda: _passphrase(directory, passphrase_fd)
    )
    say(f"ledger entry {proof.index}: {describe_entry(proof.entry)}")
    print("keys that rooms have already stay with them; their receipts are still taken")


def pause(
    directory: BrokerDir, contract: ContractArgument, room: OneRoom = None, passphrase_fd: BrokerFd = None
) -> None:
    """Pause a contract, every version of it, or a room: nothing is released or renewed, and rooms that run end."""
    _pause(directory, contract, room=room, resume=False, passphrase_fd=passphrase_fd)
    print("rooms that run are told within seconds, and end; `strongroom broker resume` takes the pause back")


def resume(
    directory: BrokerDir, contract: ContractArgument, room: OneRoom = None, passphrase_fd: BrokerFd = None
) -> None:
    """Take a pause back; without --room every pause of that contract. Rooms that it ended are started anew."""
    _pause(directory, contract, room=room, resume=True, passphrase_fd=passphrase_fd)


def _pause(
    directory: Path, contract: str, *, room: str | None, resume: bool, passphrase_fd: int | None
) -> None:
    from strongroom.ledger.describe import describe_entry
    from strongroom.model.identifiers import RoomName
    from strongroom.wiring import owner

    proof = owner.pause_contract(
        directory,
        contract,
        room=None if room is None else RoomName(room),
        resume=resume,
        passphrase=lambda: _passphrase(directory, passphrase_fd),
    )
    say(f"ledger entry {proof.index}: {describe_entry(proof.entry)}")


def remove_key(
    directory: BrokerDir,
    disk: Annotated[str, typer.Argument(help="The disk's manifest, or its digest as `status` shows it.")],
    passphrase_fd: BrokerFd = None,
) -> None:
    """Take a disk and its key from the broker: contracts that name it get nothing from now on."""
    from strongroom.wiring import owner

    removed = owner.remove_disk(directory, disk, passphrase=lambda: _passphrase(directory, passphrase_fd))
    print(f"disk {removed.manifest_digest}: taken from the broker, ledger entry {removed.proof.index}")
    print("backups of the folder from before still hold its key, under the broker's passphrase")


def serve(
    directory: BrokerDir,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Listen here instead of where init said (rooms use the url of init)."
        ),
    ] = None,
    replica: Annotated[
        bool, typer.Option("--replica", help="Share the folder with other replicas on this machine.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="Serve with so many processes; one that dies is replaced.", min=1, max=64)
    ] = 1,
    expect: Annotated[
        Path | None,
        typer.Option(help="A checkpoint that a witness kept; refuse to serve a ledger that lacks it."),
    ] = None,
    kds: Annotated[
        str | None,
        typer.Option(
            metavar="https://HOST[:PORT]", help="A mirror instead of AMD's KDS; may be in your network."
        ),
    ] = None,
    pccs: Annotated[
        str | None,
        typer.Option(metavar="https://HOST[:PORT]", help="A PCCS instead of Intel; may be in your network."),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The only CA (PEM) trusted for --kds and --pccs.")] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(
            metavar="sha256:…",
            help="Digest of one more vendor root that counts (sha256:…).",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no vendor; use what `endorsements import --folder` brought."),
    ] = False,
    passphrase_fd: BrokerFd = None,
    as_json: AsJson = False,
) -> None:
    """Serve until SIGTERM. Prints a line when it is ready, one for each ledger entry, and sums of all other requests."""
    from strongroom.cli.broker import request_lines
    from strongroom.wiring import broker, serving

    def secret() -> bytes:
        data = _passphrase(directory, passphrase_fd)
        passphrase.forget()
        return data

    broker.read_settings(directory)  # what is no broker's folder is refused as that
    serving.serve_broker(
        directory,
        passphrase=secret,
        endorser=serving.open_endorser(
            directory, kds=kds, pccs=pccs, ca=ca, roots=root or (), offline=offline
        ),
        listen=listen,
        replica=replica,
        workers=workers,
        expect=expect,
        tell=request_lines.printer(as_json=as_json),
        on_ready=lambda ready: _say_ready(ready, as_json=as_json),
        on_failure=lambda cause: print(f"error: {cause.message}", file=sys.stderr, flush=True),
    )


def _say_ready(ready: ServingBroker, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ready": True, "party": ready.party, "listening": ready.listening}), flush=True)
    else:
        print(
            f"broker of {ready.party}: ready on {ready.listening}, ledger of {ready.entries} entries",
            flush=True,
        )


def status(directory: BrokerDir, as_json: AsJson = False) -> None:
    """Show contracts with their runs, disks, and what was denied last and why. No passphrase is needed."""
    from strongroom.encoding import fields
    from strongroom.ledger.describe import describe
    from strongroom.wiring import broker

    settings, report = broker.broker_status(directory)
    if as_json:
        print(json.dumps({"party": settings.party.name, "url": settings.address.url, **report.to_json()}))
        return
    print(f"broker of {settings.party.name}: {settings.address.url}")
    print(f"ledger: {report.ledger_size} entries")
    for contract in report.contracts:
        runs = f"{contract.used} run(s) used, {'?' if contract.left is None else contract.left} left, {contract.receipts} with a receipt"
        state = "WITHDRAWN, " if contract.withdrawn else "PAUSED, " if contract.paused else ""
        room = "" if contract.room is None else f" room {contract.room}"
        print(f"contract {contract.id}{room}: version {contract.version} {contract.digest}: {state}{runs}")
    for digest, used, receipts in report.earlier:
        print(f"earlier version {digest}: {used} run(s), {receipts} with a receipt")
    for disk in report.disks:
        print(
            f"disk {disk.manifest_digest}: {'public, no key' if disk.sealed_key is None else 'with its key'}"
        )
    most = report.budgets
    print(
        f"budgets: {most.denials} denials are recorded at once ({most.denials_each} of a contract or address), then one in "
        f"{most.denial_seconds:g} s ({most.denial_each_seconds:g} s); a nonce lasts {most.nonce_lifetime.total_seconds():g} s"
    )
    if report.denials:
        print("denied last:")
    for index, entry in report.denials:
        say(
            f"  {fields.format_time(entry.time)} entry {index}, contract {entry.contract_digest[:19]}: {describe(entry)}"
        )


def party(directory: BrokerDir) -> None:
    """Print the party file with the broker's address, as `init` and rotations wrote it. No passphrase is needed."""
    from strongroom.wiring import broker

    print(broker.read_settings(directory).party.encode().decode(), end="")


def passwd(
    directory: BrokerDir, passphrase_fd: BrokerFd = None, new_passphrase_fd: NewPassphraseFd = None
) -> None:
    """Change the passphrase of the broker's keys. The keys stay the same; a broker that serves goes on."""
    from strongroom.wiring import broker

    old = _passphrase(directory, passphrase_fd)
    broker.read_settings(directory)
    new = passphrase.read(new_passphrase_fd, confirm=True, what="the new passphrase", variable=passphrase.NEW)
    broker.change_passphrase(directory, old, new)
    print(f"{directory}: opens with the new passphrase alone")
    print("copies of the folder from before open with the old passphrase: destroy them")


def _passphrase(directory: Path, fd: int | None) -> bytes:
    return passphrase.read(fd, what=f"passphrase of the broker in {directory}")
