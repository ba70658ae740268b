"""The relay in the room: what the program connects to leaves as streams, and streams to its ports become connections to it.

Deny by default: a place without a listener refuses the program by its own IP stack, a port that the contract does not open is
refused to the node, and there is nothing that takes datagrams. What the program connects to is taken at once, since nobody knows
yet whether it can be reached; where it cannot, the connection is reset.

Bounds: `MAX_OUTWARD` and `MAX_INWARD` streams at once, so that neither direction can use up the other's and the agent keeps some
for brokers. Beyond them the program's next connections wait in its own kernel, and the node's are refused.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.agent.network import tls
from strongroom.errors import Unavailable
from strongroom.model.contracts.network_terms import Egress
from strongroom.model.receipt import EgressCount
from strongroom.model.room.destination import Kind, Reason
from strongroom.streams.socket_end import SocketEnd, reset_on_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.agent.network.namespace import Handed, ProgramNamespace
    from strongroom.agent.network.places import Outward
    from strongroom.model.contracts.network_terms import Port
    from strongroom.streams.carrier import Carrier
    from strongroom.streams.mux import Stream, StreamEnd

    PeerEnd = Callable[[socket.socket, Outward], socket.socket]
    TunnelEnd = Callable[[], socket.socket]

MAX_OUTWARD = MAX_INWARD = 1000
_MOST_NOTES = 500
_AT_ONCE = 64  # connections that are taken from one listener in one turn
_PROGRAM = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_WHY = {
    Reason.REFUSED: "nobody took the connection there",
    Reason.UNREACHABLE: "it cannot be reached from the node",
    Reason.NOT_ALLOWED: "the node does not connect to it",
    Reason.TOO_MANY: "too many connections at once",
}


@dataclass
class _Count:
    """Of one host outside, exactly."""

    connections: int = 0
    sent: int = 0
    received: int = 0


class ProgramNetwork:
    """The network of one program, from `join` to `close`.

    ports, ways: what the contract lists. peer_end: what the stream to a peer joins in place of the program's connection,
    which it takes over; without it no peer is reached. tunnel_end: what a stream of a tunnel joins; without it none is taken. The program is connected once the
    tunnel has proven who comes, by `to_program`.
    """

    def __init__(
        self,
        carrier: Carrier,
        *,
        ports: tuple[Port, ...],
        ways: tuple[Outward, ...],
        peer_end: PeerEnd | None = None,
        tunnel_end: TunnelEnd | None = None,
    ) -> None:
        self.carrier = carrier
        self._ports = {port.name: port for port in ports}
        self._ways = {way.place: way for way in ways}
        self._peer_end = peer_end
        self._tunnel_end = tunnel_end
        self._counts = {way.place: _Count() for way in ways if isinstance(way.terms, Egress)}
        self._handed: Handed | None = None
        self._outward: set[_ProgramEnd] = set()
        self._inward: set[_ProgramEnd] = set()
        self._attempts: set[_ToProgram] = set()  # whose answer is waited for
        self._is_paused = False
        self._notes: set[tuple[str, str]] = set()
        self._note: Callable[[str], None] = lambda _line: None

    @property
    def listeners(self) -> tuple[str, ...]:
        """The places at which the program's namespace has listeners."""
        return tuple(self._ways)

    def join(self, handed: Handed, note: Callable[[str], None]) -> None:
        """Begin, with what the launcher made. note: called with a line for the program's owner."""
        self._handed, self._note = handed, note
        if self._ports or self._ways:
            note(self.summary())
        self._watch()
        self.carrier.listen(Kind.PORT, self._open_port)
        self.carrier.listen(Kind.TUNNEL, self._open_tunnel)

    def summary(self) -> str:
        """What there is, and that there is nothing else, in one line."""
        ports = ", ".join(f"{port.name} on {port.number}" for port in self._ports.values())
        ways = ", ".join(self._ways)
        return (
            f"network: reached at {ports or 'no port'}; reaches {ways or 'nothing'}; "
            "nothing else has a way in or out, of UDP and DNS nothing at all"
        )

    def counts(self) -> tuple[EgressCount, ...]:
        """What went to and came from each host outside, exactly."""
        counts = []
        for way in sorted(self._ways.values(), key=lambda way: (way.host, way.port)):
            count = self._counts.get(way.place)
            if count is None:
                continue
            counts.append(
                EgressCount(
                    host=way.host,
                    port=way.port,
                    connections=count.connections,
                    sent=count.sent,
                    received=count.received,
                )
            )
        return tuple(counts)

    @property
    def is_drained(self) -> bool:
        """Whether all that a program which is gone had sent is on its way out."""
        return all(end.stream.sent_end for end in (*self._outward, *self._inward))

    def close(self) -> None:
        """End all of it: the program is gone. What it sent to the end is left to arrive."""
        for kind in (Kind.PORT, Kind.TUNNEL):
            self.carrier.listen(kind, lambda _stream, _name: Reason.NOT_ALLOWED)
        if self._handed is None:
            return
        self._forget()
        for attempt in tuple(self._attempts):
            attempt.give_up()
        self._handed.close()
        self._handed = None
        for end in (*self._outward, *self._inward):
            if not end.stream.sent_end:
                end.stream.reset(Reason.RESET)

    def to_program(
        self, number: int, connected: Callable[[socket.socket], None], failed: Callable[[], None]
    ) -> None:
        """Connect to the program on that port of its loopback, by IPv4 or else IPv6. One of the two is called, now or later."""
        self._lead_to_program(number, connected, failed)

    def _lead_to_program(
        self, number: int, connected: Callable[[socket.socket], None], failed: Callable[[], None]
    ) -> _ToProgram | None:
        if self._handed is None or len(self._attempts) >= MAX_INWARD:
            failed()
            return None
        attempt = _ToProgram(self.carrier, self._handed.namespace, number, connected, failed, self._attempts)
        attempt.attempt()
        return attempt

    def program_socket(self) -> socket.socket:
        """A socket of IPv4 in the program's namespace, which does not block. Raises `OSError`, also where there is no namespace yet."""
        if self._handed is None:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        return self._handed.namespace.socket(socket.AF_INET)

    def finished(self, end: _ProgramEnd, name: str, reason: Reason | None) -> None:
        """A stream is over."""
        self._outward.discard(end)
        self._inward.discard(end)
        if reason in _WHY:
            self._remark(name, _WHY[reason])
        if self._is_paused and self._handed is not None:
            self._watch()

    def _remark(self, name: str, why: str) -> None:
        """Write that into the sealed log, once."""
        if (name, why) not in self._notes and len(self._notes) < _MOST_NOTES:
            self._notes.add((name, why))
            self._note(f"network: {name}: {why}")

    def _watch(self) -> None:
        self._is_paused = False
        for place, group in self._handed.listeners.items() if self._handed else ():
            for listener in group:
                self.carrier.watch(listener.fileno(), self._accepting(listener, self._ways[place]))

    def _forget(self) -> None:
        if not self._is_paused:
            for group in self._handed.listeners.values() if self._handed else ():
                for listener in group:
                    self.carrier.forget(listener.fileno())
        self._is_paused = True

    def _accepting(self, listener: socket.socket, way: Outward) -> Callable[[int], None]:
        def accept(_events: int) -> None:
            for _ in range(_AT_ONCE):
                if len(self._outward) >= MAX_OUTWARD:
                    self._forget()
                    return
                try:
                    connection, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                except OSError:  # no descriptor is left: until one is
                    self._forget()
                    return
                self._lead(connection, way)

        return accept

    def _lead(self, connection: socket.socket, way: Outward) -> None:
        """A connection of the program's becomes a stream."""
        end, problem = _Outgoing(self, way, self._counts.get(way.place) or _Count()), ""
        if self._peer_end is None and not isinstance(way.terms, Egress):
            problem = "there are no tunnels"
        else:
            try:
                end.stream = self.carrier.dial(way.destination, end)
            except Unavailable as cause:
                problem = cause.message
        if problem:
            self._remark(way.place, problem)
            reset_on_close(connection)
            connection.close()
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._outward.add(end)
        end.count.connections += 1
        end.attach(end.stream, self._joined(connection, way))

    def _joined(self, connection: socket.socket, way: Outward) -> socket.socket:
        """What the stream joins for a connection of the program's."""
        if not isinstance(way.terms, Egress):
            return connection if self._peer_end is None else self._peer_end(connection, way)
        if not way.terms.authority:
            return connection
        return tls.bridged(self.carrier, connection, way.terms, lambda why: self._remark(way.place, why))

    def _open_port(self, stream: Stream, name: str) -> StreamEnd | Reason:
        port = self._ports.get(name)
        if port is None or not port.open:
            return Reason.NOT_ALLOWED
        return self._open(stream, port)

    def _open_tunnel(self, stream: Stream, name: str) -> StreamEnd | Reason:
        if name not in self._ports or self._tunnel_end is None:
            return Reason.NOT_ALLOWED
        if len(self._inward) >= MAX_INWARD:
            return Reason.TOO_MANY
        end = _Incoming(self, stream, f"tunnel to {name}")
        self._inward.add(end)
        end.attach(stream, self._tunnel_end())
        stream.accept()
        return end

    def _open(self, stream: Stream, port: Port) -> StreamEnd | Reason:
        if len(self._inward) >= MAX_INWARD:
            return Reason.TOO_MANY
        end = _Incoming(self, stream, f"port {port.name} ({port.number})")
        self._inward.add(end)

        def connected(connection: socket.socket) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.attach(stream, connection)
            stream.accept()

        end.attempt = self._lead_to_program(port.number, connected, end.refuse)
        return Reason.REFUSED if end.is_refused else end


class _ProgramEnd(SocketEnd):
    """A stream whose other end is a socket of the program's. name: for a remark."""

    __slots__ = ("_name", "_network", "stream")

    def __init__(self, network: ProgramNetwork, name: str) -> None:
        super().__init__(network.carrier)
        self._network, self._name = network, name
        self.stream: Stream

    def over(self, reason: Reason | None) -> None:
        """Close the connection."""
        super().over(reason)
        self._network.finished(self, self._name, reason)


class _Outgoing(_ProgramEnd):
    """Of a connection that the program made."""

    __slots__ = ("count",)

    def __init__(self, network: ProgramNetwork, way: Outward, count: _Count) -> None:
        super().__init__(network, way.place)
        self.count = count

    def take(self, data: memoryview) -> None:
        """To the program."""
        self.count.received += len(data)
        super().take(data)

    def fill(self, view: memoryview) -> int:
        """From the program."""
        count = super().fill(view)
        if count > 0:
            self.count.sent += count
        return count


class _Incoming(_ProgramEnd):
    """Of a connection to one of the program's ports. attempt: to reach the program, while it goes on."""

    __slots__ = ("attempt", "is_refused")

    def __init__(self, network: ProgramNetwork, stream: Stream, name: str) -> None:
        super().__init__(network, name)
        self.stream = stream
        self.is_refused = False
        self.attempt: _ToProgram | None = None

    def over(self, reason: Reason | None) -> None:
        """Close the connection, and seek none any more: a program that takes none would be asked for each who came and left."""
        if self.attempt is not None:
            self.attempt.give_up()
        super().over(reason)

    def refuse(self) -> None:
        """The program takes no connection there."""
        self.is_refused = True
        if hasattr(self.stream, "end"):
            self.stream.reset(Reason.REFUSED)
        else:  # it is being opened at this moment
            self.over(Reason.REFUSED)


class _ToProgram:
    """One attempt after the other to connect to the program. waiting: those whose answer is waited for, to which this adds itself."""

    def __init__(
        self,
        carrier: Carrier,
        namespace: ProgramNamespace,
        number: int,
        connected: Callable[[socket.socket], None],
        failed: Callable[[], None],
        waiting: set[_ToProgram],
    ) -> None:
        self._carrier = carrier
        self._namespace = namespace
        self._number = number
        self._connected, self._failed = connected, failed
        self._left = list(_PROGRAM)
        self._waiting = waiting
        self._asked: socket.socket | None = None

    def attempt(self) -> None:
        """Try the next address."""
        while self._left:
            family, address = self._left.pop(0)
            try:
                connection = self._namespace.socket(family)
            except OSError:  # no descriptor is left, or no IPv6
                continue
            where = (address, self._number)
            connection.connect_ex(where)
            if self._settle(connection, where):
                return
        self._failed()

    def give_up(self) -> None:
        """Nobody wants the connection any more. Neither of the two is called."""
        self._left.clear()
        asked = self._asked
        if asked is not None:
            self._answered(asked)
            asked.close()

    def _answered(self, asked: socket.socket) -> None:
        self._carrier.forget(asked.fileno())
        self._waiting.discard(self)
        self._asked = None

    def _settle(self, connection: socket.socket, where: tuple[str, int]) -> bool:
        """Whether the attempt holds or goes on. The loopback has most often answered by the time that it is asked again."""
        outcome = connection.connect_ex(where)
        if outcome in (0, errno.EISCONN):
            self._connected(connection)
            return True
        if outcome in (errno.EALREADY, errno.EINPROGRESS):

            def answered(_events: int) -> None:
                self._answered(connection)
                if not self._settle(connection, where):
                    self.attempt()

            self._asked = connection
            self._waiting.add(self)
            self._carrier.watch(connection.fileno(), answered, select.EPOLLOUT)
            return True
        connection.close()
        return False
