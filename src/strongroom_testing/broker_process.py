"""A real broker process for end-to-end tests and benchmarks: `strongroom broker serve`, and what it serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.broker.administration.add_key import add_key
from strongroom.model import messages
from strongroom.model.identifiers import ContractId
from strongroom.wiring import broker
from strongroom_testing import brokers, contracts, https_client, ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strongroom.broker.settings import Settings
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract, Platform

SERVE = ("-m", "strongroom.cli.main", "broker", "serve")
FAULTY = ("-m", "strongroom_testing.faulty_broker")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A broker's folder with alice's disk, and a signed contract that it would release under."""

    directory: Path
    scene: contracts.Scene
    settings: Settings
    agreement: Agreement

    def client(self, *, timeout: float = 30) -> https_client.Client:
        """A connection to the broker."""
        address = self.settings.address
        return https_client.Client(self.settings.host, self.settings.port, pin=address.pin, timeout=timeout)

    def room(self) -> brokers.Room:
        """A fresh room under the contract."""
        return self.room_under(self.agreement)

    def room_under(self, agreement: Agreement) -> brokers.Room:
        """A fresh room under another contract over the same disk."""
        return brokers.Room(tpm=self.scene.tpm, agreement=agreement, audience=self.settings.address.pin)

    def contract(self, id: str, *platforms: Platform) -> Agreement:
        """A signed contract over alice's disk for rooms of these platforms, by an id of its own."""

        def ours(one: Contract) -> Contract:
            return replace(self.agreement.contract, id=ContractId(id), platforms=platforms, raw=one.raw)

        return self.scene.agreement(ours)

    def challenge(
        self, client: https_client.Client, agreement: Agreement | None = None
    ) -> messages.Challenge:
        """A nonce, over `client`; for rooms under another contract where one is given."""
        body = messages.encode_challenge_request((agreement or self.agreement).contract.digest)
        status, answer = client.request("POST", "/v1/challenges", body)
        if status != 200:
            raise AssertionError(answer)
        return messages.parse_challenge(answer)


def prepare(directory: Path, *, runs: int = 1_000_000) -> Prepared:
    """Make the folder, add the disk, sign the contract; by the real clock."""
    scene = contracts.scene(now=datetime.now(UTC).replace(microsecond=0))
    listen = f"127.0.0.1:{ports.free()}"
    broker.init_broker(
        directory, scene.alice.party(), listen=listen, url=f"https://{listen}", passphrase=brokers.PASSPHRASE
    )
    disk = brokers.manifest(scene.alice)
    with broker.open_broker(directory, brokers.PASSPHRASE) as opened:
        asyncio.run(add_key(opened.broker, disk, brokers.DISK_KEY))
        settings = opened.settings
    digest = brokers.manifest_digest(disk)
    agreement = scene.agreement(lambda one: brokers.contract_over(one, settings, digest, runs=runs))
    return Prepared(directory=directory, scene=scene, settings=settings, agreement=agreement)


@contextlib.contextmanager
def served(
    prepared: Prepared, *arguments: str, program: tuple[str, ...] = SERVE, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The broker as a process of its own, once it has said that it is ready."""
    full = {**os.environ, "STRONGROOM_PASSPHRASE": brokers.PASSPHRASE.decode(), **environment}
    command = [sys.executable, *program, str(prepared.directory), *arguments]
    process = subprocess.Popen(command, env=full, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        if not process.stdout.readline():
            process.wait(60)
            raise AssertionError(f"the broker did not start: {process.stderr.read().decode()}")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)
        process.stdout.close()
        process.stderr.close()
