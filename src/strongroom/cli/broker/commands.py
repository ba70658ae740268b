"""`strongroom broker init|add-key|remove-key|admit|withdraw|serve|status|passwd` (rotations: `rotate`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom import files
from strongroom.cli import passphrase
from strongroom.cli.broker import rotate
from strongroom.cli.identity.files import IdentityFile, NewPassphraseFd
from strongroom.cli.printable import say

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.fetch.endorsements.resolve import Fetcher
    from strongroom.wiring import broker

BrokerDir = Annotated[Path, typer.Argument(help="The broker's folder.")]
BrokerFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", help="Read the broker's passphrase from this file descriptor."),
]
IdentityFd = Annotated[
    int | None,
    typer.Option("--identity-passphrase-fd", help="Read the identity's passphrase from this descriptor."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MAX_KEY_FILE = 64 * 1024
_VENDOR_SECONDS = 15.0


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
    group.command("serve")(serve)
    group.command("status")(status)
    group.command("party")(party)
    group.command("passwd")(passwd)
    group.command("rotate-keys")(rotate.rotate_keys)
    group.command("rotate-identity")(rotate.rotate_identity)
    app.add_typer(group, name="broker")


def init(
    directory: BrokerDir,
    identity: IdentityFile,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="HOST:PORT to listen on; port 0 chooses a free one now.")
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
    import asyncio

    from strongroom.broker.administration.add_key import add_key as store_key
    from strongroom.cli.identity.files import load
    from strongroom.model import manifest as manifest_model
    from strongroom.wiring import broker

    # Complain about a wrong file before the key is opened.
    envelope, _ = files.parsed(
        manifest, manifest_model.parse_envelope, max_bytes=2 * manifest_model.MAX_BYTES
    )
    secret = None
    if key is not None:
        mine = load(identity, identity_passphrase_fd, option="--identity-passphrase-fd")
        secret = files.parsed(key, mine.age.open, max_bytes=MAX_KEY_FILE)
    with broker.open_broker(directory, _passphrase(directory, passphrase_fd)) as opened:
        parsed = asyncio.run(
            store_key(opened.broker, envelope.encode(), secret, disk=disk or _disk_beside(manifest))
        )
    print(f"disk {parsed.name}: {parsed.digest} {'with its key' if secret else 'public, without a key'}")


def _disk_beside(manifest: Path) -> Path | None:
    from strongroom.seal import disk

    disk_file = manifest.with_name(manifest.name.removesuffix(disk.MANIFEST_SUFFIX) + disk.SUFFIX)
    return disk_file if disk_file.is_file() else None


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
    import asyncio

    from strongroom.broker.admit_contract import admit as record_version
    from strongroom.parties import papers
    from strongroom.wiring import broker

    agreement, before = papers.load_agreement(contract), papers.load_earlier(earlier)
    parsed = agreement.contract
    with broker.open_broker(directory, _passphrase(directory, passphrase_fd)) as opened:
        proof = asyncio.run(record_version(opened.broker, agreement.encode(), before))
    print(f"contract {parsed.id} version {parsed.version}: admitted, ledger entry {proof.index}")


def withdraw(
    directory: BrokerDir,
    contract: Annotated[
        str, typer.Argument(help="The contract's file, or the digest of a version that `status` shows.")
    ],
    passphrase_fd: BrokerFd = None,
) -> None:
    """Withdraw a contract, every version of it: nothing is released under it any more. It cannot be undone."""
    import asyncio

    from strongroom.broker.administration import withdraw as use_case
    from strongroom.encoding import fields
    from strongroom.ledger.describe import describe
    from strongroom.model import record
    from strongroom.model.identifiers import ContractDigest
    from strongroom.parties import papers
    from strongroom.wiring import broker

    data = None
    if fields.DIGEST.fullmatch(contract) is None:
        data = papers.load_agreement(Path(contract)).encode()
    with broker.open_broker(directory, _passphrase(directory, passphrase_fd)) as opened:
        done = (
            use_case.withdraw_known(opened.broker, ContractDigest(contract))
            if data is None
            else use_case.withdraw(opened.broker, data)
        )
        proof = asyncio.run(done)
    say(f"ledger entry {proof.index}: {describe(record.parse(proof.entry))}")
    print("keys that rooms have already stay with them; their receipts are still taken")


def remove_key(
    directory: BrokerDir,
    disk: Annotated[str, typer.Argument(help="The disk's manifest, or its digest as `status` shows it.")],
    passphrase_fd: BrokerFd = None,
) -> None:
    """Take a disk and its key from the broker: contracts that name it get nothing from now on."""
    import asyncio

    from strongroom.broker.administration.remove_key import remove_key as forget
    from strongroom.encoding import fields
    from strongroom.model import manifest as manifest_model
    from strongroom.model.identifiers import ManifestDigest
    from strongroom.wiring import broker

    manifest_digest = ManifestDigest(disk)
    if fields.DIGEST.fullmatch(disk) is None:
        most = 2 * manifest_model.MAX_BYTES
        manifest_digest = files.parsed(Path(disk), manifest_model.parse_envelope, max_bytes=most)[1].digest
    with broker.open_broker(directory, _passphrase(directory, passphrase_fd)) as opened:
        proof = asyncio.run(forget(opened.broker, manifest_digest))
    print(f"disk {manifest_digest}: taken from the broker, ledger entry {proof.index}")
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
    from strongroom.broker import settings
    from strongroom.cli.broker import request_lines
    from strongroom.ledger import checkpoint
    from strongroom.wiring import broker

    known = broker.read_settings(directory)
    host, port = (known.host, known.port) if listen is None else settings.listen_parts(listen)
    kept = None if expect is None else files.read_text(expect, max_bytes=checkpoint.MAX_BYTES)
    secret = _passphrase(directory, passphrase_fd)
    passphrase.forget()
    endorser = _endorser(directory, kds=kds, pccs=pccs, ca=ca, root=root, offline=offline)
    with broker.serving(directory, replica=replica):
        if workers > 1:
            _serve_with(workers, directory, secret, endorser, kept, host=host, port=port, as_json=as_json)
            return
        tell = request_lines.printer(as_json=as_json)
        with broker.open_broker(directory, secret, endorser=endorser, tell=tell) as opened:
            if kept is not None:
                broker.expect_checkpoint(opened, kept)
            _serve(opened, host=host, port=port, as_json=as_json)


def _serve_with(
    workers: int,
    directory: Path,
    secret: bytes,
    endorser: Fetcher,
    kept: str | None,
    *,
    host: str,
    port: int,
    as_json: bool,
) -> None:
    """Serve with several processes. Each opens the folder for itself: a connection to a database is not shared."""
    from strongroom.api import supervisor
    from strongroom.cli.broker import request_lines
    from strongroom.errors import StrongroomError
    from strongroom.wiring import broker

    with broker.open_broker(directory, secret) as opened:  # what would stop every worker is said once, here
        if kept is not None:
            broker.expect_checkpoint(opened, kept)
        name, size = opened.settings.party.name, opened.store.ledger.size()
    broker.shield_process()
    sockets = supervisor.bind_all(host, port, workers)
    at = _shown(sockets[0])

    def work(listening: socket.socket, ready: Callable[[], None]) -> None:
        try:
            tell = request_lines.printer(as_json=as_json)
            with broker.open_broker(directory, secret, endorser=endorser, tell=tell) as own:
                _serve_on(own, listening, ready)
        except StrongroomError as cause:
            print(f"error: {cause.message}", file=sys.stderr, flush=True)

    supervisor.Supervisor(work, sockets).run(lambda: _say_ready(name, at, size, as_json=as_json))


def _endorser(
    directory: Path,
    *,
    kds: str | None,
    pccs: str | None,
    ca: Path | None,
    root: list[str] | None,
    offline: bool,
) -> Fetcher:
    from strongroom.fetch.endorsements import fetch as fetching
    from strongroom.fetch.endorsements.resolve import Fetcher
    from strongroom.fetch.http.client import Client
    from strongroom.wiring import broker

    # A room waits for the answer: a vendor gets less time than where somebody fetches beforehand.
    client = Client(total_seconds=_VENDOR_SECONDS, tries=2)
    library = fetching.open_library(
        directory / broker.ENDORSEMENTS, roots=root or (), offline=offline, client=client
    )
    return Fetcher(library=library, vendors=fetching.choose_vendors(pccs=pccs, kds=kds, ca=ca))


def _serve(opened: broker.Opened, *, host: str, port: int, as_json: bool) -> None:
    from strongroom.api import server

    listening = server.bind(host, port)
    name, at = opened.settings.party.name, _shown(listening)
    _serve_on(opened, listening, lambda: _say_ready(name, at, opened.store.ledger.size(), as_json=as_json))


def _serve_on(opened: broker.Opened, listening: socket.socket, ready: Callable[[], None]) -> None:
    from strongroom.api import server
    from strongroom.api.broker import app
    from strongroom.encoding import canonical
    from strongroom.wiring import broker

    context = server.tls_context(opened.settings.certificate, opened.secrets.tls)
    broker.shield_process()
    broker.allow_many_connections()
    broker.log_plainly()
    canonical.write_with(broker.fast_encoder)
    warm = broker.Warm(opened)

    def say() -> None:
        warm.warm_up()
        ready()

    application = app.build(opened.broker, readiness=app.Readiness(warm.why_not))
    server.serve(server.Server(application, context=context, ready=say), listening)


def _say_ready(name: str, at: str, size: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ready": True, "party": name, "listening": at}), flush=True)
    else:
        print(f"broker of {name}: ready on {at}, ledger of {size} entries", flush=True)


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
        state = "WITHDRAWN, " if contract.withdrawn else ""
        print(f"contract {contract.id}: version {contract.version} {contract.digest}: {state}{runs}")
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
    print("copies of the folder from before open with the old one: destroy them")


def _passphrase(directory: Path, fd: int | None) -> bytes:
    return passphrase.read(fd, what=f"passphrase of the broker in {directory}")


def _shown(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
