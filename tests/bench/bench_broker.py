"""Releases and ledger appends per second of one broker process.

The broker is the real one (`strongroom broker serve`): TLS 1.3 over loopback, SQLite with
`synchronous=FULL`, every request fully verified. A release is a challenge and a release request with
fresh room signing keys and fresh TPM evidence, which the fake TPM signs in the client's process. What a room makes
once and long before (TLS key, KEM key, certificate request) is made before the clock starts.

The rate is of a machine that does other things too: the client (its cost is a row), and whatever else runs. So the
broker's own processor time is a row as well, read from the kernel over all rounds; 1000 ms divided by it is what a
broker would do with one core to itself.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from strongroom.crypto import hpke, tls
from strongroom.store import sqlite
from strongroom_testing import broker_process, brokers

CONNECTIONS = 20
ROUNDS = 3
ROUND_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Releases per second of each round, milliseconds of single ones, processor milliseconds per release."""

    rates: list[float]
    latencies: list[float]
    broker_ms: float
    client_ms: float


class _Driver:
    """One connection with a room's lasting keys behind it, ready to ask again and again."""

    def __init__(self, prepared: broker_process.Prepared) -> None:
        self._prepared = prepared
        self._tls, self._kem = tls.generate(), hpke.generate()
        self._csr = self._room().csr(brokers.NAMES)
        self._client = prepared.client()

    def _room(self) -> brokers.Room:
        one = self._prepared
        return brokers.Room(
            tpm=one.scene.tpm,
            agreement=one.agreement,
            audience=one.settings.address.pin,
            tls_key=self._tls,
            kem=self._kem,
        )

    def drive(self, until: float, took: list[float]) -> None:
        """Challenge and release, until the time has come."""
        while time.monotonic() < until:
            begun = time.monotonic()
            nonce = self._prepared.challenge(self._client).nonce
            body = self._room().ask(nonce, csr=self._csr).encode()
            status, answer = self._client.request("POST", "/v1/releases", body)
            if status != 200:
                raise RuntimeError(answer[:500])
            took.append(time.monotonic() - begun)

    def close(self) -> None:
        self._client.close()


def releases(directory: Path) -> Measured:
    """Drive a broker from all connections at once, in rounds."""
    prepared = broker_process.prepare(directory)
    rates, latencies = [], []
    with broker_process.served(prepared) as process:
        drivers = [_Driver(prepared) for _ in range(CONNECTIONS)]
        broker, client = _processor_seconds(process.pid), time.process_time()
        for _ in range(ROUNDS):
            took: list[float] = []
            until = time.monotonic() + ROUND_SECONDS
            threads = [threading.Thread(target=one.drive, args=(until, took)) for one in drivers]
            begun = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rates.append(len(took) / (time.monotonic() - begun))
            latencies += [1000 * one for one in took]
        broker = _processor_seconds(process.pid) - broker
        client = time.process_time() - client
        for one in drivers:
            one.close()
    return Measured(
        rates=rates,
        latencies=latencies,
        broker_ms=1000 * broker / len(latencies),
        client_ms=1000 * client / len(latencies),
    )


def _processor_seconds(pid: int) -> float:
    """User and system time of a process with all its threads (proc(5): fields 14 and 15 of stat)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


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
        measured = releases(Path(scratch) / "broker")
        rate = appends(Path(scratch))
    return [
        {
            "what": "releases per second, one broker process",
            "value": round(statistics.median(measured.rates)),
            "aim": "≥ 300",
        },
        {
            "what": "challenge and release, median ms",
            "value": round(statistics.median(measured.latencies), 1),
            "aim": "",
        },
        {"what": "broker's processor ms per release", "value": round(measured.broker_ms, 2), "aim": "≤ 3.33"},
        {"what": "client's processor ms per release", "value": round(measured.client_ms, 2), "aim": ""},
        {
            "what": "load average (1 min), cores",
            "value": f"{os.getloadavg()[0]:.1f}, {os.cpu_count()}",
            "aim": "≤ 2 for a fair rate",
        },
        {"what": "ledger appends per second", "value": round(rate), "aim": ""},
    ]


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:45} {row['value']!s:>10}  {row['aim']}")


if __name__ == "__main__":
    main()
