"""What is said before the program's first byte, as states: frames in, frames out, and a statement to be signed. No input or output.

    client                                        server
    HELLO (role, peer, port, nonce)     →         the contract lets that role come to that port
                                        ←         HELLO (nonce), STATEMENT: this room, over this TLS connection
    the statement holds
    STATEMENT, unless outside           →         the statement holds
                                        ←         READY, once the program has taken the connection

Each side checks, in this order: the other's hello names the same contract, both roles and the port as they are meant; its proof
is good (the caller's `judge`); its statement is signed by the key that the proof is about, over what this side sees of the TLS
connection. A statement of a later sequence (a renewal) may follow at any time, by the same key.

Nothing in a certificate is believed. Who has stolen a TLS key can answer in its name, but the two connections of a relay have
two exporters, and the attested key signs neither for the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.crypto import sign
from strongroom.errors import Refused
from strongroom.model import tunnel
from strongroom.model.tunnel import TlsSide, TunnelFrame, Wants
from strongroom.tunnel import entry, records

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import RoomName
    from strongroom.tunnel.records import ProvenRoom

CONTRACT, ROLE, SIGNATURE, ORDER, RUN = (
    "tunnel-contract",
    "tunnel-role",
    "tunnel-signature",
    "tunnel-order",
    "tunnel-run",
)
THEIRS = "tunnel-refused"
_RELAYED = "somebody stands between the two ends, or it is another room: nothing was sent to it"


Judge = Callable[[bytes, "RoomName"], "ProvenRoom"]
"""Says who a proof's bytes prove, for the expected role. Raises `Malformed`, `Refused`."""


@dataclass(frozen=True, kw_only=True)
class Ours:
    """One end's own part. role: `OUTSIDE` for no room. proofs: what this room shows, by what is wanted; none for who is outside.

    judge: of the other's proof, which is asked for in the form `wants`. random: bytes from the system's generator.
    """

    contract: Contract
    role: RoomName
    proofs: dict[Wants, bytes]
    wants: Wants
    judge: Judge
    now: Callable[[], datetime]
    random: Callable[[int], bytes]

    def renewed(self, proofs: dict[Wants, bytes]) -> Ours:
        """The same end with other proofs."""
        return replace(self, proofs=proofs)


class Handshake:
    """One end of one tunnel. `outgoing` are frames to be sent; `to_sign` waits for `signed` while it is not None.

    peer: the room at the other end once it is proven; None at a server whose client is outside. done: the program may be
    connected. ready: at a client, the other's program has taken the connection.
    """

    def __init__(
        self, ours: Ours, channel: tunnel.TlsFacts, side: TlsSide, *, peer: RoomName, port: str, run: str = ""
    ) -> None:
        """Peer and port: whom a client means; a server learns both from its client's hello. run: the only run that is meant."""
        self._ours = ours
        self._channel = channel
        self._side = side
        self._peer_role = peer
        self._run = run
        self.port = port
        self._nonces = {side: ours.random(tunnel.NONCE_BYTES)}
        self._their_wants = Wants.RECORDS
        self._greeted = self._proven = self._renews = False
        self._theirs, self._own_next = 0, 0
        self._proof_digest = b""
        self._proof = b""
        self.peer: ProvenRoom | None = None
        self.to_sign: tunnel.StatementFacts | None = None
        self.outgoing = bytearray()
        self.ready = False
        if side is TlsSide.CLIENT:
            self._say_hello()

    @property
    def done(self) -> bool:
        """Whether this end has proven itself and the other to it, as far as the contract asks for it."""
        return self._proven and (self._own_next > 0 or self._ours.role == tunnel.OUTSIDE)

    @property
    def wants(self) -> Wants:
        """What this side asked for: it bounds the other's frames."""
        return self._ours.wants

    def take(self, kind: TunnelFrame, payload: bytes) -> None:
        """A frame of the other's, any but DATA and END. Raises `Malformed`, `Refused`."""
        if kind is TunnelFrame.REFUSAL:
            words = tunnel.parse_refusal(payload)
            raise Refused(
                f"tunnel: the other end refuses: {words.message} ({words.code})",
                code=THEIRS,
                hint="these are its words; its log and the contract tell more",
            )
        if kind is TunnelFrame.HELLO and not self._greeted:
            self._hello(tunnel.parse_hello(payload))
        elif kind is TunnelFrame.STATEMENT and self._greeted and self._peer_role != tunnel.OUTSIDE:
            self._statement(tunnel.parse_statement(payload))
        elif kind is TunnelFrame.READY and self._side is TlsSide.CLIENT and self._proven and not self.ready:
            self.ready = True
        else:
            raise Refused(f"tunnel: a {kind.name} frame out of its order", code=ORDER, hint=_RELAYED)

    def signed(self, signature: bytes) -> None:
        """The signature that `to_sign` waits for."""
        if self.to_sign is None:
            raise Refused("tunnel: a signature that nobody asked for", code=ORDER)
        statement = tunnel.RoomStatement(
            sequence=self.to_sign.sequence, signature=signature, proof=self._proof
        )
        self.to_sign = None
        self._own_next += 1
        self._proof = b""
        self.outgoing += tunnel.frame(TunnelFrame.STATEMENT, statement.encode())
        self._go_on()

    def renew(self, proofs: dict[Wants, bytes]) -> None:
        """Show the other end that this room has attested again, once `signed` is called for it."""
        self._ours = self._ours.renewed(proofs)
        self._renews = self._own_next > 0 or self.to_sign is not None
        self._go_on()

    def _go_on(self) -> None:
        if self._renews and self.to_sign is None:
            self._renews = False
            self._ask_to_sign()

    def require_time(self) -> None:
        """Raise `Refused` when the other's verdict has ended."""
        if self.peer is not None:
            records.require_time(self.peer.expires, self._ours.now())

    def _say_hello(self) -> None:
        hello = tunnel.Hello(
            contract_digest=self._ours.contract.digest,
            role=self._ours.role,
            peer=self._peer_role,
            port=self.port,
            nonce=self._nonces[self._side],
            wants=self._ours.wants,
        )
        self.outgoing += tunnel.frame(TunnelFrame.HELLO, hello.encode())

    def _hello(self, hello: tunnel.Hello) -> None:
        ours = self._ours
        if hello.contract_digest != ours.contract.digest:
            raise Refused(
                f"tunnel: expected the contract {ours.contract.digest}, the other end has {hello.contract_digest}",
                code=CONTRACT,
                hint="both ends are of one version of one contract: start both anew after a change",
            )
        if hello.peer != ours.role:
            raise _role(f"the other end to mean {ours.role or 'outside'}", hello.peer)
        if self._side is TlsSide.SERVER:
            if hello.role == ours.role:
                raise _role("another room, or who is none", hello.role)
            entry.require(ours.contract, ours.role, hello.port, hello.role)
            self._peer_role, self.port = hello.role, hello.port
        elif (hello.role, hello.port) != (self._peer_role, self.port):
            raise _role(f"{self._peer_role}:{self.port}", f"{hello.role}:{hello.port}")
        self._greeted = True
        self._nonces[self._side.other] = hello.nonce
        self._their_wants = hello.wants
        if self._side is TlsSide.SERVER:
            self._say_hello()
            self._ask_to_sign()
            self._proven = self._peer_role == tunnel.OUTSIDE

    def _statement(self, statement: tunnel.RoomStatement) -> None:
        if statement.sequence != self._theirs:
            raise Refused(
                f"tunnel: expected statement {self._theirs}, got {statement.sequence}",
                code=ORDER,
                hint=_RELAYED,
            )
        attested = self._ours.judge(statement.proof, self._peer_role)
        if attested.role != self._peer_role:
            raise _role(self._peer_role, attested.role)
        if self._run and attested.run_id != self._run:
            raise Refused(
                f"tunnel: expected the run {self._run}, got {attested.run_id}",
                code=RUN,
                hint="it is a genuine room of the contract, but another run: leave --run out, or ask where that run is reached",
            )
        if self.peer is not None and self.peer.signing_key != attested.signing_key:
            raise Refused("tunnel: the other end renews as another run", code=RUN, hint=_RELAYED)
        signed = self._facts(self._side.other, statement.sequence, hashlib.sha256(statement.proof).digest())
        try:
            sign.VerifyingKey(attested.signing_key).verify(statement.signature, signed.message())
        except Refused:
            raise Refused(
                f"tunnel: the attested key of {attested.run_id} did not sign this connection",
                code=SIGNATURE,
                hint=_RELAYED,
            ) from None
        records.require_time(attested.expires, self._ours.now())
        self.peer = attested
        self._theirs += 1
        if not self._proven:
            self._proven = True
            if self._side is TlsSide.CLIENT and self._ours.role != tunnel.OUTSIDE:
                self._ask_to_sign()

    def _ask_to_sign(self) -> None:
        self._proof = self._ours.proofs[self._their_wants]
        self.to_sign = self._facts(self._side, self._own_next, hashlib.sha256(self._proof).digest())

    def _facts(self, signer: TlsSide, sequence: int, proof_digest: bytes) -> tunnel.StatementFacts:
        roles = {self._side: self._ours.role, self._side.other: self._peer_role}
        return tunnel.StatementFacts(
            channel=self._channel,
            contract_digest=self._ours.contract.digest,
            client_role=roles[TlsSide.CLIENT],
            server_role=roles[TlsSide.SERVER],
            port=self.port,
            client_nonce=self._nonces[TlsSide.CLIENT],
            server_nonce=self._nonces[TlsSide.SERVER],
            signer=signer,
            sequence=sequence,
            proof_digest=proof_digest,
        )


def _role(expected: str, got: str) -> Refused:
    return Refused(
        f"tunnel: expected {expected}, got {got or 'outside'}",
        code=ROLE,
        hint="the streams are led to another room than was meant: look at the addresses that the node was given",
    )
