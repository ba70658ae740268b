"""The agent's side of the process that ends tunnels (`strongroom.tunnel.process`): what it is given, and what it may ask for.

It may ask for signatures of statements: of this contract, in this room's role, and of nothing else, since the agent makes the frame
that is signed. It may ask for connections to ports that the contract has. It has no key of the room's, and no access to the channel:
a stream's bytes, which are TLS, pass through the agent; those of the program do not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from strongroom.agent.network import keyless
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model import tunnel
from strongroom.streams.socket_end import reset_on_close

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strongroom.agent.attest import Keys, Released
    from strongroom.agent.network.places import Outward
    from strongroom.model.contracts.network_terms import Port
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.channel import Start
    from strongroom.streams.carrier import Carrier

    ToProgram = Callable[[int, Callable[[socket.socket], None], Callable[[], None]], None]

_BUFFER = 1 << 20
_MAX_MESSAGE = 16 * 1024
_BASE = "a base of this version never does that: build it again; it may have been changed"
_MOST_AT_ONCE = 64  # messages that are taken in one turn
_NOBODY = 65533  # no user of any image: it shares nothing with one


@dataclass(frozen=True, kw_only=True)
class StatementSigner:
    """By what the agent signs, and as whom alone."""

    contract_digest: ContractDigest
    role: str
    sign: Callable[[bytes], bytes]

    def statement(self, facts: tunnel.StatementFacts) -> bytes:
        """The signature. Raises `Malformed` for a statement of anybody else."""
        if (facts.contract_digest, facts.role) != (self.contract_digest, self.role):
            raise Malformed(
                "the tunnels' process asks for a signature as another room", code="bad-tunnel", hint=_BASE
            )
        return self.sign(facts.message())


class Tunnels:
    """The process, from `spawn` to `close`. is_ready: of a peer ("ROOM:PORT") whether its program has taken a connection."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self.pid = pid
        self._control = control
        self._numbers = itertools.count(1)
        self._carrier: Carrier | None = None
        self._start: Start | None = None
        self._signer: StatementSigner | None = None
        self._ports: dict[str, Port] = {}
        self._to_program: ToProgram | None = None
        self.ready: set[str] = set()
        self.is_lost = False

    def begin(
        self,
        carrier: Carrier,
        start: Start,
        contract_digest: ContractDigest,
        keys: Keys,
        released: Sequence[Released],
    ) -> None:
        """Have tunnels made from now on, by what the brokers released."""
        self._carrier, self._start = carrier, start
        self._signer = StatementSigner(
            contract_digest=contract_digest, role=released[0].binding.role, sign=keys.signing.sign
        )
        carrier.watch(self._control.fileno(), self._receive)
        self._send_documents("begin", (start.agreement, self._proof(released)), released, role=start.room)

    def renew(self, released: Sequence[Released]) -> None:
        """The room has attested again: tunnels that are open go on by what it was released to now."""
        self._send_documents("renew", (self._proof(released),), released)

    def _proof(self, released: Sequence[Released]) -> bytes:
        manifests = () if self._start is None else tuple(self._start.manifests.values())
        proof = tunnel.Proof(
            manifests=tuple(dict.fromkeys(manifests)),
            releases=tuple(
                tunnel.ShownRelease(
                    party=release.party,
                    binding=release.binding,
                    ledger=release.answer.ledger,
                    evidence=release.evidence,
                    endorsements=release.answer.endorsements,
                    certificates=release.answer.certificates,
                )
                for release in released
            ),
        )
        return proof.encode(tunnel.Wants.EVIDENCE)

    def lead_to(self, ports: tuple[Port, ...], to_program: ToProgram) -> None:
        """Where connections to the program come from (`relay.ProgramNetwork.to_program`)."""
        self._ports, self._to_program = {port.name: port for port in ports}, to_program

    def peer_end(self, connection: socket.socket, way: Outward) -> socket.socket:
        """What a stream to a peer joins, in place of the program's connection, which is taken over."""
        room, _, port = way.destination.name.partition(":")
        own, theirs = _pair()
        self._send(
            {"kind": "dial", "id": next(self._numbers), "room": room, "port": port}, theirs, connection
        )
        return own

    def tunnel_end(self) -> socket.socket:
        """What a stream of a tunnel joins, whose client has yet to say where it wants to, and to prove who it is."""
        own, theirs = _pair()
        self._send({"kind": "accept", "id": next(self._numbers)}, theirs)
        return own

    def close(self) -> None:
        """End all tunnels, and the process."""
        if self._carrier is not None and not self.is_lost:
            self._carrier.forget(self._control.fileno())
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _receive(self, _events: int) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                data = self._control.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lose()
                return
            top = fields.Fields(
                canonical.loads(data, what="tunnels' message", max_bytes=_MAX_MESSAGE), "tunnels' message"
            )
            self._take(top)
            top.done()

    def _take(self, top: fields.Fields) -> None:
        kind = top.text("kind", max_length=16)
        if kind == "ready":
            self.ready.add(f"{top.name('room')}:{top.name('port')}")
            return
        number = top.integer("id", low=1, high=canonical.MAX_INTEGER)
        if kind == "sign":
            facts = tunnel.read_facts(top.object("facts"))
            if self._signer is not None:
                signature = fields.format_data(self._signer.statement(facts))
                self._send({"kind": "signed", "id": number, "signature": signature})
        elif kind == "join":
            self._join(number, top.name("port"))
        elif kind == "over":
            top.text_map_of(("code",), max_length=64)
        else:
            raise Malformed(f"the tunnels' process says {kind!r}", code="bad-tunnel", hint=_BASE)

    def _join(self, number: int, name: str) -> None:
        def connected(connection: socket.socket) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._send({"kind": "joined", "id": number}, connection)

        def failed() -> None:
            self._send({"kind": "joined", "id": number})

        port = self._ports.get(name)
        if port is None or self._to_program is None:
            failed()
        else:
            self._to_program(port.number, connected, failed)

    def _send_documents(
        self, kind: str, documents: tuple[bytes, ...], released: Sequence[Released], **values: object
    ) -> None:
        # The last broker's clock: it was heard last.
        times = {
            "moment": fields.format_time(released[-1].moment),
            "heard": int(released[-1].heard * 1000),
        }
        files = [_memory_file(document) for document in documents]
        try:
            self._send_fds({"kind": kind, **times, **values}, files)
        finally:
            for fd in files:
                os.close(fd)

    def _send(self, message: dict[str, object], *connections: socket.socket) -> None:
        """Send, and let go of the connections; where the process takes nothing, they are reset."""
        sent = self._send_fds(message, [connection.fileno() for connection in connections])
        for connection in connections:
            if not sent:
                reset_on_close(connection)
            connection.close()

    def _send_fds(self, message: dict[str, object], descriptors: list[int]) -> bool:
        """Whether the message went: it does not where the process is gone, or so far behind that it takes no more."""
        if self.is_lost:
            return False
        try:
            socket.send_fds(self._control, [canonical.dumps(message)], descriptors, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _lose(self) -> None:
        """The process has ended: there are no tunnels any more, and none will be made."""
        if not self.is_lost and self._carrier is not None:
            self._carrier.forget(self._control.fileno())
        self.is_lost = True


def spawn() -> Tunnels:
    """Fork the process. To be called before there is any key."""
    own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (own, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    pid = keyless.fork(partial(_serve, theirs), keep=theirs.fileno())
    theirs.close()
    return Tunnels(own, pid)


def _serve(control: socket.socket) -> None:
    from strongroom.tunnel import process  # noqa: PLC0415 - here alone: rooms without tunnels load none of it

    process.main(control, partial(keyless.drop_rights, _NOBODY))


def _pair() -> tuple[socket.socket, socket.socket]:
    own, theirs = socket.socketpair()
    for end in (own, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return own, theirs


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("tunnels", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return fd
