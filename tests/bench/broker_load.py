"""Rooms that ask a real broker for keys as fast as they can, and what that costs the broker. Used by benchmarks.

The clients run on the same cores as the broker, so that rates are of the machine as it is, and the clients' own share of
it is told. They do little: of a release request only what differs from the one before is made anew (nonce, signing key,
quote and its signature), and put into bytes that were encoded once. To the broker each is a room of its own. What holds on
any machine are processor times, read from the kernel, as multiples of a yardstick of the same run: one bare signature verified.
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from strongroom.crypto import hpke, tls
from strongroom.model import messages
from strongroom_testing import broker_process, brokers

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 20
_MESSAGE = bytes(256)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Milliseconds of each release, how many a second, and processor milliseconds of one: the broker's and the clients'."""

    latencies: list[float]
    rate: float
    broker_ms: float
    client_ms: float

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(0.99 * len(self.latencies)))]


class Template:
    """A release request whose nonce and signing key are to be put in, and the quote that goes with them."""

    def __init__(self, room: brokers.Room) -> None:
        self._tpm, self._binding = room.tpm, room.binding(os.urandom(messages.NONCE_BYTES))
        asked = room.ask(self._binding.nonce, csr=room.csr(brokers.NAMES))
        self._quote, self._extra = asked.evidence.parts["quote"], self._binding.value("extra_data")
        own = [asked.nonce, asked.keys.signing, self._quote, asked.evidence.parts["signature"]]
        self._pieces: list[bytes] = []
        rest = asked.encode()
        # The order in which they stand: the nonce in the head, then canonical JSON.
        order = sorted(range(len(own)), key=lambda at: rest.index(base64.b64encode(own[at])))
        for at in order:
            before, found, rest = rest.partition(base64.b64encode(own[at]))
            if not found or base64.b64encode(own[at]) in rest:
                raise RuntimeError("a request in which what changes does not stand once")
            self._pieces.append(before)
        self._rest, self._order = rest, order

    def fill(self, nonce: bytes) -> bytes:
        """The request of another room, for `nonce`."""
        # The public key of a room is 32 bytes, of which its release asks nothing but that nobody had them before.
        signing = os.urandom(32)
        binding = replace(self._binding, nonce=nonce, keys=replace(self._binding.keys, signing=signing))
        quote = self._quote.replace(self._extra, binding.value("extra_data"))
        own = (nonce, signing, quote, self._tpm.sign(quote))
        made = []
        for piece, at in zip(self._pieces, self._order, strict=True):
            made += (piece, base64.b64encode(own[at]))
        return b"".join((*made, self._rest))


class Driver:
    """One connection with a room's lasting keys behind it, ready to ask again and again."""

    def __init__(self, prepared: broker_process.Prepared) -> None:
        room = brokers.Room(
            tpm=prepared.scene.tpm,
            agreement=prepared.agreement,
            audience=prepared.settings.address.pin,
            tls_key=tls.generate(),
            kem=hpke.generate(),
        )
        self._template = Template(room)
        self._challenge = messages.encode_challenge_request(prepared.agreement.contract.digest)
        self._client = prepared.client(timeout=120)

    def drive(self, until: float, took: list[float]) -> None:
        """Challenge and release, until the time has come."""
        while time.monotonic() < until:
            begun = time.monotonic()
            status, answer = self._client.request("POST", "/v1/challenges", self._challenge)
            if status == 200:
                nonce = base64.b64decode(json.loads(answer)["nonce"])
                status, answer = self._client.request("POST", "/v1/releases", self._template.fill(nonce))
            if status != 200:
                raise RuntimeError(answer[:500])
            took.append(1000 * (time.monotonic() - begun))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def releases(
    prepared: broker_process.Prepared, pid: int, *, seconds: float, connections: int = CONNECTIONS
) -> Measured:
    """Drive the broker of that process from all connections at once."""
    drivers = [Driver(prepared) for _ in range(connections)]
    took: list[float] = []
    until = time.monotonic() + seconds
    try:
        return at_once([lambda one=one: one.drive(until, took) for one in drivers], took, pid)
    finally:
        for one in drivers:
            one.close()


def at_once(work: list[Callable[[], None]], took: list[float], pid: int) -> Measured:
    """Run all of `work` at once, each in a thread; `took` is filled meanwhile with the milliseconds of each release."""
    failures: list[BaseException] = []

    def run(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as cause:  # noqa: BLE001 - raised below, in the caller's thread
            failures.append(cause)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    broker, client, begun = processor_seconds(pid), time.process_time(), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begun
    if failures:
        raise failures[0]
    return Measured(
        latencies=list(took),
        rate=len(took) / elapsed,
        broker_ms=1000 * (processor_seconds(pid) - broker) / len(took),
        client_ms=1000 * (time.process_time() - client) / len(took),
    )


def processor_seconds(pid: int) -> float:
    """User and system time of a process and its children, with all their threads (proc(5): fields 14 and 15 of stat)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_own_seconds(one) for one in (str(pid), *children))


def _own_seconds(pid: str) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """Bare verifications of a signature over 256 bytes: processor milliseconds of one."""

    ed25519_ms: float
    p256_ms: float


def yardstick(*, seconds: float = 0.4) -> Yardstick:
    """Measure the yardstick, in processor time of this thread."""
    edwards = ed25519.Ed25519PrivateKey.generate()
    signed = edwards.sign(_MESSAGE)
    curve = ec.generate_private_key(ec.SECP256R1())
    also = curve.sign(_MESSAGE, ec.ECDSA(hashes.SHA256()))
    public, point = edwards.public_key(), curve.public_key()
    return Yardstick(
        ed25519_ms=_each_ms(lambda: public.verify(signed, _MESSAGE), seconds / 2),
        p256_ms=_each_ms(lambda: point.verify(also, _MESSAGE, ec.ECDSA(hashes.SHA256())), seconds / 2),
    )


def _each_ms(work: Callable[[], None], seconds: float) -> float:
    count, begun = 0, time.thread_time()
    while (spent := time.thread_time() - begun) < seconds:
        for _ in range(50):
            work()
        count += 50
    return 1000 * spent / count


def mean(sticks: list[Yardstick]) -> Yardstick:
    """Of several moments of a run: the machine's own speed changes with what else runs."""
    return Yardstick(
        ed25519_ms=statistics.mean(one.ed25519_ms for one in sticks),
        p256_ms=statistics.mean(one.p256_ms for one in sticks),
    )
