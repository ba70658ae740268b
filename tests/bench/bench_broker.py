"""Releases of a real broker: one process, two workers, and contracts and machines that it has never seen; ledger appends.

The broker is `strongroom broker serve`: TLS 1.3 over loopback, SQLite with `synchronous=FULL`, every request fully
verified. A release is a challenge and a release request with fresh room signing keys and fresh TPM evidence, which the
fake TPM signs in the client's process. What a room makes once and long before (TLS key, KEM key, certificate request)
is made before the clock starts. Of the strange contracts all is: of each one's release the client only sends bytes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import hpke, sign, tls
from strongroom.ledger import checkpoint, merkle
from strongroom.model import messages
from strongroom.store import sqlite
from strongroom_testing import broker_process, brokers, contracts
from strongroom_testing.vendors import fake_tpm
from tests.bench import broker_load
from tests.bench.turns import row, show

if TYPE_CHECKING:
    from strongroom.model.contracts.contract import Contract
    from strongroom_testing import https_client

SECONDS = 4.0
STRANGE = 1000
APPENDS, BATCH = 20_000, 256


@dataclass(frozen=True, kw_only=True)
class Appended:
    """Ledger entries a second, processor microseconds of one, and milliseconds of a bare fdatasync beside them (`synced`)."""

    rate: float
    each_us: float
    sync_ms: float


def strange(prepared: broker_process.Prepared, pid: int, *, count: int) -> broker_load.Measured:
    """Releases under `count` contracts, each of a machine of its own, which the broker sees for the first time."""
    kem = hpke.generate()
    rooms = [_room(prepared, number, tls.generate(), kem) for number in range(count)]
    requests = [room.csr(brokers.NAMES) for room in rooms]
    with prepared.client() as client:
        before = broker_load.processor_seconds(pid)
        nonces = [_challenge(client, room) for room in rooms]
        challenges_ms = 1000 * (broker_load.processor_seconds(pid) - before) / count
    bodies = [
        room.ask(nonce, csr=csr).encode() for room, nonce, csr in zip(rooms, nonces, requests, strict=True)
    ]
    clients = [prepared.client(timeout=120) for _ in range(broker_load.CONNECTIONS)]
    took: list[float] = []

    def send(client: https_client.Client, own: list[bytes]) -> None:
        for body in own:
            begun = time.monotonic()
            status, answer = client.request("POST", "/v1/releases", body)
            if status != 200:
                raise RuntimeError(answer[:500])
            took.append(1000 * (time.monotonic() - begun))

    shares = [bodies[at :: len(clients)] for at in range(len(clients))]
    work = [
        (lambda client=client, own=own: send(client, own))
        for client, own in zip(clients, shares, strict=True)
    ]
    measured = broker_load.at_once(work, took, pid)
    for client in clients:
        client.close()
    return replace(measured, broker_ms=measured.broker_ms + challenges_ms)


def _room(
    prepared: broker_process.Prepared, number: int, key: tls.TlsKey, kem: hpke.KemPrivateKey
) -> brokers.Room:
    tpm = fake_tpm.FakeTpm(now=prepared.scene.now)

    def own(one: Contract) -> Contract:
        platforms = (contracts.platform(tpm),)
        return replace(prepared.agreement.contract, id=f"strange-{number}", platforms=platforms, raw=one.raw)

    agreement = prepared.scene.agreement(own)
    audience = prepared.settings.address.pin
    return brokers.Room(tpm=tpm, agreement=agreement, audience=audience, tls_key=key, kem=kem)


def _challenge(client: https_client.Client, room: brokers.Room) -> bytes:
    ask = messages.encode_challenge_request(room.agreement.contract.digest)
    return messages.parse_challenge(client.request("POST", "/v1/challenges", ask)[1]).nonce


def appends(directory: Path, *, size: int, count: int = APPENDS) -> Appended:
    """Entries appended through the store, `BATCH` at once; each batch waits for a signed checkpoint."""
    path = directory / f"appends-{size}.db"
    sqlite.create(path)
    store = sqlite.open_store(path)
    key = sign.generate()

    async def main() -> Appended:
        begun, worked, made = time.monotonic(), time.process_time(), -(-count // BATCH) * BATCH
        for start in range(0, count, BATCH):
            entries = [b"%08d" % (start + at) + bytes(size - 8) for at in range(BATCH)]
            done = await asyncio.gather(
                *(store.write(lambda tx, one=one: tx.ledger.append(one, run_id="")) for one in entries)
            )
            durable = done[-1].size
            checkpoint.issue(key, size=durable, root=merkle.root(store.ledger, durable))
        rate, each = made / (time.monotonic() - begun), (time.process_time() - worked) / made
        return Appended(rate=rate, each_us=1e6 * each, sync_ms=synced(directory, BATCH * size))

    # As a broker that serves does: the collector passes over what there was before.
    gc.collect()
    gc.freeze()
    try:
        return asyncio.run(main())
    finally:
        gc.unfreeze()
        store.close()


def synced(directory: Path, size: int, *, rounds: int = 40) -> float:
    """Milliseconds, the mean, in which the disk takes `size` more bytes of a bare file for good: no store commits faster."""
    took = 0.0
    with (directory / "bare").open("wb", buffering=0) as file:
        for _ in range(rounds):
            file.write(bytes(size))
            begun = time.monotonic()
            os.fdatasync(file.fileno())
            took += time.monotonic() - begun
    return 1000 * took / rounds


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    sys.setswitchinterval(0.0005)
    sticks = [broker_load.yardstick()]
    with tempfile.TemporaryDirectory() as scratch:
        prepared = broker_process.prepare(Path(scratch) / "broker")
        with broker_process.served(prepared) as process:
            alone = broker_load.releases(prepared, process.pid, seconds=SECONDS)
            sticks.append(broker_load.yardstick())
            cold = strange(prepared, process.pid, count=STRANGE)
        with broker_process.served(prepared, "--workers", "2") as process:
            both = broker_load.releases(prepared, process.pid, seconds=SECONDS)
        sticks.append(broker_load.yardstick())
        large = appends(Path(scratch), size=2048, count=APPENDS // 4)
        small = appends(Path(scratch), size=200)
    return [
        *_releases(broker_load.mean(sticks), alone, cold, both),
        *_appends(small, large),
        row(
            "load average (1 min), cores", f"{os.getloadavg()[0]:.1f}, {os.cpu_count()}", "≤ 2 for fair rates"
        ),
    ]


def _releases(
    stick: broker_load.Yardstick,
    alone: broker_load.Measured,
    cold: broker_load.Measured,
    both: broker_load.Measured,
) -> list[dict[str, object]]:
    unit = stick.ed25519_ms

    def cost(measured: broker_load.Measured) -> str:
        return f"{measured.broker_ms:.2f} = {measured.broker_ms / unit:.1f} verifications"

    shared = "clients on the same cores"
    return [
        row(
            "yardstick: Ed25519, P-256 verifications per second of one core",
            f"{1000 / unit:.0f}, {1000 / stick.p256_ms:.0f}",
            "of this very run",
        ),
        row("releases per second, one process", round(alone.rate), f"≥ 350; {shared}"),
        row("  broker's processor ms per release", cost(alone), "≤ 2.5"),
        row("  client's processor ms per release", f"{alone.client_ms:.2f}"),
        row("  challenge and release, median and p99 ms", f"{alone.median:.0f}, {alone.p99:.0f}"),
        row("releases per second, two workers", round(both.rate), f"≥ 600; {shared}"),
        row("  broker's processor ms per release", cost(both)),
        row("  against one process", f"{both.rate / alone.rate:.2f} times"),
        row(
            f"releases per second, {STRANGE} contracts and machines never seen",
            round(cold.rate),
            "one process; the requests are made before",
        ),
        row("  broker's processor ms per release, challenge included", cost(cold)),
        row("  against one contract and machine", f"{cold.broker_ms / alone.broker_ms:.2f} times"),
    ]


def _appends(small: Appended, large: Appended) -> list[dict[str, object]]:
    return [
        row("ledger appends per second, 200 bytes each", round(small.rate), f"≥ 20000; {BATCH} at once"),
        row("  processor µs of one; rate without a disk", _bare(small)),
        row("  one fdatasync of as many bytes, bare, ms", f"{small.sync_ms:.2f}", f"one for each {BATCH}"),
        row("ledger appends per second, 2 KiB each", round(large.rate), "each batch with its checkpoint"),
        row("  processor µs of one; rate without a disk", _bare(large)),
    ]


def _bare(appended: Appended) -> str:
    return f"{appended.each_us:.1f}; {1e6 / appended.each_us:.0f}/s"


if __name__ == "__main__":
    show(run())
