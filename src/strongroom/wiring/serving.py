"""Serving a broker's folder: by one process or several, until SIGTERM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.broker import settings
from strongroom.encoding import canonical
from strongroom.errors import StrongroomError, of_file
from strongroom.ledger import checkpoint
from strongroom.wiring import broker, process

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from strongroom.broker.ports import Endorser
    from strongroom.broker.request_log import Event
    from strongroom.fetch.endorsements.resolve import Fetcher
    from strongroom.model.identifiers import PartyName

VENDOR_SECONDS = (
    15.0  # a room waits for the answer: a vendor gets less time than where somebody fetches beforehand
)
VENDOR_TRIES = 2


@dataclass(frozen=True, kw_only=True)
class ServingBroker:
    """A broker that takes requests from now on. listening: HOST:PORT. entries: of its ledger."""

    party: PartyName
    listening: str
    entries: int


def open_endorser(
    directory: Path,
    *,
    kds: str | None = None,
    pccs: str | None = None,
    ca: Path | None = None,
    roots: Iterable[str] = (),
    offline: bool = False,
) -> Fetcher:
    """Who knows what vendors say, for the broker of a folder, which keeps it. Arguments as of `choose_vendors` and `open_library`. Raises `Misuse`."""
    from strongroom.fetch.endorsements import fetch  # noqa: PLC0415 - of what this module does, serving alone needs it
    from strongroom.fetch.endorsements.resolve import Fetcher  # noqa: PLC0415 - as above
    from strongroom.fetch.http.client import Client  # noqa: PLC0415 - as above

    client = Client(total_seconds=VENDOR_SECONDS, tries=VENDOR_TRIES)
    library = fetch.open_library(directory / broker.ENDORSEMENTS, roots=roots, offline=offline, client=client)
    return Fetcher(library=library, vendors=fetch.choose_vendors(kds=kds, pccs=pccs, ca=ca))


def serve_broker(  # noqa: PLR0913 - by name, and most of them with a default
    directory: Path,
    *,
    passphrase: Callable[[], bytes],
    endorser: Endorser | None,
    listen: str | None = None,
    replica: bool = False,
    workers: int = 1,
    expect: Path | None = None,
    tell: Callable[[Event], None],
    on_ready: Callable[[ServingBroker], None],
    on_failure: Callable[[StrongroomError], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    passphrase: asked once all else is known to be right. endorser: who knows what vendors say; None asks nobody. listen: HOST:PORT instead of where
    `init_broker` said. replica: share the folder with other replicas. workers: so many processes; one that dies is replaced. expect: a checkpoint that
    a witness kept. tell: called with each event of the request log, in every process. on_failure: called with why a worker could not begin. Raises `Misuse`, `Malformed`,
    `NotFound`, `Conflict` when another serves, `Refused` for a wrong passphrase or a ledger that lacks `expect`, `Unavailable` for an address in use.
    """
    known = broker.read_settings(directory)
    host, port = (known.host, known.port) if listen is None else settings.listen_parts(listen)
    kept = None
    if expect is not None:
        with of_file(expect):
            kept = files.read_text(expect, max_bytes=checkpoint.MAX_BYTES)
    secret = passphrase()
    with broker.serving(directory, replica=replica):
        if workers == 1:
            with broker.open_broker(directory, secret, endorser=endorser, tell=tell) as opened:
                if kept is not None:
                    broker.expect_checkpoint(opened, kept)
                serve_opened(opened, host=host, port=port, on_ready=on_ready)
            return
        with broker.open_broker(
            directory, secret
        ) as opened:  # what would stop every worker is said once, here
            if kept is not None:
                broker.expect_checkpoint(opened, kept)
            name, size = opened.settings.party.name, opened.store.ledger.size()
        process.shield_process()

        def work(listening: socket.socket, ready: Callable[[], None]) -> None:
            # Each opens the folder for itself: a connection to a database is not shared.
            try:
                with broker.open_broker(directory, secret, endorser=endorser, tell=tell) as own:
                    _serve_on(own, listening, ready)
            except StrongroomError as cause:
                on_failure(cause)

        from strongroom.api import supervisor  # noqa: PLC0415 - of brokers, those of several processes alone need it

        sockets = supervisor.bind_all(host, port, workers)
        serving = ServingBroker(party=name, listening=_address(sockets[0]), entries=size)
        supervisor.Supervisor(work, sockets).run(lambda: on_ready(serving))


def serve_opened(
    opened: broker.Opened, *, host: str, port: int, on_ready: Callable[[ServingBroker], None]
) -> None:
    """Serve an opened broker in this process, until SIGTERM or SIGINT. Raises `Unavailable` for an address in use."""
    from strongroom.api import server  # noqa: PLC0415 - as above

    listening = server.bind(host, port)
    name, at = opened.settings.party.name, _address(listening)
    _serve_on(
        opened,
        listening,
        lambda: on_ready(ServingBroker(party=name, listening=at, entries=opened.store.ledger.size())),
    )


def _serve_on(opened: broker.Opened, listening: socket.socket, ready: Callable[[], None]) -> None:
    from strongroom.api import server  # noqa: PLC0415 - as above
    from strongroom.api.broker import app  # noqa: PLC0415 - as above

    context = server.tls_context(opened.settings.certificate, opened.secrets.tls)
    process.shield_process()
    process.allow_many_connections()
    process.log_plainly()
    canonical.write_with(broker.fast_encoder)
    warm = broker.Warm(opened)

    def say() -> None:
        warm.warm_up()
        ready()

    application = app.build(opened.broker, readiness=app.Readiness(warm.why_not))
    server.serve(server.Server(application, context=context, ready=say), listening)


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
