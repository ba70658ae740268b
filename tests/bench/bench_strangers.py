"""Honest releases while a stranger sends the worst that the broker accepts, as fast as one core can.

The stranger is a process of its own, at an address of its own, over eight connections. Broker, honest clients and
stranger share the machine's cores, so that each ratio stands beside that of a neighbour who only burns one core.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import dsse
from strongroom.model import messages
from strongroom.model.contracts import contract as contract_model
from strongroom_testing import broker_process, https_client
from tests.bench import broker_load
from tests.bench.turns import row, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 3.0
CONNECTIONS = 8
ADDRESS = "127.0.0.2"
FILLED = 1.0
_FORK = multiprocessing.get_context("fork")


class Stranger:
    """Knows the broker's address, and a genuine contract with one genuine room's old evidence."""

    def __init__(self, prepared: broker_process.Prepared) -> None:
        self._prepared = prepared
        self._digest = prepared.agreement.contract.digest
        room = prepared.room()
        self._old = room.ask(bytes(messages.NONCE_BYTES))
        self._large = _large_contract(prepared)

    def nonces_of_nobody(self, client: https_client.Client) -> int:
        """A nonce that was never issued, before the largest body."""
        head = replace(self._old, nonce=secrets.token_bytes(messages.NONCE_BYTES)).encode()
        return client.request("POST", "/v1/releases", head.ljust(messages.MAX_REQUEST, b" "))[0]

    def large_contracts(self, client: https_client.Client) -> int:
        """A nonce of the broker's, and a contract of the largest size with a signature in the owner's name."""
        return self._release(client, self._large, digest.sha256(dsse_payload(self._large)))

    def old_evidence(self, client: https_client.Client) -> int:
        """A nonce of the broker's, the genuine contract, and genuine evidence for another nonce."""
        return self._release(client, self._old.agreement, self._digest)

    def tiles(self, client: https_client.Client) -> int:
        """A whole tile of entries."""
        return client.request("GET", "/v1/ledger/tile/entries/000")[0]

    def proofs(self, client: https_client.Client) -> int:
        """A proof in a tree of a size that nobody asked for before."""
        size = 2 + secrets.randbelow(250)
        query = f"index={secrets.randbelow(size)}&size={size}"
        return client.request("GET", f"/v1/ledger/proof?{query}")[0]

    def challenges(self, client: https_client.Client) -> int:
        """Nonces, and no use of them."""
        ask = messages.encode_challenge_request(self._digest)
        return client.request("POST", "/v1/challenges", ask)[0]

    def _release(self, client: https_client.Client, agreement: bytes, contract: str) -> int:
        ask = messages.encode_challenge_request(contract)
        nonce = messages.parse_challenge(client.request("POST", "/v1/challenges", ask)[1]).nonce
        request = replace(self._old, nonce=nonce, contract_digest=contract, agreement=agreement)
        return client.request("POST", "/v1/releases", request.encode())[0]

    def rage(self, attack: Callable[[https_client.Client], int]) -> None:
        """Attack over all connections until this process is ended; who is cut off comes back."""
        threads = [threading.Thread(target=self._again, args=(attack,)) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()

    def _again(self, attack: Callable[[https_client.Client], int]) -> None:
        settings = self._prepared.settings
        while True:
            with (
                contextlib.suppress(OSError, ValueError, KeyError),
                https_client.Client(settings.host, settings.port, source=ADDRESS) as client,
            ):
                while True:
                    attack(client)


def burn() -> None:
    """What a neighbour does who wants nothing of the broker."""
    while True:
        pass


def dsse_payload(agreement: bytes) -> bytes:
    """The contract's bytes in an envelope."""
    return dsse.parse(
        agreement, payload_type=contract_model.PAYLOAD_TYPE, max_payload=contract_model.MAX_BYTES
    ).payload


def _large_contract(prepared: broker_process.Prepared) -> bytes:
    """An envelope of a contract of the largest size, with a bad signature that names the broker's own party's key."""
    own = dsse.DsseSignature(keyid=prepared.settings.party.keyid, sig=bytes(64))
    return dsse.Envelope(
        payload_type=contract_model.PAYLOAD_TYPE, payload=bytes(contract_model.MAX_BYTES), signatures=(own,)
    ).encode()


@contextlib.contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """`work` in a process of its own, ended with the context."""
    process = _FORK.Process(target=work, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def measure() -> dict[str, broker_load.Measured]:
    """Releases alone, beside a neighbour who burns a core, beside each attack, and alone again."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = broker_process.prepare(Path(scratch) / "broker")
        stranger = Stranger(prepared)
        attacks = {
            stranger.nonces_of_nobody: 403,
            stranger.large_contracts: 403,
            stranger.old_evidence: 403,
            stranger.tiles: 200,
            stranger.proofs: 200,
            stranger.challenges: 200,
        }
        with broker_process.served(prepared) as process:

            def releases(seconds: float = SECONDS) -> broker_load.Measured:
                return broker_load.releases(prepared, process.pid, seconds=seconds)

            while releases(FILLED) and _entries(prepared) < 256:
                pass  # until there is a whole tile to ask for
            measured = {"alone": releases()}
            with beside(burn):
                measured["burn"] = releases()
            for attack, status in attacks.items():
                with prepared.client() as client:
                    if (got := attack(client)) != status:
                        raise RuntimeError(f"{attack.__name__}: {got}, so that nothing is measured")
                with beside(lambda attack=attack: stranger.rage(attack)):
                    measured[attack.__name__] = releases()
            measured["alone again"] = releases()
    return measured


def _entries(prepared: broker_process.Prepared) -> int:
    with prepared.client() as client:
        return int(client.request("GET", "/v1/ledger/checkpoint")[1].split(b"\n")[1])


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    sys.setswitchinterval(0.0005)
    measured = measure()
    alone = (measured["alone"].rate + measured["alone again"].rate) / 2
    rows = [
        row("honest releases per second with no stranger", f"{alone:.0f}", "clients on the same cores"),
        row("  p99 ms", f"{measured['alone'].p99:.0f}, then {measured['alone again'].p99:.0f}"),
    ]
    for name, one in measured.items():
        if name.startswith("alone"):
            continue
        what = "a neighbour burns a core" if name == "burn" else f"a stranger sends {name.replace('_', ' ')}"
        rows.append(
            row(f"{what}: share of the rate", f"{one.rate / alone:.2f}", "> 0.5" if name != "burn" else "")
        )
        rows.append(row("  p99 ms of honest releases", f"{one.p99:.0f}", "< 1000"))
    rows.append(row("load average (1 min), cores", f"{os.getloadavg()[0]:.1f}, {os.cpu_count()}", ""))
    return rows


if __name__ == "__main__":
    show(run())
