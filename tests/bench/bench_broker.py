"""Releases and ledger appends per second of one broker process.

The broker is the real one (`strongroom broker serve`): TLS 1.3 over loopback, SQLite with
`synchronous=FULL`, every request fully verified. A release is a challenge and a release request with
fresh room keys and fresh TPM evidence, which the fake TPM signs in the client's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from strongroom import wiring
from strongroom.broker.add_key import add_key
from strongroom.crypto import hpke, tls
from strongroom.model import messages
from strongroom.store import sqlite
from strongroom_testing import brokers, contracts, https_client

CONNECTIONS = 12
ROUNDS = 3
ROUND_SECONDS = 5.0


def prepare(directory: Path, *, runs: int = 1_000_000):
    """A broker's folder with a disk, and a signed contract that it would release under."""
    scene = contracts.scene(now=datetime.now(UTC).replace(microsecond=0))
    port = free_port()
    listen = f"127.0.0.1:{port}"
    wiring.init_broker(
        directory, scene.alice.party(), listen=listen, url=f"https://{listen}", passphrase=brokers.PASSPHRASE
    )
    disk = brokers.manifest(scene.alice)
    with wiring.open_broker(directory, brokers.PASSPHRASE) as opened:
        asyncio.run(add_key(opened.broker, disk, brokers.DISK_KEY))
        settings = opened.settings
    digest = brokers.manifest_digest(disk)
    agreement = scene.agreement(lambda one: brokers.contract_over(one, settings, digest, runs=runs))
    return scene, settings, agreement


def free_port() -> int:
    from strongroom.api import server

    with server.bind("127.0.0.1", 0) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(directory: Path, *arguments: str):
    """`strongroom broker serve` as a process of its own, once it has said that it is ready."""
    environment = {**os.environ, "STRONGROOM_PASSPHRASE": brokers.PASSPHRASE.decode()}
    command = [sys.executable, "-m", "strongroom.cli.main", "broker", "serve", str(directory), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the broker did not start: exit {process.wait()}")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        process.stdout.close()


def _drive(scene, settings, agreement, until: float, took: list[float]) -> None:
    key, kem = tls.generate(), hpke.generate()
    ask = messages.encode_challenge_request(agreement.contract.digest)
    csr = None
    with https_client.Client(settings.host, settings.port, pin=settings.address.pin) as client:
        while time.monotonic() < until:
            begun = time.monotonic()
            room = brokers.Room(
                tpm=scene.tpm, agreement=agreement, audience=settings.address.pin, tls_key=key, kem=kem
            )
            csr = csr or room.csr(brokers.NAMES)
            _, answer = client.request("POST", "/v1/challenges", ask)
            nonce = messages.parse_challenge(answer).nonce
            status, answer = client.request("POST", "/v1/releases", room.ask(nonce, csr=csr).encode())
            if status != 200:
                raise RuntimeError(answer[:500])
            took.append(time.monotonic() - begun)


def releases(directory: Path) -> tuple[list[float], list[float]]:
    """Releases per second of each round, and the milliseconds that single ones took."""
    scene, settings, agreement = prepare(directory)
    rates, latencies = [], []
    with served(directory):
        for _ in range(ROUNDS):
            took: list[float] = []
            until = time.monotonic() + ROUND_SECONDS
            threads = [
                threading.Thread(target=_drive, args=(scene, settings, agreement, until, took))
                for _ in range(CONNECTIONS)
            ]
            begun = time.monotonic()
            for one in threads:
                one.start()
            for one in threads:
                one.join()
            rates.append(len(took) / (time.monotonic() - begun))
            latencies += [1000 * one for one in took]
    return rates, latencies


def appends(directory: Path, count: int = 4000) -> float:
    """Ledger appends per second through the store, each of 2 KiB, with group commit."""
    path = directory / "appends.db"
    sqlite.create(path)
    store = sqlite.open_store(path)

    async def main() -> float:
        begun = time.monotonic()
        for start in range(0, count, 500):
            entries = [b"%08d" % (start + at) + bytes(2040) for at in range(500)]
            await asyncio.gather(
                *(store.write(lambda tx, one=one: tx.ledger.append(one, run="")) for one in entries)
            )
        return count / (time.monotonic() - begun)

    try:
        return asyncio.run(main())
    finally:
        store.close()


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory() as scratch:
        rates, latencies = releases(Path(scratch) / "broker")
        rate = appends(Path(scratch))
    return [
        {"what": "releases per second, one broker process", "value": round(statistics.median(rates)), "aim": "≥ 300"},
        {"what": "challenge and release, median ms", "value": round(statistics.median(latencies), 1), "aim": ""},
        {"what": "ledger appends per second", "value": round(rate), "aim": ""},
    ]


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:45} {row['value']!s:>10}  {row['aim']}")


if __name__ == "__main__":
    main()
