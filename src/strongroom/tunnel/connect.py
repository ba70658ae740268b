"""`strongroom connect`: from outside to a room's port. The room is verified first; then a local port leads there.

Each connection to the local port is a tunnel of its own, verified by itself; a proof that was judged before is not judged again
until its verdict ends. Everything runs in one loop, which `RoomConnection.serve` turns, or a thread that `start` starts.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from strongroom.errors import Malformed, Misuse, Refused, Unavailable
from strongroom.model import tunnel
from strongroom.model.identifiers import RoomName
from strongroom.model.tunnel import TlsSide, Wants
from strongroom.tunnel import entry
from strongroom.tunnel.evidence import RoomVerifier
from strongroom.tunnel.handshake import Handshake, Ours
from strongroom.tunnel.link import GREETING_SECONDS, TunnelLink
from strongroom.tunnel.loop import TunnelLoop
from strongroom.tunnel.tls import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from strongroom.errors import StrongroomError
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.party import Party
    from strongroom.model.verification import Verification

DIAL_SECONDS = 10.0
MAX_LINKS = 512
_TURN_SECONDS = 0.5
_MAX_PORT = 65_535
_UNIX = "unix:"


def connect(
    where: str,
    *,
    agreement: Agreement,
    at: str,
    trust: Sequence[Party] = (),
    run: str = "",
    listen: tuple[str, int] = ("127.0.0.1", 0),
    command: str = "",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RoomConnection:
    """Verify the room that answers `at` (HOST:PORT, PORT or unix:PATH), and listen on a local address that leads to its port.

    where: ROOM:PORT, by the names of the contract. agreement: the contract, from a file that you trust. trust: parties whose keys you know by a way of your own. run: the only run
    that is meant; any of the contract by default. Raises `PolicyDenied`, whose `verdict` is the verification, `Refused`,
    `Unavailable` where nobody answers.
    """
    room, _, port = where.partition(":")
    entry.require(agreement.contract, RoomName(room), port, tunnel.OUTSIDE)
    verifier = RoomVerifier(
        agreement,
        subject=f"{where} at {at}",
        trust=trust,
        command=command or f"strongroom connect {where} --contract CONTRACT --at {at}",
        now=now,
    )
    connection = RoomConnection(
        verifier, agreement, room=RoomName(room), port=port, at=at, run=run, listen=listen, now=now
    )
    try:
        connection.begin()
    except BaseException:
        connection.close()
        raise
    return connection


class RoomConnection:
    """A local port that leads to a verified room. Used as a context manager, it serves in a thread until the block ends."""

    def __init__(
        self,
        verifier: RoomVerifier,
        agreement: Agreement,
        *,
        room: RoomName,
        port: str,
        at: str,
        run: str,
        listen: tuple[str, int],
        now: Callable[[], datetime],
    ) -> None:
        self._verifier = verifier
        self._room, self._port, self._at, self._run = room, port, at, run
        self._ours = Ours(
            contract=agreement.contract,
            role=tunnel.OUTSIDE,
            proofs={},
            wants=Wants.EVIDENCE,
            judge=verifier.judge,
            now=now,
            random=secrets.token_bytes,
        )
        self._credentials = Credentials(now=now(), random=secrets.token_bytes)
        self._loop = TunnelLoop()
        self._waiting: dict[TunnelLink, socket.socket] = {}
        self._first: TunnelLink | None = None  # verified before anybody came: the first who comes gets it
        self._cause: StrongroomError | None = None
        self._served = 0
        self._open = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._listener = _listen(listen)
        self._loop.watch(self._listener.fileno(), self._accept)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def verification(self) -> Verification:
        """What was verified, of the last tunnel that was made."""
        return self._verifier.document

    @property
    def is_simulated(self) -> bool:
        """Whether no hardware stands behind the room."""
        return any(each.status == "simulated" for each in self.verification.steps)

    def begin(self) -> None:
        """Make one tunnel, which the first local connection gets. Raises as `connect`."""
        self._cause = None
        link = self._first = self._dial()
        self._loop.add(link)
        deadline = time.monotonic() + GREETING_SECONDS
        while not (link.is_proven or link.is_over):
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._at}: the room has not proven itself in time", code="timed-out")
            self._loop.turn(_TURN_SECONDS)
        if self._cause is not None:
            raise self._cause

    def serve(self, *, once: bool = False) -> None:
        """Serve local connections until `stop`. once: until the first of them has ended."""
        while not self._stop.is_set() and not (once and self._served and not self._open):
            self._loop.turn(_TURN_SECONDS)

    def stop(self) -> None:
        """Have `serve` return, from any thread."""
        self._stop.set()

    def close(self) -> None:
        """End every tunnel, and listen no more."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        for plain in self._waiting.values():
            plain.close()
        self._loop.close()
        self._listener.close()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve, name=f"connect-{self._room}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def sign(self, link: TunnelLink, signed: tunnel.StatementFacts) -> None:
        """As of a link's owner: who is outside has no attested key, and is never asked to sign."""
        del link, signed
        raise Refused("tunnel: who is outside signs nothing", code="tunnel-order")

    def proven(self, link: TunnelLink) -> None:
        """As of a link's owner."""
        if link.handshake is not None and link.handshake.peer is not None:
            self._verifier.signed(link.handshake.peer)
        plain = self._waiting.pop(link, None)
        if plain is not None:
            link.attach(plain)

    def closed(self, link: TunnelLink, cause: StrongroomError | None) -> None:
        """As of a link's owner."""
        self._loop.remove(link)
        plain = self._waiting.pop(link, None)
        if plain is not None:
            plain.close()
        if link is self._first:
            self._first = None
        else:
            self._open -= 1
        if not link.is_proven:
            self._cause = self._verifier.refused(cause) if isinstance(cause, Refused | Malformed) else cause

    def _dial(self) -> TunnelLink:
        def greet(channel: tunnel.TlsFacts) -> Handshake:
            return Handshake(
                self._ours, channel, TlsSide.CLIENT, peer=self._room, port=self._port, run=self._run
            )

        return TunnelLink(self._loop, self, self._credentials, TlsSide.CLIENT, dial(self._at), greet)

    def _accept(self) -> None:
        try:
            plain, _ = self._listener.accept()
        except OSError:  # whoever it was has gone
            return
        self._served += 1
        if self._open >= MAX_LINKS:
            plain.close()
            return
        first, self._first = self._first, None
        if first is not None and not first.is_over:
            self._open += 1
            first.attach(plain)
            return
        try:
            link = self._dial()
        except Unavailable:  # the local program sees its connection end
            plain.close()
            return
        self._open += 1
        self._waiting[link] = plain
        self._loop.add(link)


def dial(at: str) -> socket.socket:
    """A connection to HOST:PORT, PORT on this machine or unix:PATH, as nodes name them, or a path with a slash. Raises `Misuse`, `Unavailable`."""
    try:
        if at.startswith(_UNIX) or "/" in at:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(DIAL_SECONDS)
            try:
                link.connect(at.removeprefix(_UNIX))
            except OSError:
                link.close()
                raise
            return link
        link = socket.create_connection(read_address(at), timeout=DIAL_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except UnicodeError:  # no name that DNS could have
        raise bad_address(at) from None
    except OSError as cause:
        raise Unavailable(
            f"{at}: {cause.strerror or cause}",
            code="tunnel-unreachable",
            hint="is the room running, and its node's listener for that port at this address?",
        ) from None
    return link


def bad_address(text: str) -> Misuse:
    """What is refused as an address."""
    return Misuse(
        f"{text!r} is no address",
        code="bad-address",
        hint="write HOST:PORT, like 127.0.0.1:8443, or unix:PATH",
    )


def read_address(text: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 address in brackets, or PORT on this machine alone. Raises `Misuse`."""
    host, _, number = (text if ":" in text else f"127.0.0.1:{text}").rpartition(":")
    if not host or not (number.isascii() and number.isdigit()) or int(number) > _MAX_PORT:
        raise bad_address(text)
    return host.removeprefix("[").removesuffix("]"), int(number)


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as cause:
        listener.close()
        raise Unavailable(
            f"listening on {address[0]}:{address[1]}: {cause.strerror or cause}",
            code="port-in-use",
            hint="name another with --listen, or leave it out",
        ) from None
    listener.setblocking(False)
    return listener
