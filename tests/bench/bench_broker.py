"""Releases and ledger appends per second of one broker process.

The broker is the real one (`strongroom broker serve`): TLS 1.3 over loopback, SQLite with
`synchronous=FULL`, every request fully verified. A release is a challenge and a release request with
fresh room keys and fresh TPM evidence, which the fake TPM signs in the client's process.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from strongroom.crypto import hpke, tls
from strongroom.store import sqlite
from strongroom_testing import broker_process, brokers

CONNECTIONS = 12
ROUNDS = 3
ROUND_SECONDS = 5.0


def _drive(prepared: broker_process.Prepared, until: float, took: list[float]) -> None:
    key, kem = tls.generate(), hpke.generate()
    audience, agreement = prepared.settings.address.pin, prepared.agreement
    csr = None
    with prepared.client() as client:
        while time.monotonic() < until:
            begun = time.monotonic()
            room = brokers.Room(
                tpm=prepared.scene.tpm, agreement=agreement, audience=audience, tls_key=key, kem=kem
            )
            csr = csr or room.csr(brokers.NAMES)
            nonce = prepared.challenge(client).nonce
            status, answer = client.request("POST", "/v1/releases", room.ask(nonce, csr=csr).encode())
            if status != 200:
                raise RuntimeError(answer[:500])
            took.append(time.monotonic() - begun)


def releases(directory: Path) -> tuple[list[float], list[float]]:
    """Releases per second of each round, and the milliseconds that single ones took."""
    prepared = broker_process.prepare(directory)
    rates, latencies = [], []
    with broker_process.served(prepared):
        for _ in range(ROUNDS):
            took: list[float] = []
            until = time.monotonic() + ROUND_SECONDS
            threads = [
                threading.Thread(target=_drive, args=(prepared, until, took)) for _ in range(CONNECTIONS)
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
        {
            "what": "releases per second, one broker process",
            "value": round(statistics.median(rates)),
            "aim": "≥ 300",
        },
        {
            "what": "challenge and release, median ms",
            "value": round(statistics.median(latencies), 1),
            "aim": "",
        },
        {"what": "ledger appends per second", "value": round(rate), "aim": ""},
    ]


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:45} {row['value']!s:>10}  {row['aim']}")


if __name__ == "__main__":
    main()
