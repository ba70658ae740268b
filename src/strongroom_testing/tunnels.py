"""Rooms that speak through tunnels, without a room: `web` and `db` of one contract, with what real brokers released to them.

`web` reaches the port `sql` of `db`, which is for it alone; `web` has the port `http`, for whoever is outside.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from strongroom.broker.challenge import challenge
from strongroom.broker.running.renewal import renewal
from strongroom.encoding import canonical, fields
from strongroom.model import messages, tunnel
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import drafting, network_terms
from strongroom.model.identifiers import ContractId, RoomName
from strongroom.model.tunnel import TlsSide, Wants
from strongroom.tunnel import records
from strongroom.tunnel.handshake import Handshake, Ours
from strongroom.tunnel.link import TunnelLink
from strongroom.tunnel.tls import Credentials
from strongroom_testing import brokers

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from strongroom.errors import StrongroomError
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.tunnel.loop import TunnelLoop
    from strongroom.tunnel.records import ProvenRoom
    from strongroom_testing.packs import World

WEB, DB = RoomName("web"), RoomName("db")
PATIENCE = 20.0  # seconds, for what takes milliseconds


def agreement(world: World, *, id: str = "flights", **of_rooms: Any) -> Agreement:
    """A contract of two rooms, signed by both owners. of_rooms: changes of either room's terms, by its name."""
    contract = world.agreement.contract
    db = replace(
        contract.rooms[0],
        name=DB,
        ports=(
            network_terms.Port(name="sql", number=5432, open=False),
            network_terms.Port(name="admin", number=5433, open=False),
        ),
    )
    web = replace(
        contract.rooms[0],
        name=WEB,
        ports=(network_terms.Port(name="http", number=8080, open=False),),
        peers=(network_terms.Peer(room=DB, port="sql", wait=True),),
    )
    rooms = tuple(replace(room, **of_rooms.get(room.name, {})) for room in (db, web))
    drafted = drafting.encode(replace(contract, id=ContractId(id), rooms=rooms))
    signed = agreement_model.draft(contract_model.parse(drafted))
    for owner in world.owners.values():
        signed = agreement_model.add_signature(signed, owner.identity.signing)
    return signed


@dataclass
class FakeRoom:
    """A room's keys and what its brokers released to it. signs: by which key its statements are signed."""

    world: World
    room: brokers.Room
    proof: tunnel.Proof
    clock: Callable[[], datetime]
    signs: Callable[[bytes], bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.signs = self.room.signing.sign

    def ours(self, **changes: Any) -> Ours:
        """Its part in a handshake."""
        contract = self.room.agreement.contract
        made = Ours(
            contract=contract,
            role=self.room.role,
            proofs=proofs(self.proof),
            wants=Wants.RECORDS,
            judge=lambda data, role: records.verify(data, contract, role, now=self.clock()),
            now=self.clock,
            random=secrets.token_bytes,
        )
        return replace(made, **changes)

    def renewed(self, by: timedelta) -> tunnel.Proof:
        """What its brokers would record of it later by so much, with verdicts that end later."""
        releases = []
        for release in self.proof.releases:
            entry = canonical.loads(release.ledger.entry, what="entry", max_bytes=1 << 20)
            verdict = entry["body"]["verdict"]
            later = fields.Fields(dict(verdict), "verdict").time("expires") + by
            entry["body"]["verdict"] = {**verdict, "expires": fields.format_time(later)}
            releases.append(replace(release, ledger=self.world.forge(release.party, entry)))
        return replace(self.proof, releases=tuple(releases))


def renewed_by_brokers(room: FakeRoom) -> FakeRoom:
    """The same room, after its brokers have renewed what they released."""
    releases = []
    for release in room.proof.releases:
        broker = room.world.owners[release.party].broker
        room.room.audience = broker.audience
        body = messages.encode_challenge_request(room.room.agreement.contract.digest)
        terms = room.room.agreement.contract.room(room.room.role).certificate
        nonce = asyncio.run(challenge(broker, body)).nonce
        request = room.room.ask(nonce, csr=None if terms is None else room.room.csr(terms.names))
        answer = asyncio.run(renewal(broker, request.encode()))
        if isinstance(answer, messages.DenialAnswer):
            raise AssertionError(str(answer.verdict))  # noqa: TRY004 - a test that fails, not a wrong type
        releases.append(
            tunnel.ShownRelease(
                party=release.party,
                binding=room.room.binding(nonce),
                ledger=answer.ledger,
                evidence=request.evidence,
                endorsements=answer.endorsements,
                certificates=answer.certificates,
            )
        )
    return replace(room, proof=replace(room.proof, releases=tuple(releases)))


def proofs(proof: tunnel.Proof) -> dict[Wants, bytes]:
    """Both forms of a proof."""
    return {wants: proof.encode(wants) for wants in Wants}


def attest(world: World, room: brokers.Room) -> tunnel.Proof:
    """What the brokers of both owners release to that room."""
    parts = [world.part(room, name) for name in world.owners]
    return tunnel.Proof(
        manifests=tuple(owner.manifest for owner in world.owners.values()),
        releases=tuple(
            tunnel.ShownRelease(
                party=part.party,
                binding=part.binding,
                ledger=part.ledger,
                evidence=part.evidence,
                endorsements=part.endorsements,
                certificates=part.certificates,
            )
            for part in parts
        ),
    )


def room(world: World, signed: Agreement, role: RoomName) -> FakeRoom:
    """A fresh room in that role, attested to both brokers."""
    made = brokers.Room(tpm=world.scene.tpm, agreement=signed, audience="", role=role)
    return FakeRoom(world=world, room=made, proof=attest(world, made), clock=lambda: world.scene.now)


def outside(signed: Agreement, now: Callable[[], datetime], **changes: Any) -> Ours:
    """The part of who is no room, and believes records."""
    contract = signed.contract
    made = Ours(
        contract=contract,
        role=tunnel.OUTSIDE,
        proofs={},
        wants=Wants.RECORDS,
        judge=lambda data, role: records.verify(data, contract, role, now=now()),
        now=now,
        random=secrets.token_bytes,
    )
    return replace(made, **changes)


class End:
    """One end in a loop, whose program is `program`, the other end of a socket pair."""

    def __init__(
        self,
        loop: TunnelLoop,
        ours: Ours,
        signs: Callable[[bytes], bytes] | None,
        credentials: Credentials | None = None,
    ) -> None:
        self.loop, self.ours, self.signs = loop, ours, signs
        self.credentials = credentials or Credentials(now=ours.now(), random=secrets.token_bytes)
        self.cause: StrongroomError | None = None
        self.is_closed = False
        self.peer: ProvenRoom | None = None
        self.is_proven = False
        self.holds = False  # whether the program is not connected yet
        self.program, self._plain = socket.socketpair()
        self.program.settimeout(PATIENCE)
        self.link: TunnelLink

    def start(
        self, side: TlsSide, net: socket.socket, *, peer: RoomName = DB, port: str = "sql", run: str = ""
    ) -> End:
        """Begin as that side over `net`."""

        def greet(channel: tunnel.TlsFacts) -> Handshake:
            return Handshake(self.ours, channel, side, peer=peer, port=port, run=run)

        self.link = TunnelLink(self.loop, self, self.credentials, side, net, greet)
        self.loop.add(self.link)
        return self

    def sign(self, link: TunnelLink, signed: tunnel.StatementFacts) -> None:
        """As of a link's owner."""
        if self.signs is not None:
            link.signed(self.signs(signed.message()))

    def proven(self, link: TunnelLink) -> None:
        """As of a link's owner."""
        self.is_proven = True
        self.peer = None if link.handshake is None else link.handshake.peer
        if not self.holds:
            self.connect()

    def connect(self) -> None:
        """Give the link the program's connection."""
        self.link.attach(self._plain)

    def closed(self, link: TunnelLink, cause: StrongroomError | None) -> None:
        """As of a link's owner."""
        self.loop.remove(link)
        self.is_closed, self.cause = True, cause

    def close(self) -> None:
        """Close what is left."""
        self.link.close()
        for connection in (self.program, self._plain):
            connection.close()

    @property
    def code(self) -> str:
        """The code of why it ended; empty where it did not, or well."""
        return "" if self.cause is None else self.cause.code


def turn(loop: TunnelLoop, until: Callable[[], bool]) -> None:
    """Turn the loop until that holds."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        if time.monotonic() > deadline:
            raise AssertionError("what was waited for never came")
        loop.turn(0.05)
