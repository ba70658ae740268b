"""The process in a room that ends its tunnels: forked by the agent before there is any key, so that none is ever in it.

It has a TLS key of its own making, which counts for nothing without the agent's signature; it sees what programs say to each other, and
parses what strangers send. It has no file, no network and no user of its own but what the agent hands to it, over one socket of
messages (SOCK_SEQPACKET), each a canonical JSON object, some with descriptors (SCM_RIGHTS)::

    agent → here
    {"kind": "begin", "role", "moment": the brokers' time, "heard": milliseconds of the monotonic clock}    2: agreement, proof
    {"kind": "renew", "moment", "heard"}                                                                     1: proof
    {"kind": "dial", "id", "room", "port"}      2: the stream to the other room, the program's connection
    {"kind": "accept", "id"}                    1: the stream of who comes
    {"kind": "signed", "id", "signature"}
    {"kind": "joined", "id"}                    1: a connection to the program; none where it takes none

    here → agent
    {"kind": "sign", "id", "facts": what is to be signed}
    {"kind": "join", "id", "port"}              both ends are proven: a connection to the program is wanted
    {"kind": "ready", "room", "port"}           the other room's program has taken a connection
    {"kind": "over", "id", "code"}              code: empty where both have ended it

A tunnel has the number `id` that the agent gave it.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Unavailable
from strongroom.model import tunnel
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.identifiers import RoomName
from strongroom.model.tunnel import TlsSide, Wants
from strongroom.tunnel import records
from strongroom.tunnel.handshake import Handshake, Ours
from strongroom.tunnel.link import TunnelLink
from strongroom.tunnel.loop import TunnelLoop
from strongroom.tunnel.tls import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.errors import StrongroomError
    from strongroom.tunnel.records import ProvenRoom

MAX_MESSAGE = 16 * 1024
MAX_DESCRIPTORS = 2
MAX_TUNNELS = 1000
MAX_NUMBER = 1 << 48
MAX_AGREEMENT = 1 << 20
_KEPT = 64  # proofs of others that were judged
_TURN_SECONDS = 1.0


class TunnelProcess:
    """Its state, and what it does with each message. control: the socket to the agent, taken over."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._loop = TunnelLoop()
        self._loop.watch(control.fileno(), self._receive)
        self._moment: datetime | None = None
        self._heard = 0.0
        self._ours: Ours | None = None
        self._credentials: Credentials | None = None
        self._numbers: dict[TunnelLink, int] = {}
        self._links: dict[int, TunnelLink] = {}
        self._dials: dict[TunnelLink, tuple[str, str, socket.socket]] = {}
        self._ready: set[TunnelLink] = set()
        self._judged: dict[tuple[bytes, str], ProvenRoom] = {}
        self.is_over = False

    def run(self) -> None:
        """Serve until the agent closes the control socket."""
        while not self.is_over:
            self._loop.turn(_TURN_SECONDS)
            self._tell_ready()

    def sign(self, link: TunnelLink, facts: tunnel.StatementFacts) -> None:
        """As of a link's owner: the agent signs."""
        self._send({"kind": "sign", "id": self._numbers[link], "facts": facts.to_json()})

    def proven(self, link: TunnelLink) -> None:
        """As of a link's owner."""
        dialled = self._dials.get(link)
        if dialled is not None:
            link.attach(dialled[2])
        elif link.handshake is not None:
            self._send({"kind": "join", "id": self._numbers[link], "port": link.handshake.port})

    def closed(self, link: TunnelLink, cause: StrongroomError | None) -> None:
        """As of a link's owner."""
        self._loop.remove(link)
        number = self._numbers.pop(link)
        del self._links[number]
        self._ready.discard(link)
        dialled = self._dials.pop(link, None)
        if dialled is not None and not link.is_proven:
            dialled[2].close()
        self._send({"kind": "over", "id": number, "code": "" if cause is None else cause.code})

    def now(self) -> datetime:
        """The brokers' time, by the monotonic clock since it was heard. Raises `Unavailable` before there is one."""
        if self._moment is None:
            raise Unavailable("tunnel: the room has not attested yet", code="tunnel-cut")
        return self._moment + timedelta(seconds=time.monotonic() - self._heard)

    def _tell_ready(self) -> None:
        """Say of each dialled tunnel once that the other program took it."""
        for link in tuple(self._dials):
            if link.handshake is not None and link.handshake.ready and link not in self._ready:
                self._ready.add(link)
                room, port, _ = self._dials[link]
                self._send({"kind": "ready", "room": room, "port": port})

    def _send(self, message: dict[str, object]) -> None:
        self._control.send(canonical.dumps(message))

    def _receive(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, MAX_DESCRIPTORS)
        if not data:
            self.is_over = True
            return
        top = fields.Fields(
            canonical.loads(data, what="agent's message", max_bytes=MAX_MESSAGE), "agent's message"
        )
        self._take(top, descriptors)
        top.done()

    def _take(self, top: fields.Fields, descriptors: list[int]) -> None:
        kind = top.text("kind", max_length=16)
        if kind in {"begin", "renew"}:
            self._moment = top.time("moment")
            self._heard = top.integer("heard", low=0, high=canonical.MAX_INTEGER) / 1000
            if kind == "begin":
                agreement = read_all(descriptors.pop(0), MAX_AGREEMENT)
                self._begin(RoomName(top.name("role")), agreement, _proofs(descriptors[0]))
            else:
                self._renew(_proofs(descriptors[0]))
            return
        number = top.integer("id", low=0, high=MAX_NUMBER)
        link = self._links.get(number)
        if kind == "signed":
            signature = top.data("signature", max_bytes=64, exactly=64)
            if link is not None:
                link.signed(signature)
        elif kind == "joined":
            self._join(link, descriptors)
        elif kind == "accept":
            self._open(number, TlsSide.SERVER, _socket(descriptors[0]), peer=tunnel.OUTSIDE, port="")
        elif kind == "dial":
            net, plain = (_socket(fd) for fd in descriptors)
            room, port = RoomName(top.name("room")), top.name("port")
            self._open(number, TlsSide.CLIENT, net, peer=room, port=port, plain=plain)
        else:
            raise Malformed(f"the agent sends a message of unknown kind {kind!r}", code="bad-tunnel")

    def _begin(self, role: RoomName, agreement: bytes, proofs: dict[Wants, bytes]) -> None:
        contract = agreement_model.read(agreement).contract
        self._ours = Ours(
            contract=contract,
            role=role,
            proofs=proofs,
            wants=Wants.RECORDS,
            judge=self._judge,
            now=self.now,
            random=os.urandom,
        )
        self._credentials = Credentials(now=self.now(), random=os.urandom)

    def _renew(self, proofs: dict[Wants, bytes]) -> None:
        if self._ours is None:
            raise Malformed("the agent renews before it begins", code="bad-tunnel")
        self._ours = self._ours.renewed(proofs)
        for link in tuple(self._links.values()):
            link.renew(proofs)

    def _judge(self, data: bytes, role: RoomName) -> ProvenRoom:
        """As of `Ours`: a proof that held before still does, until its verdict ends."""
        if self._ours is None:
            raise Unavailable("tunnel: the room has not attested yet", code="tunnel-cut")
        known = self._judged.get((data, role))
        if known is None:
            known = records.verify(data, self._ours.contract, role, now=self.now())
            if len(self._judged) >= _KEPT:
                self._judged.clear()
            self._judged[data, role] = known
        records.require_time(known.expires, self.now())
        return known

    def _join(self, link: TunnelLink | None, descriptors: list[int]) -> None:
        if not descriptors:
            if link is not None:
                link.close(Unavailable("tunnel: the program takes no connection", code="tunnel-cut"))
            return
        plain = _socket(descriptors[0])
        if link is None:
            plain.close()
        else:
            link.attach(plain)

    def _open(
        self,
        number: int,
        side: TlsSide,
        net: socket.socket,
        *,
        peer: RoomName,
        port: str,
        plain: socket.socket | None = None,
    ) -> None:
        ours, credentials = self._ours, self._credentials
        if ours is None or credentials is None or len(self._links) >= MAX_TUNNELS:
            for connection in (net, plain):
                if connection is not None:
                    connection.close()
            self._send({"kind": "over", "id": number, "code": "tunnel-cut"})
            return

        def greet(channel: tunnel.TlsFacts) -> Handshake:
            return Handshake(self._ours or ours, channel, side, peer=peer, port=port)

        link = TunnelLink(self._loop, self, credentials, side, net, greet)
        self._numbers[link], self._links[number] = number, link
        if plain is not None:
            self._dials[link] = (peer, port, plain)
        self._loop.add(link)


def main(control: socket.socket, drop_rights: Callable[[], None]) -> NoReturn:
    """Be that process, until the agent ends. drop_rights: called once everything is imported."""
    status = 1
    try:
        drop_rights()
        TunnelProcess(control).run()
        status = 0
    finally:  # whatever failed, nobody here could say it: the agent sees that the process ended
        os._exit(status)


def read_all(fd: int, limit: int) -> bytes:
    """What a memory file holds, which is closed. Raises `Malformed` where it is longer than `limit`."""
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            raise Malformed(f"a document of {size} bytes, at most {limit} allowed", code="too-large")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _proofs(fd: int) -> dict[Wants, bytes]:
    """Both forms of a proof, of its file."""
    whole = read_all(fd, tunnel.MAX_EVIDENCE)
    proof = tunnel.parse_proof(whole, wants=Wants.EVIDENCE)
    return {Wants.EVIDENCE: whole, Wants.RECORDS: proof.encode(Wants.RECORDS)}


def _socket(fd: int) -> socket.socket:
    return socket.socket(fileno=fd)
