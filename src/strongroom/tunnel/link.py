"""One tunnel at one end: a TLS connection, the handshake within it, and the program's plain connection beside it.

No thread and no waiting: a `Turner` (below) says when sockets can be read or written, and a link moves what can be moved.
What it holds is bounded by one buffer each way; while one side takes nothing, nothing more is read from the other. An end that
the program makes travels as an END frame, so that a connection that somebody cuts is never taken for one that ended: the
program sees a reset.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from strongroom.errors import Malformed, Refused, StrongroomError, Unavailable
from strongroom.model import tunnel
from strongroom.model.tunnel import TlsSide, TunnelFrame
from strongroom.tunnel import tls
from strongroom.tunnel.handshake import THEIRS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.tunnel.handshake import Handshake
    from strongroom.tunnel.tls import Credentials

GREETING_SECONDS = 60.0  # for TLS and the statements: an emulated room takes seconds for them
CUT = "tunnel-cut"
_RECORD = 16384
BUFFER = tunnel.HEADER + tunnel.MAX_DATA
MOST_BEYOND = 12 << 20  # bytes: whoever has proven nothing yet may send a long statement, and read none
_MOST_TURNS = 8  # of one buffer, before other links have theirs
_RESET = struct.pack("ii", 1, 0)
_READ, _WRITE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
_READABLE = _READ | select.EPOLLHUP | select.EPOLLERR


class Turner(Protocol):
    """The loop that a link belongs to. outward, inward: `BUFFER` bytes each, which a link uses only until it returns; it keeps a copy
    of what is left.
    """

    outward: memoryview
    inward: memoryview
    beyond: int

    def want(self, connection: socket.socket, events: int, act: Callable[[int], None]) -> None:
        """Have `act(events)` called while the socket is ready for some of `events`; 0 for never."""

    def forget(self, connection: socket.socket) -> None:
        """Before a socket is closed."""

    def resume(self, link: TunnelLink) -> None:
        """Call `link.serve` in the next turn, whatever is ready: it has more to do."""


class Owner(Protocol):
    """Who made a link."""

    def sign(self, link: TunnelLink, signed: tunnel.StatementFacts) -> None:
        """Have this room's attested key sign; `link.signed` takes the signature, now or later."""

    def proven(self, link: TunnelLink) -> None:
        """Both ends are proven. `link.attach` takes the program's connection, now or later."""

    def closed(self, link: TunnelLink, cause: StrongroomError | None) -> None:
        """It is over; cause: None where both sides have ended it."""


class TunnelLink:
    """See above. `handshake` is made by `greet` once TLS stands, of what both ends know of the connection."""

    def __init__(
        self,
        turner: Turner,
        owner: Owner,
        credentials: Credentials,
        side: TlsSide,
        net: socket.socket,
        greet: Callable[[tunnel.TlsFacts], Handshake],
    ) -> None:
        """Net is taken over. Nothing is done before `start`."""
        net.setblocking(False)
        self._turner, self._owner, self._credentials = turner, owner, credentials
        self.side = side
        self._net = net
        self._plain: socket.socket | None = None
        self._greet = greet
        self._tls = credentials.connection(side, net)
        self._tls_waits = 0  # what TLS needs before it can go on
        self._frames = _Frames()
        self._control = bytearray()  # own frames other than DATA, before more of the program's bytes
        self._unsent: bytes | memoryview = b""  # of one buffer of frames: what TLS has not taken
        self._held = bytearray()  # for the program: at most one buffer
        self._sent_end = self._got_end = self._passed_end = False
        self._net_readable = self._plain_readable = True  # as far as is known
        self._is_serving = False
        self._asked: tunnel.StatementFacts | None = None
        self._deadline = time.monotonic() + GREETING_SECONDS
        self._beyond = 0  # of what is held, as the turner has it
        self.handshake: Handshake | None = None
        self.is_proven = self.is_over = False

    def start(self) -> None:
        """Begin."""
        self.serve()

    def attach(self, plain: socket.socket) -> None:
        """Take the program's connection over. A server says READY with it."""
        if self.is_over:
            plain.close()
            return
        plain.setblocking(False)
        self._plain = plain
        if self.side is TlsSide.SERVER:
            self._collect()
            self._control += tunnel.frame(TunnelFrame.READY)
        self.serve()

    def signed(self, signature: bytes) -> None:
        """The signature that `Owner.sign` was asked for."""
        if self.is_over or self.handshake is None:
            return
        with self._guarded():
            self.handshake.signed(signature)
        self.serve()

    def renew(self, proofs: dict[tunnel.Wants, bytes]) -> None:
        """Show the other end that this room has attested again."""
        if not self.is_over and self.handshake is not None:
            self.handshake.renew(proofs)
            self.serve()

    def check_time(self, now: float) -> None:
        """Cut what has not greeted in time, or whose other end's verdict has ended. now: monotonic seconds."""
        if self.is_over:
            return
        with self._guarded():
            if not self.is_proven and now > self._deadline:
                raise Refused(
                    f"tunnel: the other end has not proven itself within {GREETING_SECONDS:.0f} s",
                    code=CUT,
                    hint="the machine may be overloaded, or the stream leads to no tunnel",
                )
            if self.handshake is not None:
                self.handshake.require_time()

    def net_ready(self, events: int) -> None:
        """The connection to the other end is."""
        self._net_readable = self._net_readable or bool(events & _READABLE)
        self.serve()

    def plain_ready(self, events: int) -> None:
        """The program's connection is."""
        self._plain_readable = self._plain_readable or bool(events & _READABLE)
        self.serve()

    def serve(self) -> None:
        """Move what can be moved."""
        if self.is_over:
            return
        if self._is_serving:  # from within: what is being moved now comes first
            self._turner.resume(self)
            return
        self._is_serving = True
        try:
            with self._guarded():
                self._serve()
        finally:
            self._is_serving = False

    def close(self, cause: StrongroomError | None = None) -> None:
        """Close both connections. cause: why; a refusal goes to the other end, and the program sees a reset."""
        if self.is_over:
            return
        self.is_over = True
        self._turner.beyond -= self._beyond
        if isinstance(cause, Refused | Malformed) and self.handshake is not None:
            self._say(cause)
        with contextlib.suppress(SSL.Error):
            self._tls.shutdown()
        self._turner.forget(self._net)
        self._net.close()
        if self._plain is not None:
            self._turner.forget(self._plain)
            if cause is not None:
                with contextlib.suppress(OSError):
                    self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._plain.close()
        self._owner.closed(self, cause)

    def _say(self, cause: StrongroomError) -> None:
        """The refusal, if it goes out at once: half a frame before it would make it unreadable."""
        if self._unsent or cause.code == THEIRS:
            return
        refusal = tunnel.Refusal(code=cause.code, message=cause.message)
        with contextlib.suppress(SSL.Error):
            self._tls.send(bytes(self._control) + tunnel.frame(TunnelFrame.REFUSAL, refusal.encode()))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except StrongroomError as cause:
            self.close(cause)
        except SSL.Error as cause:
            self.close(tls.failed(cause))
        except Exception as cause:  # noqa: BLE001 - the thread is every tunnel's: what nobody foresaw of one ends no other
            self.close(
                Refused(
                    f"tunnel: it failed at this end: {type(cause).__name__}",
                    code=CUT,
                    hint="please report it, and what is at the other end",
                )
            )

    def _serve(self) -> None:
        self._tls_waits = 0
        if self.handshake is not None or self._shake():
            for _ in range(_MOST_TURNS):
                self._flush()
                moved = self._outgoing()
                moved = self._incoming() or moved
                if self.is_over or not moved:
                    break
            else:
                self._turner.resume(self)
            self._end()
        if not self.is_over:
            self._account()
            self._arm()

    def _account(self) -> None:
        """Count what is held beyond a buffer. Raises `Unavailable` for the link that makes it too much of all of them."""
        held = len(self._unsent) + len(self._control) + self._frames.held
        beyond = max(0, held - BUFFER)
        self._turner.beyond += beyond - self._beyond
        self._beyond = beyond
        if beyond and self._turner.beyond > MOST_BEYOND:
            raise Unavailable(
                "tunnel: too many statements are on their way at once",
                code=CUT,
                hint="try again in a moment",
            )

    def _shake(self) -> bool:
        """Whether TLS stands."""
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.WantWriteError:
            self._tls_waits = _WRITE
            return False
        except SSL.SysCallError:
            raise self._cut() from None
        self.handshake = self._greet(tls.channel(self._tls, self.side, self._credentials.leaf))
        return True

    def _cut(self) -> StrongroomError:
        """The connection has ended without an end: of a tunnel, or before there was one, which says nothing of anybody."""
        if self.is_proven:
            return Refused(
                "tunnel: the connection was cut before its end",
                code=CUT,
                hint="the other room has ended, or somebody between cuts: the program saw a reset",
            )
        return Unavailable(
            "tunnel: the connection ended before the other end had proven itself",
            code=CUT,
            hint="the room may not have started its program yet, or waits for its peers: try again",
        )

    def _progress(self, handshake: Handshake) -> None:
        """Have signed what is to be signed, and say once that both ends are proven."""
        if handshake.to_sign is not None and handshake.to_sign is not self._asked:
            self._asked = handshake.to_sign
            self._owner.sign(self, handshake.to_sign)
        if handshake.done and not self.is_proven:
            self.is_proven = True
            self._owner.proven(self)

    def _outgoing(self) -> bool:
        """Own frames, then the program's bytes, to TLS; whether something went."""
        handshake = self.handshake
        if handshake is None or self._unsent:
            return False
        self._progress(handshake)
        self._collect()
        if self._control:
            data, self._control = bytes(self._control), bytearray()
            return self._send(data)
        if self._plain is None or self._sent_end or not (self.is_proven and self._plain_readable):
            return False
        try:
            count = self._plain.recv_into(self._turner.outward[tunnel.HEADER :])
        except BlockingIOError:
            self._plain_readable = False
            return False
        except OSError as cause:
            raise _program(cause) from None
        if not count:
            self._sent_end = True
            return self._send(tunnel.frame(TunnelFrame.END))
        self._plain_readable = (
            count == tunnel.MAX_DATA
        )  # else that was all there was: epoll says when there is more
        self._turner.outward[: tunnel.HEADER] = tunnel.header(TunnelFrame.DATA, count)
        return self._send(self._turner.outward[: tunnel.HEADER + count])

    def _collect(self) -> None:
        """Take what the handshake says, in its order."""
        if self.handshake is not None:
            self._control += self.handshake.outgoing
            self.handshake.outgoing.clear()

    def _send(self, data: bytes | memoryview) -> bool:
        sent = self._to_tls(data)
        if sent < len(data):
            self._unsent = bytes(data[sent:])
        return sent > 0

    def _to_tls(self, data: bytes | memoryview) -> int:
        """How many bytes went: all or, as far as is known, none; then the same must be given again."""
        try:
            return self._tls.send(data)
        except SSL.WantWriteError:
            self._tls_waits = _WRITE
        except SSL.WantReadError:
            self._net_readable = True
        return 0

    def _flush(self) -> None:
        """What either side could not take before."""
        if self._unsent:
            self._unsent = self._unsent[self._to_tls(self._unsent) :]
        if self._held:
            del self._held[: self._to_plain(self._held)]

    def _to_plain(self, data: bytes | bytearray | memoryview) -> int:
        """How many bytes the program has taken."""
        if self._plain is None:
            return 0
        sent = 0
        with memoryview(data) as view:
            try:
                while sent < len(view):
                    sent += self._plain.send(view[sent:])
            except BlockingIOError:
                pass
            except OSError as cause:
                raise _program(cause) from None
        return sent

    def _incoming(self) -> bool:
        """From TLS to the handshake and the program; whether something came."""
        handshake = self.handshake
        if handshake is None or self._held or not self._net_readable:
            return False
        count, come = 0, _RECORD
        try:
            while come == _RECORD and count + _RECORD <= BUFFER:
                come = self._tls.recv_into(self._turner.inward[count:], _RECORD)
                count += come
            # A shorter record most often is the last: epoll says when there is more.
            self._net_readable = come == _RECORD or self._tls.pending() > 0
        except SSL.WantReadError:
            self._net_readable = False
        except SSL.WantWriteError:
            self._tls_waits = _WRITE
        except (SSL.ZeroReturnError, SSL.SysCallError):
            if not count and not (self._got_end and self._sent_end):
                raise self._cut() from None
        if not count:
            return False
        for kind, piece in self._frames.take(self._turner.inward[:count], handshake.wants):
            if self.is_over:
                break
            self._take(handshake, kind, piece)
        return True

    def _take(self, handshake: Handshake, kind: TunnelFrame, piece: memoryview | bytes) -> None:
        if kind is TunnelFrame.DATA or kind is TunnelFrame.END:
            if not handshake.done or self._got_end:
                raise Refused(
                    f"tunnel: {kind.name} before the statements, or after the end",
                    code=CUT,
                    hint="the other end does not keep to the protocol: is it of another version?",
                )
            self._got_end = kind is TunnelFrame.END
            self._held += piece if self._held else piece[self._to_plain(piece) :]
            return
        handshake.take(kind, bytes(piece))
        self._progress(handshake)

    def _end(self) -> None:
        """Pass the other's end on, and close once both have ended."""
        if self.is_over or not self._got_end or self._held or self._plain is None:
            return
        if not self._passed_end:
            self._passed_end = True
            with contextlib.suppress(OSError):
                self._plain.shutdown(socket.SHUT_WR)
        if self._sent_end and not self._unsent and not self._control:
            self.close()

    def _arm(self) -> None:
        reading = 0 if self._held else _READ
        self._turner.want(
            self._net, reading | self._tls_waits | (_WRITE if self._unsent else 0), self.net_ready
        )
        if self._plain is not None:
            writing = _WRITE if self._held else 0
            self._turner.want(
                self._plain, writing | (0 if self._unsent or self._sent_end else _READ), self.plain_ready
            )


def _program(cause: OSError) -> Refused:
    return Refused(
        f"tunnel: the program's connection: {cause.strerror}", code=CUT, hint="the program has ended it"
    )


class _Frames:
    """Cuts a stream of bytes into frames. DATA comes in pieces as it arrives, all else whole."""

    def __init__(self) -> None:
        self._head = b""
        self._kind = TunnelFrame.DATA
        self._left = 0
        self._payload = bytearray()

    @property
    def held(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._payload)

    def take(self, data: memoryview, wants: tunnel.Wants) -> Iterator[tuple[TunnelFrame, memoryview | bytes]]:
        """The type and bytes of each. wants: what this side asked for, which bounds them. Raises `Malformed`."""
        while data:
            if not self._left:
                missing = tunnel.HEADER - len(self._head)
                self._head += bytes(data[:missing])
                data = data[missing:]
                if len(self._head) < tunnel.HEADER:
                    return
                self._kind, self._left = tunnel.parse_header(self._head, wants=wants)
                self._head = b""
                if not self._left:
                    yield self._kind, b""
                continue
            piece = data[: self._left]
            data = data[len(piece) :]
            self._left -= len(piece)
            if self._kind is TunnelFrame.DATA:
                yield self._kind, piece
                continue
            self._payload += piece
            if not self._left:
                payload, self._payload = bytes(self._payload), bytearray()
                yield self._kind, payload
