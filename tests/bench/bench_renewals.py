"""A storm of renewals: 1,000 rooms that run, each with a certificate, attest again at one broker at the same moment.

The broker is `strongroom broker serve`, one process. The rooms were released to before; what they send is made before the clock starts, so that the
clients only send bytes. A renewal is verified as a release is, writes a ledger entry, and has a certificate. What counts is how long the last one waits: rooms
ask for renewal at half of their certificate's life, and again when they get none.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import hpke, tls
from strongroom_testing import broker_process, brokers
from tests.bench import broker_load
from tests.bench.turns import row, show

if TYPE_CHECKING:
    from strongroom_testing import https_client

ROOMS = 1000


def storm(prepared: broker_process.Prepared, pid: int) -> broker_load.Measured:
    """All of them at once, over as many connections as the load of releases has."""
    kem, key = hpke.generate(), tls.generate()
    rooms = [
        brokers.Room(
            tpm=prepared.scene.tpm,
            agreement=prepared.agreement,
            audience=prepared.settings.address.pin,
            tls_key=key,
            kem=kem,
        )
        for _ in range(ROOMS)
    ]
    csr = rooms[0].csr(brokers.NAMES)
    with prepared.client(timeout=120) as client:

        def body(room: brokers.Room) -> bytes:
            return room.ask(prepared.challenge(client).nonce, csr=csr).encode()

        for room in rooms:
            _ask(client, "/v1/releases", body(room))
        bodies = [body(room) for room in rooms]
    took: list[float] = []
    clients = [prepared.client(timeout=120) for _ in range(broker_load.CONNECTIONS)]

    def send(client: https_client.Client, own: list[bytes]) -> None:
        for one in own:
            begun = time.monotonic()
            _ask(client, "/v1/renewals", one)
            took.append(1000 * (time.monotonic() - begun))

    shares = [bodies[at :: len(clients)] for at in range(len(clients))]
    work = [
        (lambda client=client, own=own: send(client, own))
        for client, own in zip(clients, shares, strict=True)
    ]
    measured = broker_load.at_once(work, took, pid)
    for client in clients:
        client.close()
    return measured


def _ask(client: https_client.Client, path: str, body: bytes) -> None:
    status, answer = client.request("POST", path, body)
    if status != 200:
        raise RuntimeError(answer[:500])


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    stick = broker_load.yardstick()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = broker_process.prepare(Path(scratch) / "broker")
        with broker_process.served(prepared) as process:
            alone = broker_load.releases(prepared, process.pid, seconds=3.0)
            renewed = storm(prepared, process.pid)
    return [
        row(f"renewals per second, {ROOMS} rooms at once, one process", round(renewed.rate)),
        row("  until the last of them has its certificate, seconds", f"{ROOMS / renewed.rate:.1f}"),
        row("  against releases in this run", f"{renewed.rate / alone.rate:.2f} times"),
        row(
            "  broker's processor ms per renewal",
            f"{renewed.broker_ms:.2f} = {renewed.broker_ms / stick.ed25519_ms:.1f} verifications",
        ),
        row("  median and p99 ms", f"{renewed.median:.0f}, {renewed.p99:.0f}"),
    ]


if __name__ == "__main__":
    show(run())
